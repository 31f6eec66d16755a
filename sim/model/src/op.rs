//! What can happen to a world.

use towline_engine::{Dir, Side, Urgency};

/// What an application does, or a pipe, or the clock. Streams are chosen by number, modulo how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Op {
    Open(Side, Dir),
    Accept(Side, Dir),
    Write(Side, u8, u16),
    Read(Side, u8, u16),
    Finish(Side, u8),
    Reset(Side, u8, u8),
    ResetWhenSent(Side, u8, u8),
    Stop(Side, u8, u8),
    Release(Side, u8),
    SetUrgency(Side, u8, Urgency),
    Ping(Side),
    CopyOut(Side),
    Transmit(Side, u16),
    Deliver(Side, u16),
    Wait(u8),
    Cut {
        client_notices: bool,
        server_notices: bool,
    },
    Reconnect,
    Drain(Side),
    Close(Side),
    /// Fires the next timer, whenever it is due.
    Fire(Side),
    /// Reconnects while bytes of the last pipe can still arrive.
    Overtake,
    TransmitOlder(u16),
    DeliverOlder(u8, u16),
}

impl Op {
    /// An operation for any five bytes: common ones for many, rare ones for few.
    pub fn decode([kind, place, stream, high, low]: [u8; 5]) -> Self {
        let side = if place & 1 == 0 { Side::Client } else { Side::Server };
        let dir = if place & 2 == 0 { Dir::Bi } else { Dir::Uni };
        let amount = u16::from_be_bytes([high, low]);
        match kind % 64 {
            0..4 => Self::Open(side, dir),
            4..9 => Self::Accept(side, dir),
            9..19 => Self::Write(side, stream, amount % 600),
            19..29 => Self::Read(side, stream, 1 + amount % 600),
            29..32 => Self::Finish(side, stream),
            32 => Self::Reset(side, stream, low),
            33 => Self::ResetWhenSent(side, stream, low),
            34 => Self::Stop(side, stream, low),
            35..37 => Self::Release(side, stream),
            37 => Self::SetUrgency(
                side,
                stream,
                [Urgency::Interactive, Urgency::Normal, Urgency::Bulk][usize::from(low) % 3],
            ),
            38 => Self::Ping(side),
            39 => Self::CopyOut(side),
            40..49 => Self::Transmit(side, 300 + amount % 2000),
            49..59 => Self::Deliver(side, 1 + amount % 2000),
            59 => Self::Wait(low),
            60 => Self::Cut { client_notices: place & 4 == 0, server_notices: place & 8 == 0 },
            61 | 62 => Self::Reconnect,
            _ => match low {
                0..16 => Self::Drain(side),
                16..20 => Self::Close(side),
                20..60 => Self::Overtake,
                60..140 => Self::DeliverOlder(stream % 3, 1 + amount % 2000),
                140..150 => Self::TransmitOlder(300 + amount % 2000),
                _ => Self::Wait(high),
            },
        }
    }
}

/// The first byte of operations, as [`Op::decode`] reads it: for those who write some. Of several that mean the same, the
/// least.
#[expect(missing_docs, reason = "the names say it")]
pub mod kind {
    pub const OPEN: u8 = 0;
    pub const ACCEPT: u8 = 4;
    pub const WRITE: u8 = 9;
    pub const READ: u8 = 19;
    pub const FINISH: u8 = 29;
    pub const RESET: u8 = 32;
    pub const RESET_WHEN_SENT: u8 = 33;
    pub const STOP: u8 = 34;
    pub const RELEASE: u8 = 35;
    pub const URGENCY: u8 = 37;
    pub const PING: u8 = 38;
    pub const COPY_OUT: u8 = 39;
    pub const TRANSMIT: u8 = 40;
    pub const DELIVER: u8 = 49;
    pub const WAIT: u8 = 59;
    pub const CUT: u8 = 60;
    pub const RECONNECT: u8 = 61;
    /// The last byte says which: a drain if it is 0.
    pub const RARE: u8 = 63;
    /// The last byte of a close.
    pub const CLOSE: u8 = 16;
}
