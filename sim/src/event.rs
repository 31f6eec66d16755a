//! What happened, and when: the trace of a run, and its hash.
//!
//! In: events, in the order of simulated time. Out: JSON text sequences (RFC 7464) whose records have the shape of qlog
//! events (draft-ietf-quic-qlog-main-schema), so that tools for those can read them; and 128 bits that are equal for runs
//! that went alike, on any machine.

use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in nanoseconds of simulated time.
    pub time: u64,
    /// To whom: the name of a host.
    pub who: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen. The names are qlog's `namespace:name`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", content = "data")]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum What {
    /// A fault begins.
    #[serde(rename = "towline:fault_began")]
    FaultBegan { kind: String, lasts: Option<u64> },
    /// It is over.
    #[serde(rename = "towline:fault_ended")]
    FaultEnded { kind: String },
    /// An endpoint tries to reach a hub.
    #[serde(rename = "towline:link_started")]
    LinkStarted { hub: String },
    /// An endpoint is on a hub.
    #[serde(rename = "towline:link_up")]
    LinkUp { hub: String, transport: String },
    /// It is not any more, or was refused.
    #[serde(rename = "towline:link_down")]
    LinkDown { hub: String, why: String },
    /// There is a tunnel for a session, as the service learns it.
    #[serde(rename = "towline:tunnel_opened")]
    TunnelOpened { device: String, hub: String },
    /// There is none.
    #[serde(rename = "towline:tunnel_refused")]
    TunnelRefused { device: String, why: String },
    /// A tunnel ended.
    #[serde(rename = "towline:tunnel_closed")]
    TunnelClosed { device: String, why: String },
    /// A session has a pipe.
    #[serde(rename = "towline:session_attached")]
    SessionAttached { session: String, epoch: u64 },
    /// A session has none.
    #[serde(rename = "towline:session_detached")]
    SessionDetached { session: String, why: String },
    /// A session is over.
    #[serde(rename = "towline:session_closed")]
    SessionClosed { session: String, why: String },
    /// A record went out. `digest` is of its bytes, in hexadecimal, as 64 bits are too many for a JavaScript number.
    #[serde(rename = "towline:record_sent")]
    RecordSent { session: String, length: u64, digest: String },
    /// Bytes came in.
    #[serde(rename = "towline:data_received")]
    DataReceived { session: String, length: u64 },
    /// A stream was opened, or accepted.
    #[serde(rename = "towline:stream_opened")]
    StreamOpened { stream: String },
    /// An application wrote.
    #[serde(rename = "towline:stream_written")]
    StreamWritten { stream: String, offset: u64, length: u64 },
    /// An application read.
    #[serde(rename = "towline:stream_read")]
    StreamRead { stream: String, offset: u64, length: u64 },
    /// A half of a stream ended, as its reader or its writer sees it.
    #[serde(rename = "towline:stream_ended")]
    StreamEnded { stream: String, how: String },
    /// A reader lets its peer send on up to `limit`, which is `window` bytes ahead of what it has read.
    #[serde(rename = "towline:window_updated")]
    WindowUpdated { stream: String, limit: u64, window: u64 },
    /// A host has accepted a connection. Connections are numbered.
    #[serde(rename = "towline:connection_accepted")]
    Accepted { wire: u64 },
    /// A host has made a connection.
    #[serde(rename = "towline:connection_made")]
    Connected { wire: u64 },
    /// Bytes of a connection went out. `digest` is of them.
    #[serde(rename = "towline:segment_sent")]
    SegmentSent { wire: u64, length: u64, digest: u64 },
    /// A host has ended its half of a connection.
    #[serde(rename = "towline:connection_ended")]
    ConnectionEnded { wire: u64, how: String },
    /// A datagram went out, and what became of it.
    #[serde(rename = "towline:packet_sent")]
    PacketSent { length: u64, digest: u64, fate: String },
    /// A datagram that was sent came no further than this host's line.
    #[serde(rename = "towline:packet_dropped")]
    PacketDropped { length: u64, why: String },
    /// A property does not hold.
    #[serde(rename = "towline:property_broken")]
    Broken { property: String, detail: String },
    /// Anything else.
    #[serde(rename = "towline:note")]
    Note { text: String },
}

impl Event {
    /// As canonical JSON, on one line.
    ///
    /// # Panics
    ///
    /// Never: an event can be written.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an event can be written")
    }
}

/// A number for a sequence of events: FNV-1a of 128 bits over their canonical JSON, each ended by a line feed. It is not
/// there to withstand anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash(u128);

impl Default for TraceHash {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl TraceHash {
    /// An event happened.
    pub fn add(&mut self, json: &str) {
        self.add_bytes(json.as_bytes());
        self.add_bytes(b"\n");
    }

    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        self.0 = bytes.iter().fold(self.0, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    }
}

impl std::fmt::Display for TraceHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A number for some bytes, the same everywhere. Eight at a time, since there are many.
pub fn digest(bytes: &[u8]) -> u64 {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    let mix =
        |hash: u64, chunk: &[u8]| (hash ^ word(chunk)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    bytes.chunks(8).fold(bytes.len() as u64, mix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_shape_of_qlog() {
        let what = What::StreamRead { stream: "bulk/s/d/0".into(), offset: 7, length: 3 };
        let event = Event { time: 1_500, who: "d".into(), what };
        let json = event.to_json();
        let expected = r#"{"time":1500,"who":"d","name":"towline:stream_read","data":{"stream":"bulk/s/d/0","offset":7,"length":3}}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }

    /// The test vectors of draft-eastlake-fnv for the empty string, and for "a".
    #[test]
    fn the_hash_is_fnv() {
        let mut hash = TraceHash::default();
        assert_eq!(hash.to_string(), "6c62272e07bb014262b821756295c58d");
        hash.add_bytes(b"a");
        assert_eq!(hash.to_string(), "d228cb696f1a8caf78912b704e4a8964");
    }
}
