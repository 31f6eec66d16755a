//! What can happen to one session.
//!
//! A step is an opcode and a few bytes, read from the front, so that what a seed generator writes is what a fuzzer
//! reads, and a mutation of one step leaves the others as they are.

use arbitrary::{Arbitrary, Unstructured};
use towline_engine::Dir;

use crate::peer::PeerFrame;

/// What the pipe, the peer, the application or the clock does. Streams are chosen by number, modulo how many the
/// application has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Step<'a> {
    /// Bytes from the pipe.
    Bytes(&'a [u8]),
    /// A record with this frame, and so many more of its kind; they arrive `cut` bytes at a time.
    Frame {
        frame: PeerFrame,
        times: u8,
        cut: u8,
    },
    /// Everything that a fair peer says first.
    Greet,
    Open(Dir),
    Accept(Dir),
    Write {
        stream: u8,
        length: u16,
        copied: bool,
    },
    Read {
        stream: u8,
        most: u16,
        copied: bool,
    },
    Finish(u8),
    Reset {
        stream: u8,
        code: u8,
        when_sent: bool,
    },
    Stop {
        stream: u8,
        code: u8,
    },
    Release(u8),
    SetUrgency {
        stream: u8,
        urgency: u8,
    },
    Ping,
    CopyOut,
    Close {
        code: u8,
        reason: u16,
    },
    Drain {
        seconds: u8,
    },
    /// The pipe takes a record of at most so many bytes.
    Transmit {
        max: u16,
    },
    Wait {
        millis: u16,
    },
    WaitForTimer,
    /// The application hears everything that there is to hear.
    Events,
    /// The pipe so many epochs ago has ended.
    PipeClosed {
        back: u8,
        failed: bool,
    },
    /// There is a pipe, so many epochs ahead; if the peer opened it, it says next whose it is.
    Attach {
        ahead: u8,
    },
    /// What there is to say is looked at, and not said.
    Flush,
}

impl<'a> Arbitrary<'a> for Step<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let opcode: u8 = u.arbitrary()?;
        let flag = opcode & 0x80 == 0;
        let dir = if flag { Dir::Bi } else { Dir::Uni };
        Ok(match opcode & 0x1f {
            0 => {
                let length = usize::from(u.arbitrary::<u8>()?).min(u.len());
                Self::Bytes(u.bytes(length)?)
            }
            1..=6 => {
                let frame = u.arbitrary()?;
                let [times, cut] = u.arbitrary()?;
                // Most often one, and sometimes a flood.
                Self::Frame { frame, times: if times < 0xc0 { 0 } else { times }, cut }
            }
            7 => Self::Greet,
            8 => Self::Open(dir),
            9 | 10 => Self::Accept(dir),
            11 | 12 => Self::Write { stream: u.arbitrary()?, length: u.arbitrary()?, copied: flag },
            13 | 14 => Self::Read { stream: u.arbitrary()?, most: u.arbitrary()?, copied: flag },
            15 => Self::Finish(u.arbitrary()?),
            16 => Self::Reset { stream: u.arbitrary()?, code: u.arbitrary()?, when_sent: flag },
            17 => Self::Stop { stream: u.arbitrary()?, code: u.arbitrary()? },
            18 => Self::Release(u.arbitrary()?),
            19 => Self::SetUrgency { stream: u.arbitrary()?, urgency: u.arbitrary()? },
            20 => Self::Ping,
            21 => Self::CopyOut,
            22 => Self::Close { code: u.arbitrary()?, reason: u.arbitrary()? },
            23 => Self::Drain { seconds: u.arbitrary()? },
            24 | 25 => Self::Transmit { max: u.arbitrary()? },
            26 => Self::Wait { millis: u.arbitrary()? },
            27 => Self::WaitForTimer,
            28 => Self::Events,
            29 => Self::PipeClosed { back: u.arbitrary::<u8>()? % 3, failed: flag },
            30 => Self::Attach { ahead: u.arbitrary()? },
            _ => Self::Flush,
        })
    }
}

