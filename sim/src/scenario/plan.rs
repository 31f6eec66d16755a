//! A scenario with everything fixed that was drawn: what a backend runs, and what a failure keeps, as JSON.
//!
//! What is drawn while it runs (jitter, back-off, thinking) comes from the seed's streams with the names of hosts and
//! streams, so that a plan with less in it draws the same for what is left.

use serde::{Deserialize, Serialize};

use super::{Backend, Expect, FaultKind, Limits, Range, Rate, SessionSpec, Size, Span, Transport};
use crate::link::LinkSpec;

/// The version of plans, and of failures, which have one. Others are refused.
pub const FORMAT: u32 = 2;

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// See [`FORMAT`].
    pub format: u32,
    /// The name of the scenario.
    pub scenario: String,
    /// What was drawn came from it, and what will be drawn does.
    pub seed: u64,
    /// What runs it.
    pub backend: Backend,
    /// When to give up.
    pub limits: Limits,
    /// All hosts: hubs, proxies, devices, services.
    pub hosts: Vec<Host>,
    /// What sessions are like.
    pub session: SessionSpec,
    /// All streams, in the order in which they are opened.
    pub streams: Vec<StreamPlan>,
    /// All faults, in the order in which they begin.
    pub faults: Vec<Fault>,
    /// What must hold.
    pub expect: Expect,
}

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The meeting point.
    Hub,
    /// What some must pass.
    Proxy,
    /// The one that is reached.
    Device,
    /// The one that asks.
    Service,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name, of which there is only one.
    pub name: String,
    /// Who it proves to be.
    pub identity: String,
    /// What it is.
    pub role: Role,
    /// What its link to all others is like.
    pub link: LinkSpec,
    /// What it is like from them, if that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<LinkSpec>,
    /// Which hubs it knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hubs: Vec<String>,
    /// How it connects.
    #[serde(default)]
    pub transport: Transport,
    /// What it must pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// When it starts.
    #[serde(default)]
    pub start: Span,
    /// For a hub: how long its processor works for a handshake.
    #[serde(default)]
    pub handshake: Span,
    /// For a hub: how many connections may be on their way through the handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unauthenticated: Option<u64>,
}

impl Host {
    /// What its link is like, up and down.
    pub fn ways(&self) -> [&LinkSpec; 2] {
        [&self.link, self.down.as_ref().unwrap_or(&self.link)]
    }

    /// The hubs that it knows, by name, as one text.
    pub fn known_hubs(&self) -> String {
        self.hubs.join(", ")
    }
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamPlan {
    /// Its name, of which there is only one: `work/service/device/3`.
    pub name: String,
    /// Which service opens it, by its host's name.
    pub service: String,
    /// With which device, by its host's name.
    pub device: String,
    /// When.
    pub start: Span,
    /// How many rounds it has.
    pub rounds: u64,
    /// How many bytes the service says in each round.
    pub up: Size,
    /// How many bytes the device answers.
    pub down: Size,
    /// How long the service waits before each round, drawn from the stream `NAME/think`.
    pub think: Range<Span>,
    /// The device does not wait for the service's words.
    pub both_ways: bool,
    /// It is urgent.
    pub interactive: bool,
    /// The service finishes its half with its last words, and not once it has read all. Not looked at where `end` says
    /// otherwise.
    pub half_closes: bool,
    /// How the service ends it.
    pub end: End,
    /// How fast the device reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_reads: Option<Rate>,
    /// How fast the service reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_reads: Option<Rate>,
    /// How much is read at once at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sips: Option<Size>,
    /// It is in a session, with others, that outlives its tunnels.
    #[serde(default, skip_serializing_if = "is_false")]
    pub session: bool,
}

/// How a service ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It finishes once it has said everything, and reads to the end.
    Finish,
    /// It resets it after so many bytes.
    Reset(Size),
    /// It stops reading after so many bytes, and finishes.
    Stop(Size),
    /// It finishes once it has said everything, and resets it so long after that.
    Late(Span),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "so serde wants it")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When it begins.
    pub at: Span,
    /// What.
    pub kind: FaultKind,
    /// With whom, by the host's name.
    pub host: String,
    /// For how long. `None`: to the end, or over at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Span>,
}

impl Plan {
    /// The host with this name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The hosts that are this.
    pub fn hosts_of(&self, role: Role) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.role == role)
    }

    /// As canonical JSON: the same plan is always the same text.
    ///
    /// # Panics
    ///
    /// Never: a plan can be written.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan can be written")
    }
}
