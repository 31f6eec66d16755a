//! What a session's log says: its head, and its events.
//!
//! The names are qlog's `namespace:name`. Those of the namespaces `transport` and `connectivity` have the fields that qvis
//! reads; those of `towline` are the calls of the engine, from which a session can be run again. docs/QLOG.md lists them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use towline_engine::{
    Config, Dir, Field, Record, Resumption, Secret, SessionId, Side, Statement, Transcript,
};

/// The version of the logs that this program writes and reads.
pub const FORMAT: u32 = 1;

/// The first record of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// qlog's name for a log with one event after the other.
    pub file_schema: String,
    /// JSON text sequences.
    pub serialization_format: String,
    /// What qvis goes by.
    pub qlog_version: String,
    /// What qvis goes by.
    pub qlog_format: String,
    /// What the log is of.
    pub title: String,
    /// The one trace that follows.
    pub trace: Trace,
    /// What it takes to run the session again.
    pub towline: Logged,
}

/// What holds for all events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are qlog's")]
pub struct Trace {
    pub vantage_point: VantagePoint,
    pub common_fields: CommonFields,
    pub event_schemas: Vec<String>,
}

/// Who has seen it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are qlog's")]
pub struct VantagePoint {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// What the times of events are relative to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are qlog's")]
pub struct CommonFields {
    pub time_format: String,
    /// In milliseconds since 1970.
    pub reference_time: u64,
    pub protocol_type: Vec<String>,
}

/// Which session it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// See [`FORMAT`].
    pub format: u32,
    /// The version of the engine.
    pub version: String,
    /// Which end.
    pub side: Vantage,
    /// What it wanted and allowed.
    pub limits: Limits,
}

/// An end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Vantage {
    Client,
    Server,
}

/// A session's configuration, without its secrets. Times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of `Config`")]
pub struct Limits {
    pub stream_window: u64,
    pub max_stream_window: u64,
    pub session_window: u64,
    pub max_streams_bidi: u64,
    pub max_streams_uni: u64,
    pub max_record_size: u64,
    #[serde(default)]
    pub early_window: u64,
    pub send_buffer: u64,
    pub idle_timeout: u64,
    pub keep_alive: Option<u64>,
    pub close_timeout: u64,
    pub resumption: Willing,
    pub grace: u64,
    pub fail_fast: bool,
    pub optimistic_resend: bool,
}

/// Whether the session may outlive its pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of `Resumption`")]
pub enum Willing {
    Off,
    Accept,
    Offer,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", content = "data")]
#[expect(missing_docs, reason = "the fields are listed in docs/QLOG.md")]
pub enum Event {
    #[serde(rename = "towline:attach")]
    Attach { epoch: u64, result: String },
    #[serde(rename = "towline:attach_accepted")]
    AttachAccepted { epoch: u64, accepted: Taken, result: String },
    #[serde(rename = "towline:resume")]
    Resume { epoch: u64, accepted: Taken, result: String },
    #[serde(rename = "towline:input")]
    Input { epoch: u64, length: u64, ignored: bool },
    #[serde(rename = "towline:pipe_closed")]
    PipeClosed { epoch: u64, how: Ending },
    #[serde(rename = "towline:timeout")]
    Timeout {},
    #[serde(rename = "towline:give_up")]
    GiveUp {},
    #[serde(rename = "towline:ping")]
    Ping {},
    #[serde(rename = "towline:copy_out")]
    CopyOut {},
    #[serde(rename = "towline:transmit")]
    Transmit { max: u64, length: u64 },
    #[serde(rename = "towline:open")]
    Open { stream_type: Direction, result: Outcome },
    #[serde(rename = "towline:accept")]
    Accept { stream_type: Direction, result: Outcome },
    #[serde(rename = "towline:read")]
    Read { stream_id: u64, max: u64, copied: bool, result: Outcome },
    #[serde(rename = "towline:write")]
    Write { stream_id: u64, length: u64, copied: bool, result: Outcome },
    #[serde(rename = "towline:finish")]
    Finish { stream_id: u64, result: String },
    #[serde(rename = "towline:reset")]
    Reset { stream_id: u64, error_code: u64, when_sent: bool, result: String },
    #[serde(rename = "towline:stop")]
    Stop { stream_id: u64, error_code: u64, result: String },
    #[serde(rename = "towline:urgency")]
    Urgency { stream_id: u64, urgency: String },
    #[serde(rename = "towline:release")]
    Release { stream_id: u64, error_code: u64 },
    #[serde(rename = "towline:close")]
    Close { error_code: u64, reason: String },
    /// Times are in nanoseconds.
    #[serde(rename = "towline:drain")]
    Drain { deadline: u64, retry_after: u64 },
    /// What the session told its owner.
    #[serde(rename = "towline:news")]
    News { event: String },
    /// Bytes came that are no frames: from here on the session cannot be run again.
    #[serde(rename = "towline:undecodable")]
    Undecodable { epoch: u64, why: String },
    /// How the session stands, at this time.
    #[serde(rename = "towline:shape")]
    Shape { shape: String },
    /// Nothing follows, as the log has become too long.
    #[serde(rename = "towline:truncated")]
    Truncated { limit: u64 },
    /// The session was dropped.
    #[serde(rename = "towline:end")]
    End { shape: String },

