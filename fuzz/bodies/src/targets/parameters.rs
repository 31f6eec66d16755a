//! Transport parameters: arbitrary bytes as the body of the first frame.
//!
//! Oracles: what draft-02 §5 and RFC 9000 §18 say, written down once more, decides alike; what is accepted has exactly
//! the effects that it declares; and written again in another order and in other lengths it means the same.

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Unstructured;
use bytes::Bytes;
use towline_engine::{Config, Dir, Epoch, Instant, Resumption, Session, Side, Timer, WriteError};
use towline_model::{ID, SECRET};

use crate::wire::{self, frame, parameter};

/// What one end declares, as far as a session acts on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    numbers: BTreeMap<u64, u64>,
    /// The grace period, and the session's name and secret.
    resume: Option<(u64, Vec<u8>)>,
}

/// The parameters that are numbers, and what each means if it is not there.
const NUMBERS: [(u64, u64); 8] = [
    (parameter::MAX_IDLE_TIMEOUT, 0),
    (parameter::INITIAL_MAX_DATA, 0),
    (parameter::INITIAL_MAX_STREAM_DATA_BIDI_LOCAL, 0),
    (parameter::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE, 0),
    (parameter::INITIAL_MAX_STREAM_DATA_UNI, 0),
    (parameter::INITIAL_MAX_STREAMS_BIDI, 0),
    (parameter::INITIAL_MAX_STREAMS_UNI, 0),
    (parameter::MAX_RECORD_SIZE, 16382),
];

/// Those of RFC 9000 that draft-02 §5.1 prohibits.
const PROHIBITED: [u64; 10] = [0x00, 0x02, 0x03, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10];

impl Declared {
    /// `None` if the bytes break a rule.
    pub fn read(mut body: &[u8]) -> Option<Self> {
        let mut declared = Self::default();
        while !body.is_empty() {
            let id = wire::take(&mut body)?;
            let length = usize::try_from(wire::take(&mut body)?).ok()?;
            let mut value = body.split_off(..length)?;
            if NUMBERS.iter().any(|&(known, _)| known == id) {
                let number = wire::take(&mut value)?;
                if !value.is_empty() || declared.numbers.insert(id, number).is_some() {
                    return None;
                }
            } else if id == parameter::RESUME {
                let grace = wire::take(&mut value)?;
                let is_whole = value.is_empty() || value.len() == 16 + 32;
                if !is_whole || declared.resume.replace((grace, value.to_vec())).is_some() {
                    return None;
                }
            } else if PROHIBITED.contains(&id) {
                return None;
            }
        }
        let is_lawful = declared.number(parameter::MAX_RECORD_SIZE) >= 16382
            && declared.number(parameter::INITIAL_MAX_STREAMS_BIDI) <= 1 << 60
            && declared.number(parameter::INITIAL_MAX_STREAMS_UNI) <= 1 << 60;
        is_lawful.then_some(declared)
    }

    /// The same, in descending order, each number in eight bytes, with something unknown between them.
    fn write(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some((grace, ticket)) = &self.resume {
            let mut value = (grace | 3 << 62).to_be_bytes().to_vec();
            value.extend_from_slice(ticket);
            wire::put_parameter_bytes(&mut body, parameter::RESUME, &value);
        }
        for (&id, &number) in self.numbers.iter().rev() {
            wire::put_parameter_bytes(&mut body, id, &(number | 3 << 62).to_be_bytes());
            wire::put_parameter_bytes(&mut body, 0x7f00 + id % 27, b"later");
        }
        body
    }

    fn number(&self, id: u64) -> u64 {
        let default = NUMBERS.iter().find(|&&(known, _)| known == id).map_or(0, |&(_, default)| default);
        self.numbers.get(&id).copied().unwrap_or(default)
    }
}

/// An input as it was meant.
#[derive(Debug)]
pub struct Input<'a> {
    /// Which end reads them.
    pub side: Side,
    /// Whether that end wants the session to outlive its pipe.
    pub resumable: bool,
    /// How many bytes arrive at a time.
    pub cut: usize,
    /// The parameters.
    pub body: &'a [u8],
}

impl<'a> Input<'a> {
    /// Any bytes are an input.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn new(data: &'a [u8]) -> Self {
        let mut u = Unstructured::new(data);
        let [flags, cut]: [u8; 2] = u.arbitrary().expect("missing bytes are zeros");
        let rest = u.take_rest();
        Self {
            side: if flags & 1 == 0 { Side::Server } else { Side::Client },
            resumable: flags & 2 != 0,
            cut: if cut == 0 { usize::MAX } else { cut.into() },
            body: &rest[..rest.len().min(MOST_BYTES)],
        }
    }
}