impl Step<'_> {
    /// The bytes that `arbitrary` makes this of.
    ///
    /// # Panics
    ///
    /// If there are more than 255 bytes.
    pub fn put(self, out: &mut Vec<u8>) {
        let mut put = |opcode: u8, flag: bool, rest: &[u8]| {
            out.push(opcode | u8::from(!flag) << 7);
            out.extend_from_slice(rest);
        };
        let with_short = |first: u8, [low, high]: [u8; 2]| [first, low, high];
        match self {
            Self::Bytes(bytes) => {
                put(0, true, &[u8::try_from(bytes.len()).expect("at most 255 bytes in one go")]);
                out.extend_from_slice(bytes);
            }
            Self::Frame { frame, times, cut } => {
                put(1, true, &[]);
                frame.put(out);
                out.extend([times, cut]);
            }
            Self::Greet => put(7, true, &[]),
            Self::Open(dir) => put(8, dir == Dir::Bi, &[]),
            Self::Accept(dir) => put(9, dir == Dir::Bi, &[]),
            Self::Write { stream, length, copied } => {
                put(11, copied, &with_short(stream, length.to_le_bytes()));
            }
            Self::Read { stream, most, copied } => put(13, copied, &with_short(stream, most.to_le_bytes())),
            Self::Finish(stream) => put(15, true, &[stream]),
            Self::Reset { stream, code, when_sent } => put(16, when_sent, &[stream, code]),
            Self::Stop { stream, code } => put(17, true, &[stream, code]),
            Self::Release(stream) => put(18, true, &[stream]),
            Self::SetUrgency { stream, urgency } => put(19, true, &[stream, urgency]),
            Self::Ping => put(20, true, &[]),
            Self::CopyOut => put(21, true, &[]),
            Self::Close { code, reason } => put(22, true, &with_short(code, reason.to_le_bytes())),
            Self::Drain { seconds } => put(23, true, &[seconds]),
            Self::Transmit { max } => put(24, true, &max.to_le_bytes()),
            Self::Wait { millis } => put(26, true, &millis.to_le_bytes()),
            Self::WaitForTimer => put(27, true, &[]),
            Self::Events => put(28, true, &[]),
            Self::PipeClosed { back, failed } => put(29, failed, &[back]),
            Self::Attach { ahead } => put(30, true, &[ahead]),
            Self::Flush => put(31, true, &[]),
        }
    }
}

/// All steps that `u` holds.
pub fn steps<'a>(u: &mut Unstructured<'a>) -> impl Iterator<Item = Step<'a>> {
    std::iter::from_fn(|| if u.is_empty() { None } else { u.arbitrary().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Kind;
    use crate::setup::{Setup, Stage};
    use towline_engine::Side;

    #[test]
    fn what_is_written_is_read_alike() {
        let frame = PeerFrame { kind: Kind::Drain, stream: 3, number: 0x1234, twist: 9 };
        let all = [
            Step::Bytes(b"some bytes"),
            Step::Bytes(b""),
            Step::Frame { frame, times: 0, cut: 3 },
            Step::Frame { frame, times: 0xc1, cut: 0 },
            Step::Greet,
            Step::Open(Dir::Uni),
            Step::Accept(Dir::Bi),
            Step::Write { stream: 1, length: 0x0203, copied: false },
            Step::Read { stream: 1, most: 0x0203, copied: true },
            Step::Finish(7),
            Step::Reset { stream: 1, code: 2, when_sent: true },
            Step::Stop { stream: 1, code: 2 },
            Step::Release(1),
            Step::SetUrgency { stream: 1, urgency: 2 },
            Step::Ping,
            Step::CopyOut,
            Step::Close { code: 1, reason: 0x0203 },
            Step::Drain { seconds: 4 },
            Step::Transmit { max: 0x0203 },
            Step::Wait { millis: 0x0203 },
            Step::WaitForTimer,
            Step::Events,
            Step::PipeClosed { back: 2, failed: false },
            Step::Attach { ahead: 5 },
            Step::Flush,
        ];
        let setup = Setup {
            side: Side::Client,
            resumable: true,
            stage: Stage::Busy,
            copies_out: false,
            fail_fast: true,
            optimistic: false,
            limits: 4,
        };
        let mut bytes = Vec::new();
        setup.put(&mut bytes);
        all.into_iter().for_each(|step| step.put(&mut bytes));
        let mut u = Unstructured::new(&bytes);
        assert_eq!(u.arbitrary(), Ok(setup));
        assert!(steps(&mut u).eq(all));
    }
}
