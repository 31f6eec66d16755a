//! TLS 1.3 without I/O: the handshake, and the records after it.
//!
//! In: bytes of the connection. Out: plaintext, which lies where its record lay, and sealed records. Keeps: the keys.
//!
//! rustls shakes hands, through its unbuffered interface, and then hands over the keys, as it does to kernels that have
//! a record layer ([`rustls::kernel`]). So a byte is copied once on its way out and not at all on its way in, and nothing
//! is allocated for it; rustls' own record layer copies each three times and once, and allocates each record, and the
//! buffered one does more. What is left for us of RFC 8446 is short: records (§5), KeyUpdate (§4.6.3), and alerts (§6).
//! This is the only file that knows of these interfaces, which change with rustls 0.24.

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::cipher::{AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, Nonce, make_tls13_aad};
use rustls::kernel::KernelConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{
    AlertDescription, ClientConfig, CommonState, ConnectionTrafficSecrets, ContentType, Error,
    InvalidMessage, PeerMisbehaved, ProtocolVersion, ServerConfig, Tls13CipherSuite,
};

use crate::crypto::aead;

/// The most plaintext of a record (RFC 8446 §5.1).
pub(super) const MAX_PLAINTEXT: usize = 1 << 14;

/// The bytes before a record's payload: its type, a version that means nothing any more, and its length.
const HEADER: usize = 5;

/// The first and the last of the types that there are.
const CHANGE_CIPHER_SPEC: u8 = 20;
const APPLICATION_DATA: u8 = 23;

/// The most bytes of a record's payload (RFC 8446 §5.2).
const MAX_PAYLOAD: usize = MAX_PLAINTEXT + 256;

/// The most bytes of a handshake that wait to be understood, as in rustls: certificates are small.
const MAX_HANDSHAKE: usize = 64 << 10;

/// How many records without data, or new keys, a peer may send between data: each costs us work and gets it nowhere.
/// As in rustls.
const MAX_IDLE_RECORDS: u32 = 32;

/// The longest message after the handshake that we have to understand or skip: a session ticket.
const MAX_MESSAGE: usize = 16 << 10;

/// How many bytes the first record of `buffer` has, header included, once all of it is there. One that never will be a
/// record is not waited for.
pub(super) fn whole_record(buffer: &[u8]) -> Result<Option<usize>, Error> {
    let Some(&[typ, major, _, high, low]) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&typ) {
        return Err(InvalidMessage::InvalidContentType.into());
    }
    if major != 3 {
        return Err(InvalidMessage::UnknownProtocolVersion.into());
    }
    let payload = usize::from(u16::from_be_bytes([high, low]));
    if payload > MAX_PAYLOAD {
        return Err(Error::PeerSentOversizedRecord);
    }
    Ok((buffer.len() >= HEADER + payload).then_some(HEADER + payload))
}

/// A handshake that is going on.
pub(super) struct Handshake {
    connection: Connection,
    /// How many bytes at the front of the input are whole records that rustls was shown. The one after them is shown as
    /// soon as they are understood: the first record under the new keys must not be, since rustls would keep its data.
    shown: usize,
}

enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What a handshake needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More input.
    Read,
    /// Nothing but that what it put out is sent.
    Done,
}

impl Handshake {
    pub(super) fn client(mut config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        if !config.enable_secret_extraction {
            Arc::make_mut(&mut config).enable_secret_extraction = true;
        }
        let connection = Connection::Client(UnbufferedClientConnection::new(config, name)?);
        Ok(Self { connection, shown: 0 })
    }

    pub(super) fn server(mut config: Arc<ServerConfig>) -> Result<Self, Error> {
        if !config.enable_secret_extraction {
            Arc::make_mut(&mut config).enable_secret_extraction = true;
        }
        let connection = Connection::Server(UnbufferedServerConnection::new(config)?);
        Ok(Self { connection, shown: 0 })
    }

    /// Takes what it understands off the front of `input`, and appends what is to be sent to `output`, also if it fails.
    pub(super) fn advance(&mut self, input: &mut BytesMut, output: &mut Vec<u8>) -> Result<Step, Error> {
        match &mut self.connection {
            Connection::Client(connection) => advance(connection, &mut self.shown, input, output),
            Connection::Server(connection) => advance(connection, &mut self.shown, input, output),
        }
    }

