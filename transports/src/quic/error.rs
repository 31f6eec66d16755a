//! What QUIC says about an end, in the words that fit every kind of link.

use std::io;
use std::sync::Arc;

use quinn::{ConnectionError, TransportErrorCode, VarInt};
use rustls::{AlertDescription, CertificateError};
use towline_engine::Code;

use super::ALPN_QUIC;
use crate::error::LinkClosed;
use crate::tls::{self, HandshakeError};

/// Why a link is over. `asked` is the code with which this end closed it, if it did.
pub(super) fn link_closed(error: ConnectionError, asked: Option<Code>) -> LinkClosed {
    match error {
        ConnectionError::LocallyClosed => LinkClosed::Local(asked.unwrap_or_default()),
        ConnectionError::ApplicationClosed(close) => LinkClosed::Peer {
            code: code_of(close.error_code),
            reason: close.reason.escape_ascii().to_string(),
        },
        ConnectionError::TimedOut => LinkClosed::TimedOut,
        // The client's handshake is over before the hub has looked at its certificate: a refusal comes here, in the
        // form that it has on a TLS link.
        ConnectionError::ConnectionClosed(ref close) => match alert_of(close.error_code) {
            Some(alert) => lost(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert)),
            None => LinkClosed::Protocol(error.to_string()),
        },
        ConnectionError::Reset => lost(io::ErrorKind::ConnectionReset, error),
        // The socket failed, or the runtime is gone.
        ConnectionError::TransportError(ref fault) if fault.code == TransportErrorCode::INTERNAL_ERROR => {
            lost(io::ErrorKind::Other, error)
        }
        ConnectionError::TransportError(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::CidsExhausted => LinkClosed::Protocol(error.to_string()),
    }
}

fn lost(kind: io::ErrorKind, error: impl std::error::Error + Send + Sync + 'static) -> LinkClosed {
    LinkClosed::Lost(Arc::new(io::Error::new(kind, error)))
}

/// Why a handshake failed. QUIC keeps the number of TLS's alert; the rest is text.
pub(super) fn handshake_error(error: ConnectionError) -> HandshakeError {
    let (code, own) = match &error {
        ConnectionError::TransportError(fault) => (Some(fault.code), Some(fault.reason.clone())),
        ConnectionError::ConnectionClosed(close) => (Some(close.error_code), None),
        _ => (None, None),
    };
    match (code.and_then(alert_of), own) {
        (Some(AlertDescription::NoApplicationProtocol), _) => other_protocol(None),
        (Some(alert), Some(reason)) => HandshakeError::Tls(own_error(alert, reason)),
        (Some(alert), None) => HandshakeError::Tls(rustls::Error::AlertReceived(alert)),
        (None, _) => HandshakeError::Io(error.into()),
    }
}

/// The two ends have no application protocol in common.
pub(super) fn other_protocol(got: Option<&[u8]>) -> HandshakeError {
    let theirs = got.map(|got| tls::readable(&[got]));
    HandshakeError::Protocol { ours: tls::readable(&[ALPN_QUIC]), theirs }
}

/// What made this end send `alert`, as near as one can tell.
fn own_error(alert: AlertDescription, reason: String) -> rustls::Error {
    match alert {
        AlertDescription::CertificateRequired => rustls::Error::NoCertificatesPresented,
        AlertDescription::UnknownCA => CertificateError::UnknownIssuer.into(),
        AlertDescription::CertificateExpired => CertificateError::Expired.into(),
        AlertDescription::CertificateRevoked => CertificateError::Revoked.into(),
        AlertDescription::DecryptError => CertificateError::BadSignature.into(),
        _ => rustls::Error::General(reason),
    }
}

/// The alert of TLS that a code of QUIC's stands for (RFC 9001 §4.8).
fn alert_of(code: TransportErrorCode) -> Option<AlertDescription> {
    match u64::from(code).to_be_bytes() {
        [0, 0, 0, 0, 0, 0, 1, alert] => Some(alert.into()),
        _ => None,
    }
}

pub(super) fn code_of(number: VarInt) -> Code {
    Code::new(number.into_inner()).expect("a varint is below 2^62")
}

pub(super) fn varint_of(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).expect("a code is below 2^62")
}
