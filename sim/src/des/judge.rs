//! What sessions must never do, each rule by its name: from what was seen to a verdict, and nothing else.
//!
//! Who calls these is `look.rs`; they are by themselves so that each can be shown what it must not let pass.

use std::time::Duration;

use quinn_proto::{ConnectionError, TransportErrorCode};
use towline_engine::{CloseReason, Code, Refused};

use super::watch::{Ended, Half, Raised};

/// Nothing, or what is wrong.
pub(super) type Verdict = Result<(), String>;

fn unless(is_wrong: bool, what: impl FnOnce() -> String) -> Verdict {
    if is_wrong { Err(what()) } else { Ok(()) }
}

/// What is read lies within what has arrived: what arrived twice is no more than once.
pub(super) fn no_dup(read_to: u64, arrived: u64) -> Verdict {
    unless(read_to > arrived, || format!("read up to {read_to}, of {arrived} bytes that have arrived"))
}

/// A writer has no more than the send buffer that the peer has not acknowledged.
pub(super) fn unacked_never_evicted(unacknowledged: u64, send_buffer: u64) -> Verdict {
    unless(unacknowledged > send_buffer, || {
        format!("{unacknowledged} bytes are accepted and not acknowledged, of {send_buffer} that are kept")
    })
}

/// Who is given up for its silence was silent for so long.
pub(super) fn any_byte_is_life(silence: u64, timeout: Duration) -> Verdict {
    unless(u128::from(silence) < timeout.as_nanos(), || {
        format!("given up {silence} ns after it was heard, of {} ns", timeout.as_nanos())
    })
}

/// The session has measured what the wire has.
pub(super) fn rtt_at_wire(measured: Option<Duration>, on_wire: u64) -> Verdict {
    unless(measured != Some(Duration::from_nanos(on_wire)), || {
        format!("measured {measured:?}, and it was {on_wire} ns")
    })
}

/// An answer or a reset that is owed waits for one record with payload at most.
pub(super) fn control_under_bulk(records: u64) -> Verdict {
    unless(records > 1, || format!("{records} records with payload went out before a pong, or a reset"))
}

/// After a change of pipe an end takes for delivered what is, and no end may send what the other has not promised.
pub(super) fn resume_safe(acknowledged: u64, half: Half, available: u64, promised: u64) -> Verdict {
    unless(acknowledged > half.arrived || half.arrived > half.sent, || {
        format!("{acknowledged} bytes count as arrived: {half:?}")
    })?;
    unless(available > promised, || format!("{available} bytes may be sent, of {promised} promised"))
}

/// The most that a stream's window may be, how large it is at first, and the rest after which it is that large again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) first: u64,
    pub(super) most: u64,
}

const REST: u64 = 10_000_000_000;

/// A window is at most so large, at most doubles, and after a rest is at most twice what it was at first: what comes first may
/// double it (PROTOCOL §4.6). `read` is how far the reader is.
pub(super) fn tune_bounded(raised: Raised, read: u64, before: u64, bounds: Bounds) -> Verdict {
    let Bounds { first, most } = bounds;
    let window = raised.to.saturating_sub(read);
    unless(window > most, || format!("a window of {window} bytes, of {most}"))?;
    let (Some(from), true) = (raised.from, before > 0) else { return Ok(()) };
    unless(raised.to > from && window > before.max(first) * 2, || {
        format!("a window of {window} bytes, after one of {before}")
    })?;
    let has_rested = raised.after > REST;
    unless(has_rested && window > (2 * first).max(from.saturating_sub(read)), || {
        format!("a window of {window} bytes after a rest of {} s", raised.after / 1_000_000_000)
    })
}

/// A reader who takes little at a time costs no more than a frame for each half window.
pub(super) fn no_stall_by_frames(raised: Raised, first: u64) -> Verdict {
    let Some(from) = raised.from.filter(|_| raised.after <= REST) else { return Ok(()) };
    let by = raised.to.saturating_sub(from);
    unless(by < first / 2, || format!("a limit that rises by {by} bytes, of a window of {first}"))
}

/// Whoever waits while the pipe moves goes on within a while.
pub(super) fn no_stall(quiet: u64, patience: u64) -> Verdict {
    unless(quiet > patience, || format!("nothing went on for {} ms, on a pipe that works", quiet / 1_000_000))
}