    /// The keys and what is known of the peer, once it is done.
    pub(super) fn finish(self) -> Result<(Records, Peer), Error> {
        let (secrets, peer, kernel) = match self.connection {
            Connection::Client(connection) => {
                let peer = Peer::of(&connection);
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, peer, Kernel::Client(kernel))
            }
            Connection::Server(connection) => {
                let peer = Peer::of(&connection);
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, peer, Kernel::Server(kernel))
            }
        };
        let suite = kernel.suite().ok_or(Error::HandshakeNotComplete)?;
        let (opened, rx) = secrets.rx;
        let (sealed, tx) = secrets.tx;
        let (key, iv) = key_and_iv(rx)?;
        let opener = suite.aead_alg.decrypter(key, iv);
        let sealer = Sealer::new(tx)?;
        let records = Records {
            opener,
            opened,
            sealer,
            sealed,
            limit: suite.common.confidentiality_limit,
            suite,
            kernel,
            message: Vec::new(),
            idle_records: 0,
        };
        Ok((records, peer))
    }
}

/// What the handshake has told about the peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) alpn: Option<Vec<u8>>,
}

impl Peer {
    fn of(connection: &CommonState) -> Self {
        Self {
            certificates: connection.peer_certificates().unwrap_or_default().to_vec(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        }
    }
}

/// What the two kinds of connection have in common, and rustls does not say.
trait Unbuffered {
    type Data;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Whether it has something to be sent.
    fn wants_write(&self) -> bool;
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn wants_write(&self) -> bool {
        CommonState::wants_write(self)
    }
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn wants_write(&self) -> bool {
        CommonState::wants_write(self)
    }
}

fn advance<C: Unbuffered>(
    connection: &mut C,
    shown: &mut usize,
    input: &mut BytesMut,
    output: &mut Vec<u8>,
) -> Result<Step, Error> {
    loop {
        // One that is not whole is shown as well: rustls sees by its header if it will never be one.
        let is_whole = matches!(whole_record(&input[*shown..]), Ok(Some(_)));
        let end = if is_whole { *shown } else { input.len() };
        let UnbufferedStatus { discard, state } = connection.process(&mut input[..end]);
        let blocked = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, output);
                false
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                false
            }
            Ok(ConnectionState::BlockedHandshake) => true,
            Ok(ConnectionState::WriteTraffic(_)) => {
                input.advance(discard);
                *shown -= discard;
                return Ok(Step::Done);
            }
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                return Err(Error::AlertReceived(AlertDescription::CloseNotify));
            }
            Ok(_) => return Err(unexpected_message()),
            Err(error) => {
                encode_alerts(connection, output);
                return Err(error);
            }
        };
        input.advance(discard);
        *shown -= discard;
        if !blocked {
            continue;
        }
        match whole_record(&input[*shown..])? {
            Some(length) => *shown += length,
            None if input.len() > MAX_HANDSHAKE => {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            None => return Ok(Step::Read),
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, output: &mut Vec<u8>) {
    let start = output.len();
    loop {
        match data.encode(&mut output[start..]) {
            Ok(count) => return output.truncate(start + count),
            Err(EncodeError::InsufficientSize(missing)) => output.resize(start + missing.required_size, 0),
            Err(EncodeError::AlreadyEncoded) => return output.truncate(start),
        }
    }
}

/// A handshake that fails leaves an alert to be sent. rustls must not be asked for more than that.
fn encode_alerts(connection: &mut impl Unbuffered, output: &mut Vec<u8>) {
    while connection.wants_write()
        && let Ok(ConnectionState::EncodeTlsData(data)) = connection.process(&mut []).state
    {
        encode(data, output);
    }
}

enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Kernel {
    fn suite(&self) -> Option<&'static Tls13CipherSuite> {
        let suite = match self {
            Self::Client(kernel) => kernel.negotiated_cipher_suite(),
            Self::Server(kernel) => kernel.negotiated_cipher_suite(),
        };
        suite.tls13()
    }

    fn next_opening_key(&mut self) -> Result<(AeadKey, Iv), Error> {
        key_and_iv(match self {
            Self::Client(kernel) => kernel.update_rx_secret()?.1,
            Self::Server(kernel) => kernel.update_rx_secret()?.1,
        })
    }

    fn next_sealer(&mut self) -> Result<Sealer, Error> {
        Sealer::new(match self {
            Self::Client(kernel) => kernel.update_tx_secret()?.1,
            Self::Server(kernel) => kernel.update_tx_secret()?.1,
        })
    }
}

