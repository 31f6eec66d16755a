//! How a command fails: one line that names the remedy, and an exit status for each kind of trouble.

use towline::refusal::RefusalCode;
use towline::{ConnectError, CredentialError, OpenError, PeerError, SetupError, StartError};
use towline_transports::tls::HandshakeError;

use super::output::{OutputError, complain};
use super::signals::Stop;

/// The command line makes no sense (`EX_USAGE` of sysexits).
pub(crate) const USAGE: u8 = 64;
/// The hub or the device cannot be reached, or was lost (`EX_UNAVAILABLE`).
pub(crate) const UNAVAILABLE: u8 = 69;
/// A bug (`EX_SOFTWARE`).
pub(crate) const INTERNAL: u8 = 70;
/// The system does not let us, such as listen on a port (`EX_OSERR`).
pub(crate) const SYSTEM: u8 = 71;
/// A file is in the way, or cannot be made (`EX_CANTCREAT`).
pub(crate) const CANNOT_CREATE: u8 = 73;
/// Bytes were lost: the tunnel was reset, or the output takes no more (`EX_IOERR`).
pub(crate) const IO: u8 = 74;
/// One end does not trust the other (`EX_NOPERM`).
pub(crate) const NOT_TRUSTED: u8 = 77;
/// A certificate, a key or an address does not do (`EX_CONFIG`).
pub(crate) const CONFIG: u8 = 78;

/// What `--help` says about them, besides refusals.
const STATUSES: [(u8, &str); 8] = [
    (USAGE, "wrong usage"),
    (UNAVAILABLE, "hub unreachable, or lost"),
    (INTERNAL, "a bug"),
    (SYSTEM, "system trouble"),
    (CANNOT_CREATE, "file exists, or cannot be written"),
    (IO, "connection reset, or output full"),
    (NOT_TRUSTED, "other end or certificate not trusted"),
    (CONFIG, "certificate, key or address unusable"),
];

/// The table of exit statuses, for `--help`. With those of tunnels if the command asks a hub for something.
pub(crate) fn table_of_statuses(asks: bool) -> String {
    let refusals = RefusalCode::ALL.map(|code| (code.exit_status(), code.name()));
    let mut table = "Exit status:\n   0  done".to_owned();
    for statuses in [if asks { &refusals[..] } else { &[] }, &STATUSES] {
        let (left, right) = statuses.split_at(statuses.len().div_ceil(2));
        for (n, (status, text)) in left.iter().enumerate() {
            table += &format!("\n{status:>4}  {text:<24}");
            if let Some((status, text)) = right.get(n) {
                table += &format!("{status:>4}  {text}");
            }
        }
    }
    if asks {
        let [hangup, interrupt, terminate] =
            [Stop::Hangup, Stop::Interrupt, Stop::Terminate].map(Stop::status);
        table += &format!("\n {hangup}, {interrupt}, {terminate}  ended by SIGHUP, SIGINT, SIGTERM");
    }
    table
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    /// Empty if there is nobody to tell, or nothing that they do not know.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(INTERNAL, message)
    }

    /// Says why on the standard error, and returns the exit status.
    pub(crate) fn tell(&self) -> u8 {
        if !self.message.is_empty() {
            complain(format_args!("towline: {}", self.message));
        }
        self.status
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        // Other programs are ended by SIGPIPE then, without a word. To stop reading is no failure of ours.
        if error.nobody_reads() { Self::new(0, "") } else { Self::new(IO, error.to_string()) }
    }
}

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        Self::new(CONFIG, error.to_string())
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        Self::new(CONFIG, error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Setup(error) => error.into(),
            StartError::Listen { address, error } => cannot_listen(&address, &error),
            error => Self::internal(error.to_string()),
        }
    }
}

/// A port that cannot be listened on, with what to do about it.
pub(crate) fn cannot_listen(address: &str, error: &std::io::Error) -> Failure {
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or choose another with --listen"
        }
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; choose another with --listen, or grant CAP_NET_BIND_SERVICE"
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; choose another with --listen"
        }
        // The system's own errors have numbers; those of the resolver have none.
        _ if error.raw_os_error().is_none() => "check the host's name in --listen, or write an address",
        _ => "choose another with --listen",
    };
    Failure::new(SYSTEM, format!("cannot listen on {address}: {error}; {remedy}"))
}

impl From<&ConnectError> for Failure {
    fn from(error: &ConnectError) -> Self {
        let status = match error {
            ConnectError::Refused(refusal) => refusal.code.exit_status(),
            ConnectError::NotTrusted { error: HandshakeError::Io(_), .. } => UNAVAILABLE,
            ConnectError::NotTrusted { .. }
            | ConnectError::NotAHub { .. }
            | ConnectError::OtherTrustDomain { .. }
            | ConnectError::CertificateRefused { .. } => NOT_TRUSTED,
            _ => UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error.root() {
            OpenError::Connect(error) => error.into(),
            OpenError::Refused(refusal) => Self::new(refusal.code.exit_status(), refusal.to_string()),
            OpenError::Peer(error) => error.into(),
            error => Self::new(UNAVAILABLE, error.to_string()),
        }
    }
}

impl From<&PeerError> for Failure {
    fn from(error: &PeerError) -> Self {
        let status = match error {
            PeerError::TimedOut(_) | PeerError::Handshake { error: HandshakeError::Io(_), .. } => UNAVAILABLE,
            _ => NOT_TRUSTED,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_somebody_else_is_not_trusted_and_who_is_silent_is_not_there() {
        let whom = || "spiffe://test/device/press-7".parse().unwrap();
        let found = "spiffe://test/device/press-8".parse().unwrap();
        let status = |error: PeerError| Failure::from(OpenError::from(error)).status;
        assert_eq!(status(PeerError::SomebodyElse { whom: whom(), found }), NOT_TRUSTED);
        assert_eq!(status(PeerError::TimedOut(whom())), UNAVAILABLE);
        let error = HandshakeError::Io(std::io::ErrorKind::UnexpectedEof.into());
        assert_eq!(status(PeerError::Handshake { whom: whom(), error }), UNAVAILABLE);
    }

    #[test]
    fn statuses_stand_in_two_columns() {
        let table = table_of_statuses(true);
        assert!(table.contains("\n  20  bad request               27  target unreachable\n"), "{table}");
        assert!(table.contains("\n  71  system trouble            78  certificate, key or"), "{table}");
        assert!(table.ends_with("\n 129, 130, 143  ended by SIGHUP, SIGINT, SIGTERM"), "{table}");
        assert_eq!(table.lines().count(), 2 + 7 + 4 + 1);
    }
}