/// What was owed when a pipe was there again is through.
pub(super) fn eventual(owed: u64, read: u64, fin_owed: bool, within: u64) -> Verdict {
    unless(read < owed || fin_owed, || {
        let end = if fin_owed { ", and its end is not" } else { "" };
        format!("{} ms after the pipe was back {read} of {owed} bytes are through{end}", within / 1_000_000)
    })
}

/// A clean close: each half that was finished has arrived, and so has its end.
pub(super) fn close_flushes(written: u64, half: Half) -> Verdict {
    unless(half.arrived < written || half.ended != Some(Ended::Fin), || {
        format!("closed in order with {written} bytes and the end, and {half:?}")
    })
}

/// How the end that accepts pipes stands, as those who come late should hear.
#[derive(Clone, Debug)]
pub(super) enum Truth {
    /// It does not know the session.
    Unknown,
    /// The session goes on.
    GoesOn,
    /// It is over, for this reason.
    Over(CloseReason),
}

/// Who comes late hears how the session has ended.
pub(super) fn closed_truth(told: Refused, truth: &Truth) -> Verdict {
    let holds = match (told, truth) {
        (Refused::Unknown, Truth::Unknown) => true,
        (Refused::Expired, Truth::Over(why)) => *why == CloseReason::Expired,
        (Refused::Closed(code), Truth::Over(why)) => code_of(why) == Some(code),
        _ => false,
    };
    unless(!holds, || format!("told `{told}`, and it is {truth:?}"))
}

fn code_of(why: &CloseReason) -> Option<Code> {
    match why {
        CloseReason::Local(code) | CloseReason::LocalUnflushed(code) | CloseReason::Peer { code, .. } => {
            Some(*code)
        }
        _ => None,
    }
}

/// With which codes of QUIC's own a connection ends that nobody finds fault with: its application went away in the handshake,
/// or the hub had no room.
const PEACEFUL: [TransportErrorCode; 3] = [
    TransportErrorCode::NO_ERROR,
    TransportErrorCode::CONNECTION_REFUSED,
    TransportErrorCode::APPLICATION_ERROR,
];

/// A connection of QUIC is closed by an application, refused by a hub that has no room, or missed; and no end finds fault.
pub(super) fn no_violation_of_quic(why: &ConnectionError) -> Verdict {
    let holds = match why {
        ConnectionError::ApplicationClosed(_)
        | ConnectionError::LocallyClosed
        | ConnectionError::TimedOut
        | ConnectionError::Reset => true,
        ConnectionError::ConnectionClosed(close) => PEACEFUL.contains(&close.error_code),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::CidsExhausted => false,
    };
    unless(!holds, || format!("a connection of QUIC ended: {why}"))
}

/// Who is told that not all has arrived had said something of which nobody has told it that it has.
pub(super) fn close_is_not_given_up_early(is_left: bool) -> Verdict {
    unless(!is_left, || "told that something is missing, and all was acknowledged".to_owned())
}

/// A stream beside slow readers takes the time that its bytes take.
pub(super) fn slow_reader_isolated(took: u64, within: u64) -> Verdict {
    unless(took > within, || format!("it took {took} ns beside slow readers, and {within} ns are enough"))
}

/// Who comes late hears how much had arrived.
pub(super) fn closed_truth_of(acknowledged: u64, half: Half) -> Verdict {
    unless(acknowledged != half.arrived, || format!("told {acknowledged} bytes, and {half:?}"))
}

/// The end that accepts pipes forgets when the other has, or should have by now.
pub(super) fn ttl_order(other_is_over: bool, other_forgets_at: Option<u64>, now: u64) -> Verdict {
    let is_first = !other_is_over && other_forgets_at.is_none_or(|at| at > now);
    unless(is_first, || format!("forgotten at {now} ns, and by the other end at {other_forgets_at:?}"))
}

/// The application of the end that drains has seen nothing of a stream that it refuses.
pub(super) fn drain_partition(is_draining: bool, was_seen: bool) -> Verdict {
    unless(!is_draining, || "refused, and nobody drains".to_owned())?;
    unless(was_seen, || "refused, and an application had seen it".to_owned())
}

/// Whoever hears that a session is over by a drain was told of the drain before.
pub(super) fn drain_is_told(has_heard: bool) -> Verdict {
    unless(!has_heard, || "over by a drain that this end was never told of".to_owned())
}