fn key_and_iv(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), Error> {
    Ok(match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
        _ => return Err(Error::General("a cipher that this end does not know".into())),
    })
}

/// What a record was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Bytes for whoever reads.
    Data(Bytes),
    /// Something that concerns TLS alone.
    Nothing,
    /// The peer wants our next keys as well.
    KeyWanted,
    /// The peer says no more (close_notify).
    Closed,
}

/// The keys of a connection.
pub(super) struct Records {
    opener: Box<dyn MessageDecrypter>,
    /// How many records were opened with the key.
    opened: u64,
    sealer: Sealer,
    /// How many records were sealed with the key.
    sealed: u64,
    /// How many records a key may seal.
    limit: u64,
    suite: &'static Tls13CipherSuite,
    kernel: Kernel,
    /// The part of a handshake message that came so far, if it is in several records.
    message: Vec<u8>,
    /// How many records came since the last one with data.
    idle_records: u32,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opened, sealed, .. } = self;
        f.debug_struct("Records").field("opened", opened).field("sealed", sealed).finish_non_exhaustive()
    }
}

impl Records {
    /// Opens a record that is whole.
    pub(super) fn open(&mut self, mut record: BytesMut) -> Result<Opened, Error> {
        if ContentType::from(record[0]) != ContentType::ApplicationData {
            // After the handshake every record is sealed, and this is what sealed ones look like (RFC 8446 §5.2).
            return Err(InvalidMessage::InvalidContentType.into());
        }
        let start = record.as_ptr().addr();
        let (typ, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
        let sealed = InboundOpaqueMessage::new(typ, version, &mut record[HEADER..]);
        let plain = self.opener.decrypt(sealed, self.opened)?;
        self.opened += 1;
        if plain.typ != ContentType::Handshake && !self.message.is_empty() {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        match plain.typ {
            ContentType::ApplicationData if plain.payload.is_empty() => self.count_idle(),
            ContentType::ApplicationData => {
                let (before, length) = (plain.payload.as_ptr().addr() - start, plain.payload.len());
                self.idle_records = 0;
                record.advance(before);
                record.truncate(length);
                Ok(Opened::Data(record.freeze()))
            }
            ContentType::Alert => match alert(plain.payload)? {
                Opened::Nothing => self.count_idle(),
                other => Ok(other),
            },
            ContentType::Handshake => {
                self.message.extend_from_slice(plain.payload);
                self.handle_messages()
            }
            _ => Err(unexpected_message()),
        }
    }

    fn count_idle(&mut self) -> Result<Opened, Error> {
        self.idle_records += 1;
        if self.idle_records > MAX_IDLE_RECORDS {
            return Err(PeerMisbehaved::TooManyEmptyFragments.into());
        }
        Ok(Opened::Nothing)
    }

    /// Takes the messages that are whole. What a TLS peer may say after the handshake is that its key changes, and, if it
    /// is the server, how to resume, which we do not.
    fn handle_messages(&mut self) -> Result<Opened, Error> {
        const NEW_SESSION_TICKET: u8 = 4;
        const KEY_UPDATE: u8 = 24;
        let mut outcome = self.count_idle()?;
        while let Some(&[typ, high, middle, low]) = self.message.first_chunk() {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > MAX_MESSAGE {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some(body) = self.message.get(4..4 + length) else { return Ok(outcome) };
            match (typ, body) {
                (KEY_UPDATE, &[wanted @ 0..=1]) => {
                    if self.message.len() > 5 {
                        // What follows would be under the key that is no more.
                        return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                    }
                    let (key, iv) = self.kernel.next_opening_key()?;
                    (self.opener, self.opened) = (self.suite.aead_alg.decrypter(key, iv), 0);
                    if wanted == 1 {
                        outcome = Opened::KeyWanted;
                    }
                }
                (KEY_UPDATE, _) => return Err(InvalidMessage::InvalidKeyUpdate.into()),
                (NEW_SESSION_TICKET, _) if matches!(self.kernel, Kernel::Client(_)) => {}
                _ => return Err(unexpected_message()),
            }
            self.message.drain(..4 + length);
        }
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(outcome)
    }

    /// Appends to `out` a record with the bytes of `parts`, which are at most [`MAX_PLAINTEXT`], and before it a change of
    /// the key, if it has sealed all that it may.
    pub(super) fn seal<'a>(
        &mut self,
        parts: impl IntoIterator<Item = &'a [u8]>,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        // The change takes one as well.
        if self.sealed + 1 >= self.limit {
            self.update_key(out)?;
        }
        self.seal_as(ContentType::ApplicationData, parts, out)
    }

    /// Says that the key changes, and changes it.
    pub(super) fn update_key(&mut self, out: &mut BytesMut) -> Result<(), Error> {
        const KEY_UPDATE_NOT_REQUESTED: [u8; 5] = [24, 0, 0, 1, 0];
        self.seal_as(ContentType::Handshake, [&KEY_UPDATE_NOT_REQUESTED[..]], out)?;
        self.change_sealing_key()
    }

    pub(super) fn change_sealing_key(&mut self) -> Result<(), Error> {
        (self.sealer, self.sealed) = (self.kernel.next_sealer()?, 0);
        Ok(())
    }

    /// How many records a key may seal, for a test that has not the time for 2^24 of them.
    #[cfg(test)]
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Appends to `out` the last word: that no more comes, or why.
    pub(super) fn seal_alert(&mut self, alert: AlertDescription, out: &mut BytesMut) -> Result<(), Error> {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        let level = if alert == AlertDescription::CloseNotify { WARNING } else { FATAL };
        self.seal_as(ContentType::Alert, [&[level, alert.into()][..]], out)
    }

    pub(super) fn seal_as<'a>(
        &mut self,
        typ: ContentType,
        parts: impl IntoIterator<Item = &'a [u8]>,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        self.sealer.seal(self.sealed, typ, parts, out)?;
        self.sealed += 1;
        Ok(())
    }
}

/// Seals records where they are to lie. rustls' own way to do that gives each its own allocation.
struct Sealer {
    key: aead::LessSafeKey,
    iv: Iv,
}

impl Sealer {
    fn new(secrets: ConnectionTrafficSecrets) -> Result<Self, Error> {
        let algorithm = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { .. } => &aead::AES_128_GCM,
            ConnectionTrafficSecrets::Aes256Gcm { .. } => &aead::AES_256_GCM,
            _ => &aead::CHACHA20_POLY1305,
        };
        let (key, iv) = key_and_iv(secrets)?;
        let key = aead::UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::EncryptError)?;
        Ok(Self { key: aead::LessSafeKey::new(key), iv })
    }

    /// Appends the record number `sequence` under this key (RFC 8446 §5.2 and §5.3).
    fn seal<'a>(
        &self,
        sequence: u64,
        typ: ContentType,
        parts: impl IntoIterator<Item = &'a [u8]>,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        parts.into_iter().for_each(|part| out.extend_from_slice(part));
        debug_assert!(out.len() - start <= HEADER + MAX_PLAINTEXT, "the caller cuts it");
        out.extend_from_slice(&[typ.into()]);
        let sealed = out.len() - start - HEADER + self.key.algorithm().tag_len();
        // It is the header of the record.
        let header = make_tls13_aad(sealed);
        let (place, plain) = out[start..].split_at_mut(HEADER);
        place.copy_from_slice(&header);
        let nonce = aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, sequence).0);
        match self.key.seal_in_place_separate_tag(nonce, aead::Aad::from(header), plain) {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            Err(_) => {
                // What is not sealed must not go out.
                out.truncate(start);
                return Err(Error::EncryptError);
            }
        }
        Ok(())
    }
}

fn alert(payload: &[u8]) -> Result<Opened, Error> {
    let &[_, description] = payload else {
        return Err(InvalidMessage::MessageTooShort.into());
    };
    match AlertDescription::from(description) {
        AlertDescription::CloseNotify => Ok(Opened::Closed),
        AlertDescription::UserCanceled => Ok(Opened::Nothing),
        alert => Err(Error::AlertReceived(alert)),
    }
}

fn unexpected_message() -> Error {
    Error::InappropriateMessage {
        expect_types: vec![ContentType::ApplicationData],
        got_type: ContentType::Handshake,
    }
}

/// What the peer is told about an error in what it sent (RFC 8446 §6.2). `None` if it is the one who told us.
pub(super) fn alert_for(error: &Error) -> Option<AlertDescription> {
    Some(match error {
        Error::AlertReceived(_) => return None,
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::InvalidMessage(_) => AlertDescription::DecodeError,
        _ => AlertDescription::UnexpectedMessage,
    })
}
