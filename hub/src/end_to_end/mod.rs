//! Sessions from a service endpoint to a device, through the hub and in spite of it.
//!
//! Inside a tunnel of the [`EndToEnd`](crate::message::Profile::EndToEnd) profile the two ends run TLS with each other,
//! each with the identity that it has at the hub; and in it a session of the engine, which is resumed over the next tunnel
//! when this one is lost. So the hub carries what it cannot read, and may crash.
//!
//! [`open`] is the service's side, [`serve`] the device's, and [`trust`] decides who the other end is.

mod open;
pub(crate) mod serve;
mod trust;

pub use open::{EndToEnd, SessionOptions};
pub use trust::PeerError;

use std::time::Duration;

use towline_transports::Config;

/// How long the TLS of a session may take, once there is a tunnel, and how long it may take to say which session it is.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many streams a session may have at a time.
const STREAMS: u64 = 4096;

/// How many bytes may come on a stream ahead of its reader, at first. It grows inside of the window of a tunnel, which begins with
/// less, and beside that of TCP: one that began with the same would hold up both, and they it, round trip by round trip.
const STREAM_WINDOW: u64 = 256 << 10;

/// How many bytes a session keeps that its peer has not acknowledged: what 100 Mbit/s over 200 ms takes, and the part of it
/// that is for keys alone.
const SEND_BUFFER: u64 = 4 << 20;

/// The engine's limits on a session, at either end. `grace` is how long it is kept without a tunnel.
fn config(grace: Duration) -> Config {
    let mut config = Config::default();
    config.max_streams_bidi = STREAMS;
    config.max_streams_uni = 0;
    config.stream_window = STREAM_WINDOW;
    config.send_buffer = SEND_BUFFER;
    config.grace = grace;
    // What was accepted is owed for as long when it is closed as before.
    config.close_timeout = grace;
    config
}