    #[serde(rename = "transport:packet_sent")]
    PacketSent(Packet),
    #[serde(rename = "transport:packet_received")]
    PacketReceived(Packet),
    #[serde(rename = "transport:parameters_set")]
    ParametersSet(Map<String, Value>),
    #[serde(rename = "transport:stream_state_updated")]
    StreamState { stream_id: u64, stream_type: Direction, new: String },
    #[serde(rename = "connectivity:connection_state_updated")]
    ConnectionState { new: String },
    #[serde(rename = "connectivity:connection_closed")]
    ConnectionClosed { trigger: String },
}

/// What an [`Acceptor`](towline_engine::Acceptor) had read before the session took over, and whether it had declared itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are listed in docs/QLOG.md")]
pub struct Taken {
    pub before: u64,
    pub last: u64,
    pub declared: bool,
}

/// How a pipe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of `PipeClosed`")]
pub enum Ending {
    Finished,
    Failed,
}

/// The direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are qlog's")]
pub enum Direction {
    Bidirectional,
    Unidirectional,
}

impl From<Dir> for Direction {
    fn from(dir: Dir) -> Self {
        match dir {
            Dir::Bi => Self::Bidirectional,
            Dir::Uni => Self::Unidirectional,
        }
    }
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    /// So many bytes, or the stream with this id.
    Number(u64),
    /// Why not; or `end`, where there is nothing more to read.
    Word(String),
}

/// A record, in the shape of a QUIC packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are qlog's")]
pub struct Packet {
    pub header: PacketHeader,
    pub raw: Raw,
    pub frames: Vec<Frame>,
}

/// Which record it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketHeader {
    /// Always that of QUIC's everyday packets.
    pub packet_type: String,
    /// Records are counted from 0 in each direction of a session.
    pub packet_number: u64,
    /// The number of the pipe.
    pub epoch: u64,
}

/// Bytes on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raw {
    /// How many.
    pub length: u64,
    /// How many of them are payload or padding.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub payload_length: u64,
    /// The others, in hexadecimal: of a packet its size, of a frame what stands before its payload.
    pub data: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Its name.
    pub frame_type: String,
    /// What it says.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
    /// Its bytes, without the payload.
    pub raw: Raw,
}

