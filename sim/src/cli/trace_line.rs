//! A line of a trace's file: an event as qlog has it.
//!
//! Within the laboratory an event has its time in nanoseconds, and is hashed so; in a file it is in milliseconds, as
//! qvis wants it, and whose it is is qlog's `group_id`, by which qvis sorts events into connections. What qlog has an event for has
//! its name. Nothing is lost either way.

use serde::{Deserialize, Serialize};
use towline_transports::qlog::{milliseconds, nanoseconds};

use crate::event::{Event, What};

/// An event, but for its time.
#[derive(Serialize, Deserialize)]
struct Line {
    group_id: String,
    #[serde(flatten)]
    what: Told,
}

/// What qlog has an event for, and everything else.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Told {
    Qlog(Qlog),
    Ours(What),
}

/// The events of ours that are qlog's.
#[derive(Serialize, Deserialize)]
#[serde(tag = "name", content = "data")]
enum Qlog {
    #[serde(rename = "transport:packet_sent")]
    Record { header: Header, raw: Raw, session: String, digest: String },
    #[serde(rename = "transport:datagrams_sent")]
    Datagram { count: u64, raw: [Raw; 1], digest: u64, fate: String },
    #[serde(rename = "connectivity:connection_closed")]
    Closed { session: String, trigger: String },
}

#[derive(Serialize, Deserialize)]
struct Header {
    packet_type: String,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    length: u64,
}

/// As it stands in a file.
pub(super) fn to_file(json: &str) -> anyhow::Result<String> {
    let Event { time, who, what } = serde_json::from_str(json)?;
    let what = match what {
        What::RecordSent { session, length, digest } => {
            let header = Header { packet_type: "1RTT".into() };
            Told::Qlog(Qlog::Record { header, raw: Raw { length }, session, digest })
        }
        What::PacketSent { length, digest, fate } => {
            Told::Qlog(Qlog::Datagram { count: 1, raw: [Raw { length }], digest, fate })
        }
        What::SessionClosed { session, why } => Told::Qlog(Qlog::Closed { session, trigger: why }),
        other => Told::Ours(other),
    };
    let line = serde_json::to_string(&Line { group_id: who, what })?;
    Ok(format!("{{\"time\":{},{}", milliseconds(time), &line[1..]))
}

/// As it is hashed. `None` if it is no line of a trace.
pub(super) fn from_file(line: &str) -> Option<String> {
    let (time, rest) = line.strip_prefix("{\"time\":")?.split_once(',')?;
    let Line { group_id: who, what } = serde_json::from_str(&format!("{{{rest}")).ok()?;
    let what = match what {
        Told::Qlog(Qlog::Record { raw: Raw { length }, session, digest, .. }) => {
            What::RecordSent { session, length, digest }
        }
        Told::Qlog(Qlog::Datagram { raw: [Raw { length }], digest, fate, .. }) => {
            What::PacketSent { length, digest, fate }
        }
        Told::Qlog(Qlog::Closed { session, trigger }) => What::SessionClosed { session, why: trigger },
        Told::Ours(what) => what,
    };
    Some(Event { time: nanoseconds(time)?, who, what }.to_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roundtrip_of_lines() {
        let (session, digest) = ("s".to_owned(), "ff".to_owned());
        for (what, expected) in [
            (
                What::RecordSent { session: session.clone(), length: 7, digest },
                r#""name":"transport:packet_sent","data":{"header":{"packet_type":"1RTT"},"raw":{"length":7},"session":"s","digest":"ff"}}"#,
            ),
            (
                What::PacketSent { length: 9, digest: u64::MAX, fate: "lost".into() },
                r#""name":"transport:datagrams_sent","data":{"count":1,"raw":[{"length":9}],"digest":18446744073709551615,"fate":"lost"}}"#,
            ),
            (
                What::SessionClosed { session, why: "over".into() },
                r#""name":"connectivity:connection_closed","data":{"session":"s","trigger":"over"}}"#,
            ),
            (
                What::StreamRead { stream: "bulk".into(), offset: 7, length: 3 },
                r#""name":"towline:stream_read","data":{"stream":"bulk","offset":7,"length":3}}"#,
            ),
        ] {
            for (time, milliseconds) in [(1_500, "0.001500"), (u64::MAX, "18446744073709.551615")] {
                let json = Event { time, who: "device-0".into(), what: what.clone() }.to_json();
                let line = to_file(&json).unwrap();
                assert_eq!(line, format!(r#"{{"time":{milliseconds},"group_id":"device-0",{expected}"#));
                assert_eq!(from_file(&line), Some(json));
            }
        }
        for bad in ["", "{}", r#"{"time":1,"group_id":"d","name":"towline:note","data":{"text":"x"}}"#] {
            assert_eq!(from_file(bad), None);
        }
    }
}