/// A writer that waits although there is room for it, and nothing of what it wrote is under way, was not woken.
pub(super) fn blocked_writer_wakes(waits: bool, has_room: bool) -> Verdict {
    unless(waits && has_room, || "there is room to write, and nobody has told the writer".to_owned())
}

/// Who can resume is detached when the peer seems dead, and not closed.
pub(super) fn dead_is_detach(can_resume: bool, why: &CloseReason) -> Verdict {
    let was_dead = matches!(why, CloseReason::IdleTimeout | CloseReason::PipeLost(_));
    unless(can_resume && was_dead, || format!("it could be resumed, and is over: {why}"))
}

/// A pipe with a newer epoch and a proof carries the session at once.
pub(super) fn newest_wins_now(is_detached: bool) -> Verdict {
    unless(is_detached, || "let in, and not attached".to_owned())
}

/// Nothing is said once it is over.
pub(super) fn one_terminal_event(was_over: bool, what: impl FnOnce() -> String) -> Verdict {
    unless(was_over, what)
}

/// What comes late from a pipe that was left changes nothing.
pub(super) fn is_unchanged(before: u128, after: u128) -> Verdict {
    unless(before != after, || "the session is not as it was".to_owned())
}

/// No end finds fault with the other, but for the errors of the transport that are expected.
pub(super) fn no_violation(why: &CloseReason, expected: &[u64]) -> Verdict {
    let code = match why {
        CloseReason::Violation(violation) => violation.code(),
        CloseReason::PeerTransport { code, .. } => *code,
        _ => return Ok(()),
    };
    unless(!expected.contains(&code), || why.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quinn_proto::ConnectionClose;
    use towline_engine::{PipeClosed, StreamId, Violation};

    use super::*;

    const HALF: Half = Half { sent: 9, arrived: 5, ended: None, acknowledged: 0 };
    const WHOLE: Half = Half { sent: 9, arrived: 9, ended: Some(Ended::Fin), acknowledged: 0 };

    fn closed_by_quic(error_code: TransportErrorCode) -> ConnectionError {
        let close = ConnectionClose { error_code, frame_type: None, reason: Bytes::new() };
        ConnectionError::ConnectionClosed(close)
    }

    /// What must pass, and what must not.
    #[test]
    fn each_rule_lets_pass_what_is_right_and_nothing_else() {
        let second = Duration::from_secs(1);
        let closed = |code| Truth::Over(CloseReason::LocalUnflushed(Code::from(code)));
        let cases = [
            ("no_dup", no_dup(5, 5), no_dup(6, 5)),
            ("unacked_never_evicted", unacked_never_evicted(8, 8), unacked_never_evicted(9, 8)),
            (
                "any_byte_is_life",
                any_byte_is_life(1_000_000_000, second),
                any_byte_is_life(999_999_999, second),
            ),
            ("rtt_at_wire", rtt_at_wire(Some(second), 1_000_000_000), rtt_at_wire(Some(second), 999_999_999)),
            (
                "no_violation of QUIC",
                no_violation_of_quic(&ConnectionError::TimedOut),
                no_violation_of_quic(&ConnectionError::CidsExhausted),
            ),
            (
                "no_violation of QUIC, told by the peer",
                no_violation_of_quic(&closed_by_quic(TransportErrorCode::CONNECTION_REFUSED)),
                no_violation_of_quic(&closed_by_quic(TransportErrorCode::FLOW_CONTROL_ERROR)),
            ),
            ("rtt_at_wire, none", Ok(()), rtt_at_wire(None, 1)),
            ("control_under_bulk", control_under_bulk(1), control_under_bulk(2)),
            (
                "close_flushes, given up",
                close_is_not_given_up_early(true),
                close_is_not_given_up_early(false),
            ),
            ("slow_reader_isolated", slow_reader_isolated(7, 7), slow_reader_isolated(8, 7)),
            ("resume_safe", resume_safe(5, HALF, 3, 3), resume_safe(6, HALF, 3, 3)),
            ("resume_safe, credit", resume_safe(5, HALF, 2, 3), resume_safe(5, HALF, 4, 3)),
            ("no_stall", no_stall(7, 7), no_stall(8, 7)),
            ("eventual", eventual(5, 5, false, 1), eventual(5, 4, false, 1)),
            ("eventual, the end", eventual(5, 6, false, 1), eventual(5, 5, true, 1)),
            ("close_flushes", close_flushes(9, WHOLE), close_flushes(9, HALF)),
            (
                "close_flushes, the end",
                close_flushes(9, WHOLE),
                close_flushes(9, Half { ended: None, ..WHOLE }),
            ),
            (
                "closed_truth",
                closed_truth(Refused::Closed(Code::from(7_u32)), &closed(7_u32)),
                closed_truth(Refused::Closed(Code::from(7_u32)), &closed(8_u32)),
            ),
            (
                "closed_truth, expired",
                closed_truth(Refused::Expired, &Truth::Over(CloseReason::Expired)),
                closed_truth(Refused::Expired, &closed(7_u32)),
            ),
            (
                "closed_truth, unknown",
                closed_truth(Refused::Unknown, &Truth::Unknown),
                closed_truth(Refused::Unknown, &Truth::GoesOn),
            ),
            ("closed_truth, offsets", closed_truth_of(5, HALF), closed_truth_of(4, HALF)),
            ("ttl_order", ttl_order(true, None, 5), ttl_order(false, Some(6), 5)),
            ("ttl_order, no timer", ttl_order(false, Some(5), 5), ttl_order(false, None, 5)),
            ("drain_partition", drain_partition(true, false), drain_partition(true, true)),
            ("drain_partition, nobody", drain_partition(true, false), drain_partition(false, false)),
            ("drain_partition, told", drain_is_told(true), drain_is_told(false)),
            ("blocked_writer_wakes", blocked_writer_wakes(true, false), blocked_writer_wakes(true, true)),
            ("stale_pipe_inert", is_unchanged(1, 1), is_unchanged(1, 2)),
            (
                "dead_is_detach",
                dead_is_detach(true, &CloseReason::Expired),
                dead_is_detach(true, &CloseReason::IdleTimeout),
            ),
            (
                "dead_is_detach, without resumption",
                dead_is_detach(false, &CloseReason::IdleTimeout),
                dead_is_detach(true, &CloseReason::PipeLost(PipeClosed::Failed)),
            ),
            ("newest_wins_now", newest_wins_now(false), newest_wins_now(true)),
            (
                "one_terminal_event",
                one_terminal_event(false, String::new),
                one_terminal_event(true, String::new),
            ),
        ];
        for (rule, right, wrong) in cases {
            assert_eq!(right, Ok(()), "{rule}");
            assert!(wrong.is_err(), "{rule} lets it pass");
        }
    }

    #[test]
    fn a_window_that_is_too_large_in_any_way_is_seen() {
        let bounds = Bounds { first: 64, most: 1000 };
        let id = StreamId::from_wire(0).expect("it is small");
        let raised = |from, to, after| Raised { id, from: Some(from), to, after };
        // From, to, after so long, read so far, and the window before.
        for (raised, read, before) in [
            (raised(64, 200, 5), 100, 64),
            (raised(64, 228, 5), 100, 64),
            (raised(1064, 1100, REST + 1), 1050, 64),
            (raised(2000, 2000, REST + 1), 1500, 900),
        ] {
            assert_eq!(tune_bounded(raised, read, before, bounds), Ok(()), "{raised:?}");
        }
        for (raised, read, before) in [
            (raised(500, 1101, 5), 100, 900),
            (raised(64, 229, 5), 100, 64),
            (raised(1064, 1193, REST + 1), 1064, 900),
        ] {
            assert!(tune_bounded(raised, read, before, bounds).is_err(), "{raised:?}");
        }
        assert_eq!(no_stall_by_frames(raised(64, 96, 5), 64), Ok(()));
        assert!(no_stall_by_frames(raised(64, 95, 5), 64).is_err());
    }

    #[test]
    fn a_fault_is_excused_by_its_code_only() {
        let why = CloseReason::Violation(Violation::FinalSize);
        assert!(no_violation(&why, &[]).is_err());
        assert!(no_violation(&why, &[Violation::FlowControl.code()]).is_err());
        assert_eq!(no_violation(&why, &[Violation::FinalSize.code()]), Ok(()));
        let told = CloseReason::PeerTransport { code: 3, reason: Default::default() };
        assert!(no_violation(&told, &[4]).is_err());
        assert_eq!(no_violation(&CloseReason::Expired, &[]), Ok(()));
    }
}