/// A record must hold them.
const MOST_BYTES: usize = 16_300;

const NOW: Instant = Instant::from_nanos(1 << 40);
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const STREAM_SHARE: u64 = 128 << 10;

/// Runs an input.
///
/// # Panics
///
/// If the session takes the parameters for something else than what they are.
pub fn run(data: &[u8]) {
    let input = Input::new(data);
    let session = told(&input, input.body);
    let declared = Declared::read(input.body);
    assert_eq!(session.is_closed(), declared.is_none(), "{declared:?}");
    let Some(declared) = declared else { return };
    check_effects(&input, session.clone(), &declared);
    let again = told(&input, &declared.write());
    assert_eq!(again.fingerprint(NOW), session.fingerprint(NOW), "written again, they mean the same");
    check_effects(&input, again, &declared);
}

/// A session that was told these parameters.
fn told(input: &Input<'_>, body: &[u8]) -> Session {
    let mut config = Config::default();
    (config.keep_alive, config.idle_timeout, config.send_buffer) = (None, IDLE_TIMEOUT, 1 << 30);
    config.resumption = match (input.resumable, input.side) {
        (false, _) => Resumption::Off,
        (true, Side::Client) => Resumption::Offer(ID, SECRET),
        (true, Side::Server) => Resumption::Accept,
    };
    let mut session = Session::new(input.side, config);
    session.attach(NOW, Epoch(0)).expect("its first pipe");
    let record = wire::record(&wire::frame_with_block(frame::QX_TRANSPORT_PARAMETERS, &[], body));
    for chunk in record.chunks(input.cut) {
        session.handle_input(NOW, Epoch(0), Bytes::copy_from_slice(chunk));
    }
    session.check_invariants();
    session
}

fn check_effects(input: &Input<'_>, mut session: Session, declared: &Declared) {
    let number = |id| declared.number(id);
    // The idle timeout: the shorter of both.
    let theirs = Some(number(parameter::MAX_IDLE_TIMEOUT)).filter(|&millis| millis > 0);
    let idle = theirs.map_or(IDLE_TIMEOUT, |millis| Duration::from_millis(millis).min(IDLE_TIMEOUT));
    assert_eq!(session.poll_timeout(), Some((NOW + idle, Timer::Idle)));
    // Resumption: if both want it, and the client has said under what name.
    let has_ticket = declared.resume.as_ref().map(|(_, ticket)| !ticket.is_empty());
    let agreed = match (input.resumable, has_ticket, input.side) {
        (true, Some(true), Side::Server) => declared.resume.as_ref().map(|(_, ticket)| ticket[..16].to_vec()),
        (true, Some(_), Side::Client) => Some(ID.0.to_vec()),
        _ => None,
    };
    assert_eq!(session.id().map(|id| id.0.to_vec()), agreed);
    // Streams, and the credit of the first of each kind.
    let session_limit = number(parameter::INITIAL_MAX_DATA);
    assert_eq!(session.credit().available, session_limit);
    for (dir, streams, data) in [
        (Dir::Bi, parameter::INITIAL_MAX_STREAMS_BIDI, parameter::INITIAL_MAX_STREAM_DATA_BIDI_REMOTE),
        (Dir::Uni, parameter::INITIAL_MAX_STREAMS_UNI, parameter::INITIAL_MAX_STREAM_DATA_UNI),
    ] {
        let streams = number(streams);
        for index in 0..streams.min(40) {
            let id = session.open(dir).expect("the peer allows it");
            if index == 0 {
                let room = number(data).min(session.credit().available).min(STREAM_SHARE);
                let data = vec![0; usize::try_from(STREAM_SHARE + 1).expect("it is small")];
                let written = session.stream(id).expect("it was just opened").write(&data);
                let expected = if room == 0 { Err(WriteError::Blocked) } else { Ok(room) };
                assert_eq!(written.map(|count| count as u64), expected);
            }
        }
        assert_eq!(session.open(dir).is_ok(), streams > 40, "{dir:?}");
    }
    // Records are no larger than the peer takes.
    let most = number(parameter::MAX_RECORD_SIZE);
    let mut out = Vec::new();
    loop {
        let length = session.poll_transmit(NOW, 1 << 20, &mut out);
        if length == 0 {
            break;
        }
        assert!(length as u64 <= most.saturating_add(4));
    }
    session.check_invariants();
}
