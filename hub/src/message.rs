//! What endpoints and hub say to each other at the beginning of a stream: CBOR, each message behind its length.
//!
//! The schema is in docs/PROTOCOL.md, section 5. Fields are numbered, and unknown ones ignored, so that later
//! versions can add some.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use minicbor::{Decode, Encode};
use towline_transports::{Code, LinkClosed, ReadError, RecvStream, SendStream, WriteError};

use crate::refusal::Refusal;

/// The version of these messages.
pub const VERSION: u32 = 1;

/// The longest message, in bytes. One that claims to be longer is refused before anything is kept for it.
pub const MAX_MESSAGE: usize = 4096;

/// The most characters of what an endpoint calls its software. The rest is cut off.
pub const MAX_AGENT: usize = 100;

/// What an endpoint asks of the hub, as the first message of a stream that it opens.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Request {
    /// Here I am. The stream stays open; the hub answers, and later says goodbye on it.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// Open a tunnel. What follows the message is the tunnel's.
    #[n(1)]
    Open(#[n(0)] Open),
    /// Which devices are there?
    #[n(2)]
    List(#[n(0)] List),
}

/// The first request on a link.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// The highest version of these messages that the endpoint speaks.
    #[n(0)]
    pub version: u32,
    /// A number that the endpoint's process chose at random. A second link of the same identity and the same
    /// instance is a reconnect; one of another instance is another holder of the identity.
    #[n(1)]
    pub instance: u64,
    /// What the endpoint runs, for the operator's eyes; at most [`MAX_AGENT`] characters.
    #[cbor(n(2), decode_with = "text::<MAX_AGENT, _>")]
    pub agent: String,
}

/// Opens a tunnel to a service of a device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Open {
    /// The device's ID.
    #[n(0)]
    pub device: String,
    /// Which of the services that the device offers.
    #[n(1)]
    pub service: String,
    /// How the tunnel ends.
    #[n(2)]
    pub profile: Profile,
    /// How long the whole handshake may take, in milliseconds; at most 60,000.
    #[n(3)]
    pub deadline_ms: u32,
    /// How long to wait for the device, if it is away, before the handshake begins, in milliseconds; at most 600,000.
    #[n(4)]
    pub wait_ms: Option<u32>,
}

/// How a tunnel ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Profile {
    /// When either side closes or dies, the tunnel is gone: the original device streams.
    #[n(0)]
    Strict,
    /// Each direction ends by itself.
    #[default]
    #[n(1)]
    Native,
    /// A session between the two ends, which only they can read, and which goes on over another tunnel when this one is
    /// lost. What is said in it first does no harm where it is heard twice, or by a device that refuses.
    #[n(2)]
    EndToEnd,
}

/// The first message of a stream of an end-to-end session: the session's service is wanted once more. There is nothing to
/// say yet. The device says an [`Answer`], and what follows both is the stream's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Connect {}

/// Asks for the devices. There is nothing to say yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct List {}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Answer {
    /// It was granted.
    #[n(0)]
    Accepted(#[n(0)] Accepted),
    /// It was not.
    #[n(1)]
    Refused(#[n(0)] Refusal),
}

/// Says that a request was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Accepted {
    /// The tunnel's number at the hub, as it stands in the hub's log.
    #[n(0)]
    pub tunnel: Option<u64>,
}

/// What the hub asks of a device, as the first message of a stream that it opens to it. What follows is the
/// tunnel's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Offer {
    /// The tunnel's number at the hub.
    #[n(0)]
    pub tunnel: u64,
    /// Which service is asked for.
    #[n(1)]
    pub service: String,
    /// Who asks: a `spiffe://` identity.
    #[n(2)]
    pub from: String,
    /// How the tunnel ends.
    #[n(3)]
    pub profile: Profile,
    /// How long the answer may take, in milliseconds.
    #[n(4)]
    pub deadline_ms: u32,
}

/// What the hub says on the stream of the [`Hello`] when it wants the link to end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Goodbye {
    /// Why, and when to come back.
    #[n(0)]
    pub refusal: Refusal,
}

