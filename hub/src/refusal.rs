//! Why something was not granted: a code for each outcome, an exit status, and words that name the remedy.

use std::fmt;
use std::time::Duration;

use minicbor::{Decode, Encode};

/// How a request can fail. The numbers stand on the wire (docs/PROTOCOL.md, section 5.4) and do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The message was malformed, or of a version that is not spoken.
    #[n(0)]
    BadRequest,
    /// No device of that ID has been here.
    #[n(1)]
    DeviceUnknown,
    /// The device is not here now.
    #[n(2)]
    DeviceOffline,
    /// The hub's policy, or the asker's role, does not allow it.
    #[n(3)]
    Forbidden,
    /// The device does not want it, and says why.
    #[n(4)]
    Rejected,
    /// The device offers no service of that name.
    #[n(5)]
    ServiceUnknown,
    /// What the service's name stands for refused the connection.
    #[n(6)]
    TargetRefused,
    /// It could not be reached.
    #[n(7)]
    TargetUnreachable,
    /// It did not answer.
    #[n(8)]
    TargetTimedOut,
    /// The handshake took longer than the asker allowed.
    #[n(9)]
    DeadlinePassed,
    /// The asker asks for too many tunnels, or lists, in too short a time.
    #[n(10)]
    RateLimited,
    /// The device has as many tunnels as the hub allows.
    #[n(11)]
    TooManyTunnels,
    /// The hub is about to go.
    #[n(12)]
    HubDraining,
    /// Another holder of the same identity has taken this one's place.
    #[n(13)]
    Superseded,
}

impl RefusalCode {
    /// Every code.
    pub const ALL: [Self; 14] = [
        Self::BadRequest,
        Self::DeviceUnknown,
        Self::DeviceOffline,
        Self::Forbidden,
        Self::Rejected,
        Self::ServiceUnknown,
        Self::TargetRefused,
        Self::TargetUnreachable,
        Self::TargetTimedOut,
        Self::DeadlinePassed,
        Self::RateLimited,
        Self::TooManyTunnels,
        Self::HubDraining,
        Self::Superseded,
    ];

    /// Its short name, as it stands in logs and in `--help`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad request",
            Self::DeviceUnknown => "device unknown",
            Self::DeviceOffline => "device offline",
            Self::Forbidden => "forbidden",
            Self::Rejected => "rejected by the device",
            Self::ServiceUnknown => "service unknown",
            Self::TargetRefused => "target refused",
            Self::TargetUnreachable => "target unreachable",
            Self::TargetTimedOut => "target timed out",
            Self::DeadlinePassed => "deadline passed",
            Self::RateLimited => "rate limited",
            Self::TooManyTunnels => "too many tunnels",
            Self::HubDraining => "hub draining",
            Self::Superseded => "superseded",
        }
    }

    /// What whoever asked can do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::BadRequest => "check the names, and that both ends run the same version of towline",
            Self::DeviceUnknown => {
                "check the ID against `towline devices`, and that the device uses this hub"
            }
            Self::DeviceOffline => "start `towline device` there, or wait until it is back",
            Self::Forbidden => "ask the hub's operator for a rule that allows it (`towline hub --allow`)",
            Self::Rejected => "ask the device's owner",
            Self::ServiceUnknown => "start `towline device` there with `--service NAME=ADDRESS` for it",
            Self::TargetRefused => {
                "start the program on the device that shall answer, or correct its address there"
            }
            Self::TargetUnreachable => "check the service's address on the device, and the device's network",
            Self::TargetTimedOut => "check the program behind the service, or a firewall before it",
            Self::DeadlinePassed => "try again, with a longer `--deadline` if the network is slow",
            Self::RateLimited => "wait a moment, or have `towline hub --opens-per-second` raised",
            Self::TooManyTunnels => "close some tunnels, or have `towline hub --tunnels-per-device` raised",
            Self::HubDraining => "try again in a moment, or use another hub",
            Self::Superseded => "find the other holder of this identity, and give one of them its own",
        }
    }

    /// The exit status of a command that fails for this reason: 20 and up, each its own.
    pub const fn exit_status(self) -> u8 {
        20 + match self {
            Self::BadRequest => 0,
            Self::DeviceUnknown => 1,
            Self::DeviceOffline => 2,
            Self::Forbidden => 3,
            Self::Rejected => 4,
            Self::ServiceUnknown => 5,
            Self::TargetRefused => 6,
            Self::TargetUnreachable => 7,
            Self::TargetTimedOut => 8,
            Self::DeadlinePassed => 9,
            Self::RateLimited => 10,
            Self::TooManyTunnels => 11,
            Self::HubDraining => 12,
            Self::Superseded => 13,
        }
    }
}

/// The most characters of a refusal's words that are sent or kept. The rest is cut off.
pub const MAX_TEXT: usize = 500;

/// Why something was not granted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refusal {
    /// The outcome.
    #[n(0)]
    pub code: RefusalCode,
    /// What happened, in one line, for people; at most [`MAX_TEXT`] characters.
    #[cbor(n(1), decode_with = "crate::message::text::<MAX_TEXT, _>")]
    pub text: String,
    /// How long to wait before trying again, in milliseconds, if the hub says so.
    #[n(2)]
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// A refusal with these words, cut at [`MAX_TEXT`] characters.
    pub fn new(code: RefusalCode, text: impl AsRef<str>) -> Self {
        let text = text.as_ref().chars().take(MAX_TEXT).collect();
        Self { code, text, retry_after_ms: None }
    }

    /// The same, with the time after which to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after_ms = Some(crate::message::millis(wait));
        self
    }
}

impl fmt::Display for Refusal {
    /// One line: what happened, the peer's words made fit for a terminal, and the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.text.chars().take(MAX_TEXT).collect();
        write!(f, "{}: {}; {}", self.code.name(), readable(&text), self.code.remedy())
    }
}

/// A peer's words with what a terminal would obey escaped. Quotation marks are words.
fn readable(text: &str) -> String {
    let mut readable = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' => readable.push(c),
            c => readable.extend(c.escape_debug()),
        }
    }
    readable
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_status_name_and_remedy() {
        let all = RefusalCode::ALL;
        for (n, code) in all.into_iter().enumerate() {
            let bytes = minicbor::to_vec(code).unwrap();
            assert_eq!(usize::from(bytes[0]), n, "the number on the wire");
            for other in &all[..n] {
                assert_ne!(code.exit_status(), other.exit_status());
                assert_ne!(code.name(), other.name());
                assert_ne!(code.remedy(), other.remedy());
            }
        }
    }

    #[test]
    fn a_peers_words_cannot_play_tricks_on_a_terminal() {
        let refusal = Refusal::new(RefusalCode::Rejected, "\x1b[2J\rgone\n");
        assert_eq!(
            refusal.to_string(),
            "rejected by the device: \\u{1b}[2J\\rgone\\n; ask the device's owner"
        );
        let refusal = Refusal::new(RefusalCode::Rejected, "don't \"ask\"");
        assert_eq!(
            refusal.to_string(),
            "rejected by the device: don't \"ask\"; ask the device's owner",
            "a quotation mark is no trick"
        );
        assert_eq!(Refusal::new(RefusalCode::Rejected, "x".repeat(9999)).text.len(), MAX_TEXT);
    }
}
