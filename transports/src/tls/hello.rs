//! A client's first words, by which it is decided how to answer.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor};
use tokio::io::AsyncReadExt;

use super::pipe::{say, shake_hands};
use super::records::{Handshake, whole_record};
use super::{HandshakeError, TlsPipe, check_protocol, readable};
use crate::{Pipe, Unread};

/// As much as a client's first words take, mostly.
pub(super) const SIZE: usize = 2 << 10;

/// A client that has said what it speaks, and has not been answered.
///
/// With this several protocols share a port, each with its own rules about certificates.
#[derive(Debug)]
pub struct Hello<P> {
    pipe: P,
    /// What was read. rustls is given it once more, as its answer is to it.
    input: BytesMut,
    /// The application protocols that it offers.
    offers: Vec<Vec<u8>>,
}

impl<P: Pipe> Hello<P> {
    /// Reads a client's first words from `pipe`, of which `input` was read already. Cancelling it closes the pipe.
    ///
    /// # Errors
    ///
    /// They are no TLS, or end too early.
    pub async fn read(mut pipe: P, mut input: BytesMut) -> Result<Self, HandshakeError> {
        let mut acceptor = None;
        let mut seen = 0;
        loop {
            // Whoever takes their time is not given a parser for it, only room for what has come.
            while let Some(end) = understandable(&input, seen) {
                let acceptor = acceptor.get_or_insert_with(|| Box::new(Acceptor::default()));
                // It takes some kilobytes at a time.
                while seen < end {
                    seen += acceptor.read_tls(&mut &input[seen..end]).map_err(HandshakeError::Io)?;
                    match acceptor.accept() {
                        Ok(Some(accepted)) => return Ok(Self { pipe, input, offers: offers(&accepted) }),
                        Ok(None) => {}
                        Err((error, mut alert)) => {
                            let mut output = Vec::new();
                            // Neither a vector nor who is gone is a reason to say something else.
                            let _ = alert.write_all(&mut output);
                            let _ = say(&mut pipe, &mut output).await;
                            return Err(HandshakeError::Tls(error));
                        }
                    }
                }
            }
            if input.len() == input.capacity() {
                input.reserve(SIZE);
            }
            if pipe.read_buf(&mut input).await.map_err(HandshakeError::Io)? == 0 {
                return Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Whether it offers this application protocol.
    pub fn offers(&self, name: &[u8]) -> bool {
        self.offers.iter().any(|offered| offered == name)
    }

    /// Answers. Cancelling it closes the pipe.
    ///
    /// # Errors
    ///
    /// As [`accept`](super::accept).
    pub async fn accept(self, config: Arc<ServerConfig>) -> Result<TlsPipe<P>, HandshakeError> {
        let Self { pipe, input, offers } = self;
        let ours = config.alpn_protocols.clone();
        let handshake = Handshake::server(config).map_err(HandshakeError::Tls)?;
        let pipe = shake_hands(pipe, handshake, input, Vec::new()).await.map_err(|error| match error {
            HandshakeError::Tls(rustls::Error::NoApplicationProtocol) => {
                HandshakeError::Protocol { ours: readable(&ours), theirs: Some(readable(&offers)) }
            }
            error => error,
        })?;
        check_protocol(&ours, pipe.alpn())?;
        Ok(pipe)
    }

    /// Gives back the pipe as it was before, for whoever else answers, and what the client offers.
    pub(crate) fn into_parts(self) -> (Unread<P>, Vec<Vec<u8>>) {
        (Unread::new(self.input.freeze(), self.pipe), self.offers)
    }
}

/// Where the record at `seen` ends, if it is whole; all of the input, if it will never be a record.
fn understandable(input: &[u8], seen: usize) -> Option<usize> {
    match whole_record(&input[seen..]) {
        Ok(length) => length.map(|length| seen + length),
        Err(_) => Some(input.len()),
    }
}

fn offers(accepted: &Accepted) -> Vec<Vec<u8>> {
    accepted.client_hello().alpn().into_iter().flatten().map(<[u8]>::to_vec).collect()
}