/// A device that the hub knows: one of the answers to [`List`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceStatus {
    /// The device's ID.
    #[n(0)]
    pub device: String,
    /// Whether it is here.
    #[n(1)]
    pub online: bool,
    /// For how long it has been here, or gone, in milliseconds.
    #[n(2)]
    pub for_ms: u64,
    /// How many tunnels to it are live.
    #[n(3)]
    pub tunnels: u32,
    /// Where it connects from.
    #[n(4)]
    pub address: String,
    /// What it runs.
    #[n(5)]
    pub agent: String,
    /// How often another holder of its identity has taken its place.
    #[n(6)]
    pub takeovers: u32,
    /// How long ago that was last, in milliseconds.
    #[n(7)]
    pub last_takeover_ms: Option<u64>,
}

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// It claims to be longer than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes; the limit is {MAX_MESSAGE}")]
    TooLong(usize),
    /// It is not what the schema says.
    #[error("a message that does not fit the schema: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    /// The stream ended before it did.
    #[error("the stream ended before the message did")]
    Truncated,
    /// The peer abandoned or stopped the stream.
    #[error("the peer abandoned the stream with code {0}")]
    Abandoned(Code),
    /// The link is over.
    #[error(transparent)]
    Closed(#[from] LinkClosed),
}

impl From<WriteError> for MessageError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Abandoned(code),
            WriteError::Closed(closed) => Self::Closed(closed),
            _ => Self::Truncated,
        }
    }
}

impl From<ReadError> for MessageError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Abandoned(code),
            ReadError::Closed(closed) => Self::Closed(closed),
            _ => Self::Truncated,
        }
    }
}

/// The message as it stands on the wire: its length in two bytes, then the CBOR.
///
/// # Panics
///
/// If it is longer than [`MAX_MESSAGE`], which names and texts within their limits cannot make it.
pub fn encode(message: &impl Encode<()>) -> Vec<u8> {
    let mut out = vec![0, 0];
    minicbor::encode(message, &mut out).expect("a vector takes everything");
    let length = out.len() - 2;
    assert!(length <= MAX_MESSAGE, "what goes into a message has limits");
    let length = u16::try_from(length).expect("the limit is below 2^16");
    out[..2].copy_from_slice(&length.to_be_bytes());
    out
}

/// Reads a message's bytes, without the length, as `T`.
///
/// # Errors
///
/// [`MessageError::Malformed`], also if something follows the message.
pub fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, MessageError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let message = decoder.decode()?;
    if decoder.position() < bytes.len() {
        return Err(minicbor::decode::Error::message("bytes after the message").into());
    }
    Ok(message)
}

/// Reads a text, and keeps its first `MAX` characters, so that it can be passed on in a message of its own.
pub(crate) fn text<const MAX: usize, C>(
    decoder: &mut minicbor::Decoder<'_>,
    _: &mut C,
) -> Result<String, minicbor::decode::Error> {
    Ok(decoder.str()?.chars().take(MAX).collect())
}

/// Writes a message.
///
/// # Errors
///
/// The peer stopped the stream, or the link is over.
pub async fn write(stream: &mut SendStream, message: &impl Encode<()>) -> Result<(), MessageError> {
    Ok(stream.write_all(&encode(message)).await?)
}

/// Reads the next message. Not cancel-safe: what was read of it by a dropped future is gone.
///
/// # Errors
///
/// What came is no message of type `T`, or nothing came.
pub async fn read<T: for<'b> Decode<'b, ()>>(stream: &mut RecvStream) -> Result<T, MessageError> {
    next(stream).await?.ok_or(MessageError::Truncated)
}

/// Reads the next message, or `None` if the stream ends before it. Not cancel-safe.
///
/// # Errors
///
/// As [`read`].
pub async fn next<T: for<'b> Decode<'b, ()>>(stream: &mut RecvStream) -> Result<Option<T>, MessageError> {
    let mut reader = Reader::default();
    poll_fn(|context| reader.poll_next(context, stream)).await
}

/// Reads one message, as far as it has come. Takes nothing from the stream that follows the message.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The length and what has come of the message.
    buffer: Vec<u8>,
}

impl Reader {
    /// The message, or `None` if the stream ends before it.
    pub(crate) fn poll_next<T: for<'b> Decode<'b, ()>>(
        &mut self,
        context: &mut Context<'_>,
        stream: &mut RecvStream,
    ) -> Poll<Result<Option<T>, MessageError>> {
        loop {
            let missing = match self.buffer[..] {
                [] => 2,
                [_] => 1,
                [high, low, ref body @ ..] => {
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    if length > MAX_MESSAGE {
                        return Poll::Ready(Err(MessageError::TooLong(length)));
                    }
                    if body.len() == length {
                        return Poll::Ready(decode(body).map(Some));
                    }
                    length - body.len()
                }
            };
            match ready!(stream.poll_read_chunk(context, missing))? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(MessageError::Truncated)),
            }
        }
    }
}

