//! The codes that streams and links of a hub end with (docs/PROTOCOL.md, section 5.5).

use towline_engine::Code;

/// A stream or a link that its owner simply dropped, or closed when it was done.
pub const NONE: Code = Code::new(0).unwrap();
/// The local socket at the other end of the tunnel was reset (TCP RST).
pub const RESET: Code = Code::new(1).unwrap();
/// The other leg of the tunnel was lost.
pub const LEG_LOST: Code = Code::new(2).unwrap();
/// The request was refused; the answer says why.
pub const REFUSED: Code = Code::new(3).unwrap();
/// The first message was malformed, too long, or did not come in time.
pub const BAD_MESSAGE: Code = Code::new(4).unwrap();
/// The tunnel is strict, and the other side has closed.
pub const STRICT: Code = Code::new(5).unwrap();
/// The link is dismissed; the goodbye says why.
pub const DISMISSED: Code = Code::new(6).unwrap();
/// The link did not say hello in time.
pub const NO_HELLO: Code = Code::new(7).unwrap();
