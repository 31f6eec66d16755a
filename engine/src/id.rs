//! The names of things: sides, directions, streams, epochs, and the application's error codes.

use core::fmt;

use crate::varint;

/// Which end of the pipe a session is on.
///
/// The names are RFC 9000's. They say nothing about the product: a device that dials a hub is the client of
/// that link, and the hub its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end that opened the pipe.
    Client,
    /// The end that accepted it.
    Server,
}

impl Side {
    /// The other end.
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Whether a stream carries bytes both ways or only from its opener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dir {
    /// Both ends send.
    Bi,
    /// Only the end that opened the stream sends.
    Uni,
}

/// One value for each [`Dir`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ByDir<T> {
    pub(crate) bi: T,
    pub(crate) uni: T,
}

impl<T> ByDir<T> {
    pub(crate) fn get(&self, dir: Dir) -> &T {
        match dir {
            Dir::Bi => &self.bi,
            Dir::Uni => &self.uni,
        }
    }

    pub(crate) fn get_mut(&mut self, dir: Dir) -> &mut T {
        match dir {
            Dir::Bi => &mut self.bi,
            Dir::Uni => &mut self.uni,
        }
    }
}

/// The name of a stream within its session; never used twice (RFC 9000 §2.1).
///
/// The lowest bit says who opened it, the next one its direction, the rest counts from 0 within those.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

impl StreamId {
    /// The `index`-th stream (counted from 0) that `opener` opened in direction `dir`.
    ///
    /// Returns `None` if `index` is 2^60 or more, which no stream id can hold.
    pub const fn new(opener: Side, dir: Dir, index: u64) -> Option<Self> {
        if index > MAX_STREAMS - 1 {
            return None;
        }
        let opener = match opener {
            Side::Client => 0,
            Side::Server => 1,
        };
        let dir = match dir {
            Dir::Bi => 0,
            Dir::Uni => 2,
        };
        Some(Self(index << 2 | dir | opener))
    }

    /// The id as it stands on the wire. `None` from 2^62 on.
    pub const fn from_wire(value: u64) -> Option<Self> {
        if value > varint::MAX { None } else { Some(Self(value)) }
    }

    /// The id as it stands on the wire.
    pub const fn to_wire(self) -> u64 {
        self.0
    }

    /// Who opened the stream.
    pub const fn opener(self) -> Side {
        if self.0 & 1 == 0 { Side::Client } else { Side::Server }
    }

    /// The direction it was opened in.
    pub const fn dir(self) -> Dir {
        if self.0 & 2 == 0 { Dir::Bi } else { Dir::Uni }
    }

    /// Its number among the streams of the same opener and direction, from 0.
    pub const fn index(self) -> u64 {
        self.0 >> 2
    }

    /// Whether `side` sends on this stream.
    pub(crate) fn sends(self, side: Side) -> bool {
        self.dir() == Dir::Bi || self.opener() == side
    }

    /// Whether `side` receives on this stream.
    pub(crate) fn receives(self, side: Side) -> bool {
        self.dir() == Dir::Bi || self.opener() != side
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} stream {}", self.opener(), self.dir(), self.index())
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// More streams than this cannot be named in one direction (RFC 9000 §4.6).
pub(crate) const MAX_STREAMS: u64 = 1 << 60;

/// The number of a pipe in a session's life. It only grows; what comes from an older pipe has no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Whether a pipe with this number may come after one with the number `last`. Nothing follows the largest number
    /// that the wire can say, which a peer may claim to have seen.
    pub(crate) fn follows(self, last: Self) -> bool {
        self > last && self.0 <= varint::MAX
    }
}

/// Why the application ended a stream or a session: a number below 2^62 that only applications understand.
///
/// What the numbers mean is the business of the protocol above (RFC 9000 §20.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u64);

impl Code {
    /// The code `value`, or `None` from 2^62 on.
    pub const fn new(value: u64) -> Option<Self> {
        if value > varint::MAX { None } else { Some(Self(value)) }
    }

    /// The number.
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl From<u32> for Code {
    fn from(value: u32) -> Self {
        Self(u64::from(value))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_id_tells_opener_direction_and_index() {
        for (opener, dir, bits) in [
            (Side::Client, Dir::Bi, 0b00),
            (Side::Server, Dir::Bi, 0b01),
            (Side::Client, Dir::Uni, 0b10),
            (Side::Server, Dir::Uni, 0b11),
        ] {
            let id = StreamId::new(opener, dir, 9).unwrap();
            assert_eq!(id.to_wire(), 9 << 2 | bits);
            assert_eq!((id.opener(), id.dir(), id.index()), (opener, dir, 9));
        }
    }

    #[test]
    fn the_last_stream_id_fits_a_varint_and_the_next_does_not_exist() {
        let last = StreamId::new(Side::Server, Dir::Uni, MAX_STREAMS - 1).unwrap();
        assert_eq!(last.to_wire(), varint::MAX);
        assert_eq!(StreamId::new(Side::Server, Dir::Uni, MAX_STREAMS), None);
        assert_eq!(StreamId::from_wire(varint::MAX + 1), None);
    }
}