impl Head {
    pub(crate) fn new(side: Side, config: &Config, name: &str) -> Self {
        let side = match side {
            Side::Client => Vantage::Client,
            Side::Server => Vantage::Server,
        };
        let kind = match side {
            Vantage::Client => "client",
            Vantage::Server => "server",
        };
        Self {
            file_schema: "urn:ietf:params:qlog:file:sequential".into(),
            serialization_format: "application/qlog+json-seq".into(),
            qlog_version: "0.3".into(),
            qlog_format: "JSON-SEQ".into(),
            title: format!("{name}, {kind}"),
            trace: Trace {
                vantage_point: VantagePoint { name: name.to_owned(), kind: kind.to_owned() },
                common_fields: CommonFields {
                    time_format: "relative".into(),
                    reference_time: 0,
                    protocol_type: vec!["QMUX".into()],
                },
                event_schemas: vec!["urn:towline:qlog:events".into()],
            },
            towline: Logged {
                format: FORMAT,
                version: env!("CARGO_PKG_VERSION").into(),
                side,
                limits: Limits::of(config),
            },
        }
    }
}

impl Logged {
    /// Which end it was.
    pub fn side(&self) -> Side {
        match self.side {
            Vantage::Client => Side::Client,
            Vantage::Server => Side::Server,
        }
    }
}

impl Limits {
    fn of(config: &Config) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            stream_window: config.stream_window,
            max_stream_window: config.max_stream_window,
            session_window: config.session_window,
            max_streams_bidi: config.max_streams_bidi,
            max_streams_uni: config.max_streams_uni,
            max_record_size: config.max_record_size,
            early_window: config.early_window,
            send_buffer: config.send_buffer,
            idle_timeout: nanos(config.idle_timeout),
            keep_alive: config.keep_alive.map(nanos),
            close_timeout: nanos(config.close_timeout),
            resumption: match config.resumption {
                Resumption::Off => Willing::Off,
                Resumption::Accept => Willing::Accept,
                Resumption::Offer(..) => Willing::Offer,
            },
            grace: nanos(config.grace),
            fail_fast: config.fail_fast,
            optimistic_resend: config.optimistic_resend,
        }
    }

    /// The configuration of a session that is run again, with stand-ins for secrets.
    pub fn config(&self) -> Config {
        let mut config = Config::default();
        config.stream_window = self.stream_window;
        config.max_stream_window = self.max_stream_window;
        config.session_window = self.session_window;
        config.max_streams_bidi = self.max_streams_bidi;
        config.max_streams_uni = self.max_streams_uni;
        config.max_record_size = self.max_record_size;
        config.early_window = self.early_window;
        config.send_buffer = self.send_buffer;
        config.idle_timeout = Duration::from_nanos(self.idle_timeout);
        config.keep_alive = self.keep_alive.map(Duration::from_nanos);
        config.close_timeout = Duration::from_nanos(self.close_timeout);
        config.resumption = match self.resumption {
            Willing::Off => Resumption::Off,
            Willing::Accept => Resumption::Accept,
            Willing::Offer => Resumption::Offer(
                SessionId([Transcript::STAND_IN; SessionId::LEN]),
                Secret::new([Transcript::STAND_IN; Secret::LEN]),
            ),
        };
        config.grace = Duration::from_nanos(self.grace);
        config.fail_fast = self.fail_fast;
        config.optimistic_resend = self.optimistic_resend;
        config
    }
}

impl Packet {
    pub(crate) fn new(record: &Record, epoch: u64, number: u64) -> Self {
        Self {
            header: PacketHeader { packet_type: "1RTT".into(), packet_number: number, epoch },
            raw: Raw { length: record.length(), payload_length: 0, data: hex(&record.size) },
            frames: record.frames.iter().map(Frame::new).collect(),
        }
    }

    /// The bytes of the record, with zeros for what is not in the log. `None` if it is none of a log of ours.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = unhex(&self.raw.data)?;
        for frame in &self.frames {
            bytes.extend(unhex(&frame.raw.data)?);
            let end = bytes.len().checked_add(usize::try_from(frame.raw.payload_length).ok()?)?;
            // No record is longer than what its end allowed, and no log claims to have seen one.
            if end as u64 > self.raw.length {
                return None;
            }
            bytes.resize(end, 0);
        }
        Some(bytes)
    }
}

impl Frame {
    fn new(said: &Statement) -> Self {
        let length = said.head.len() as u64 + said.payload;
        Self {
            frame_type: said.name.to_owned(),
            fields: said.fields.iter().map(|(name, field)| ((*name).to_owned(), value(field))).collect(),
            raw: Raw { length, payload_length: said.payload, data: hex(&said.head) },
        }
    }
}