/// A duration as a message holds it: milliseconds, as many as fit.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::MAX_NAME;
    use crate::refusal::{MAX_TEXT, RefusalCode};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The vectors of docs/PROTOCOL.md, section 5.
    #[test]
    fn roundtrip_of_messages() {
        let hello = Request::Hello(Hello { version: 1, instance: 7, agent: "t".into() });
        assert_eq!(hex(&encode(&hello)), "000a8200a3000101070261 74".replace(' ', ""));
        assert_eq!(decode::<Request>(&encode(&hello)[2..]).unwrap(), hello);

        let open = Request::Open(Open {
            device: "press-7".into(),
            service: "ssh".into(),
            profile: Profile::Native,
            deadline_ms: 30_000,
            wait_ms: None,
        });
        assert_eq!(
            hex(&encode(&open)),
            "00178201a4006770726573732d3701637373680201031975 30".replace(' ', "")
        );
        assert_eq!(decode::<Request>(&encode(&open)[2..]).unwrap(), open);

        let list = Request::List(List {});
        assert_eq!(hex(&encode(&list)), "00038202a0");
        assert_eq!(decode::<Request>(&encode(&list)[2..]).unwrap(), list);

        let accepted = Answer::Accepted(Accepted { tunnel: Some(5) });
        assert_eq!(hex(&encode(&accepted)), "00058200a10005");
        assert_eq!(decode::<Answer>(&encode(&accepted)[2..]).unwrap(), accepted);

        let refused = Answer::Refused(Refusal::new(RefusalCode::DeviceUnknown, "no such device"));
        assert_eq!(decode::<Answer>(&encode(&refused)[2..]).unwrap(), refused);
    }

    #[test]
    fn later_versions_may_add_fields() {
        // Hello with a field 9 that we do not know, and without nothing that we need.
        let bytes = [0x82, 0x00, 0xa4, 0x00, 0x02, 0x01, 0x07, 0x02, 0x61, b't', 0x09, 0x81, 0x01];
        let Request::Hello(hello) = decode(&bytes).unwrap() else { panic!("a hello") };
        assert_eq!(hello.version, 2);
    }

    #[test]
    fn what_does_not_fit_the_schema_is_refused() {
        for (bytes, why) in [
            (&[][..], "nothing"),
            (&[0x82, 0x00], "cut short"),
            (&[0x82, 0x07, 0xa0], "an unknown request"),
            (&[0x82, 0x00, 0xa0], "a hello without its fields"),
            (&[0x82, 0x02, 0xa0, 0x00], "bytes after the message"),
            (&[0xff; 20], "no CBOR"),
            (&[0x9f; 4000], "arrays in arrays"),
            (
                &[0x82, 0x01, 0xa4, 0x00, 0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                "a text of 2^64 bytes",
            ),
        ] {
            assert!(matches!(decode::<Request>(bytes), Err(MessageError::Malformed(_))), "{why}");
        }
    }

    /// What peers say is passed on in messages that are no longer than allowed, whatever they say.
    #[test]
    fn long_words_of_others_are_cut() {
        let widest = "\u{10ffff}".repeat(1000);
        let read = |agent: &str| {
            let hello = Request::Hello(Hello { version: 1, instance: u64::MAX, agent: agent.to_owned() });
            decode::<Request>(&encode(&hello)[2..]).unwrap()
        };
        let Request::Hello(Hello { agent, .. }) = read(&widest) else { panic!("a hello") };
        assert_eq!(agent, "\u{10ffff}".repeat(MAX_AGENT));
        let status = DeviceStatus {
            device: "d".repeat(MAX_NAME),
            online: true,
            for_ms: u64::MAX,
            tunnels: u32::MAX,
            address: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".into(),
            agent,
            takeovers: u32::MAX,
            last_takeover_ms: Some(u64::MAX),
        };
        assert!(encode(&status).len() < MAX_MESSAGE);

        let refusal = Refusal { code: RefusalCode::Rejected, text: widest, retry_after_ms: Some(u64::MAX) };
        let Answer::Refused(refusal) = decode(&encode(&Answer::Refused(refusal))[2..]).unwrap() else {
            panic!("a refusal")
        };
        assert_eq!(refusal.text, "\u{10ffff}".repeat(MAX_TEXT));
        assert!(encode(&Goodbye { refusal }).len() < MAX_MESSAGE);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Answer>(&bytes);
            let _ = decode::<Offer>(&bytes);
            let _ = decode::<Goodbye>(&bytes);
            let _ = decode::<DeviceStatus>(&bytes);
        }
    }
}