fn value(field: &Field) -> Value {
    match field {
        Field::Number(number) => (*number).into(),
        Field::Flag(flag) => (*flag).into(),
        Field::Word(word) => (*word).into(),
        Field::Text(text) => String::from_utf8_lossy(text).into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    bytes.iter().flat_map(digits).map(char::from).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// When something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// When it was written down, in nanoseconds since the session began. It never steps back.
    pub time: u64,
    /// What the engine was told. That may be earlier, as callers look at the clock and then wait for their turn.
    pub now: u64,
}

/// A line of a log: an event and its time, in milliseconds to the nanosecond, and by how much the engine's was earlier.
pub fn line(stamp: Stamp, event: &Event) -> String {
    let event = serde_json::to_string(event).expect("an event can be written");
    let late = match stamp.time - stamp.now {
        0 => String::new(),
        late => format!("\"late\":{},", milliseconds(late)),
    };
    format!("{{\"time\":{},{late}{}", milliseconds(stamp.time), &event[1..])
}

/// Nanoseconds as milliseconds, exactly.
pub fn milliseconds(nanos: u64) -> String {
    format!("{}.{:06}", nanos / 1_000_000, nanos % 1_000_000)
}

/// Milliseconds as [`milliseconds`] writes them, in nanoseconds.
pub fn nanoseconds(text: &str) -> Option<u64> {
    let (whole, rest) = text.split_once('.')?;
    if rest.len() != 6 || !(whole.to_owned() + rest).bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(rest.parse().ok()?)
}

/// Takes a line apart into its time and its event.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse(line: &str) -> Result<(Stamp, Event), String> {
    let cut = || "it does not begin with a time in milliseconds".to_owned();
    let rest = line.strip_prefix("{\"time\":").ok_or_else(cut)?;
    let (time, mut rest) = rest.split_once(',').ok_or_else(cut)?;
    let time = nanoseconds(time).ok_or_else(cut)?;
    let mut now = time;
    if let Some(later) = rest.strip_prefix("\"late\":") {
        let (late, after) = later.split_once(',').ok_or_else(cut)?;
        now = time.checked_sub(nanoseconds(late).ok_or_else(cut)?).ok_or_else(cut)?;
        rest = after;
    }
    let event = serde_json::from_str(&format!("{{{rest}")).map_err(|error| error.to_string())?;
    Ok((Stamp { time, now }, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roundtrip_of_a_line() {
        for (time, now, text) in [
            (0, 0, r#""time":0.000000"#),
            (1_500, 1_500, r#""time":0.001500"#),
            (1_500, 1_400, r#""time":0.001500,"late":0.000100"#),
            (u64::MAX, 0, r#""time":18446744073709.551615,"late":18446744073709.551615"#),
        ] {
            let event =
                Event::Read { stream_id: 4, max: 9, copied: false, result: Outcome::Word("end".into()) };
            let line = line(Stamp { time, now }, &event);
            let expected = format!(
                r#"{{{text},"name":"towline:read","data":{{"stream_id":4,"max":9,"copied":false,"result":"end"}}}}"#
            );
            assert_eq!(line, expected);
            assert_eq!(parse(&line), Ok((Stamp { time, now }, event)));
        }
        for bad in ["1.5", "18446744073709.551616", "-1.500000", "1.-50000", "", "."] {
            assert_eq!(nanoseconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn roundtrip_of_limits() {
        let mut config = Config::default();
        config.keep_alive = None;
        config.grace = Duration::from_millis(77);
        config.fail_fast = true;
        let limits = Limits::of(&config);
        assert_eq!(limits.config(), config);
        config.resumption = Resumption::Offer(SessionId([1; 16]), Secret::new([2; 32]));
        let limits = Limits::of(&config);
        assert_ne!(limits.config(), config, "the name and the secret are not there");
        assert_eq!(Limits::of(&limits.config()), limits);
    }
}
