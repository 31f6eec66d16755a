//! Which backend can do what: one table, for the check, for `list`, and for the docs.

use serde::{Deserialize, Serialize};

use super::{EndpointSpec, FaultKind, FaultSpec, Scenario, SessionSpec, Transport};
use crate::link::LinkSpec;

/// What runs a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Sans-IO sessions and the hub's sans-IO core on a queue of events: fast, and of any size.
    Des,
    /// The whole product in turmoil: TLS, QUIC, the driver, hub, device and service.
    Turmoil,
}

impl Backend {
    /// Both, the first choice first.
    pub const ALL: [Self; 2] = [Self::Des, Self::Turmoil];
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Des => "des",
            Self::Turmoil => "turmoil",
        })
    }
}

/// Something that a scenario can ask for and that not every backend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// A fault.
    Fault(FaultKind),
    /// Datagrams that are blocked, and nobody who has to use them.
    BlockUdpWithoutQuic,
    /// More hosts than this.
    Hosts(usize),
    /// A certain transport.
    Transport(Transport),
    /// Packets that are lost, overtake each other, or arrive twice.
    Loss,
    /// The same under TCP.
    LossUnderTcp,
    /// Streams that live on when what carried them is lost.
    Survival,
    /// Sessions with limits of their own.
    Session,
    /// A largest packet.
    Mtu,
    /// The same under TCP.
    MtuUnderTcp,
    /// A NAT that forgets.
    Nat,
    /// A processor that works for each handshake.
    Handshake,
    /// A bound on what sessions hold.
    Memory,
    /// What windows become.
    Window,
    /// A bound on how often a session is resumed.
    Resumes,
    /// Sessions that are resumed at least so often.
    ResumesAtLeast,
    /// A bound on how often endpoints connect.
    Links,
    /// Streams that are finished, and reset after that.
    LateResets,
}

/// More hosts than this turmoil does not have time for: each step visits each host.
pub(super) const TURMOIL_HOSTS: usize = 25;

/// Why the backend does not have it; `None` if it does.
pub fn is_supported(backend: Backend, feature: Feature) -> Result<(), &'static str> {
    use Backend::{Des, Turmoil};
    match (backend, feature) {
        (Des, Feature::Fault(FaultKind::Expire)) => Err("it has no certificates"),
        (Des, Feature::Fault(FaultKind::BlockTls)) => {
            Err("to it all links but those of QUIC are connections, whatever they are made of")
        }
        (
            Turmoil,
            Feature::Fault(
                FaultKind::DrainSessions
                | FaultKind::CloseSessions
                | FaultKind::Replay
                | FaultKind::Forge
                | FaultKind::LateBytes,
            ),
        ) => Err("what is inside of a session is out of reach in the product, behind its own TLS"),
        (Turmoil, Feature::Fault(FaultKind::Suspend)) => {
            Err("turmoil cannot stop one host while others go on")
        }
        (Turmoil, Feature::Fault(FaultKind::ClockJump)) => Err("all hosts of turmoil share a clock"),
        (_, Feature::Fault(_)) => Ok(()),
        (Des, Feature::BlockUdpWithoutQuic) => Err(
            "its links are TCP where nothing is said, and nobody falls back: use `transport = \"quic\"` where datagrams are blocked",
        ),
        (Turmoil, Feature::BlockUdpWithoutQuic) => Ok(()),
        (Turmoil, Feature::Hosts(count)) if count > TURMOIL_HOSTS => Err("turmoil has time for 25 hosts"),
        (_, Feature::Hosts(_)) => Ok(()),
        (Des, Feature::Transport(Transport::WebSocket)) => {
            Err("to it all links but those of QUIC are connections, whatever they are made of")
        }
        (_, Feature::Transport(_)) => Ok(()),
        (_, Feature::LossUnderTcp) => Err(
            "what TCP makes of a loss is measured in the link laboratory (benches/), not modelled; use `transport = \"quic\"` on this link",
        ),
        (Turmoil, Feature::Survival) => {
            Err("tunnels do not outlive their links: say `session = true` in each [[work]]")
        }
        (Turmoil, Feature::Session) => Err("the product's sessions have the limits that they have"),
        (Des, Feature::Survival | Feature::Session) => Ok(()),
        (_, Feature::MtuUnderTcp) => {
            Err("connections of TCP have no packets here: use `transport = \"quic\"` on this link")
        }
        (Turmoil, Feature::Handshake) => {
            Err("the product's own handshakes take what they take, in no simulated time")
        }
        (Turmoil, Feature::Memory | Feature::Window | Feature::Resumes | Feature::ResumesAtLeast) => {
            Err("it cannot look into the product's sessions")
        }
        (Turmoil, Feature::Links) => Err("it hears of devices' links only, and not of services'"),
        (Turmoil, Feature::LateResets) => {
            Err("what the product's applications have finished they have let go")
        }
        (_, Feature::Loss | Feature::Mtu | Feature::Nat | Feature::Handshake | Feature::Memory) => Ok(()),
        (Des, Feature::Window | Feature::LateResets) => Ok(()),
        (Des, Feature::Resumes | Feature::ResumesAtLeast | Feature::Links) => Ok(()),
    }
}

impl Scenario {
    /// What it asks for that not every backend has.
    pub fn features(&self) -> Vec<Feature> {
        let mut features: Vec<_> = self.faults.iter().map(|fault| Feature::Fault(fault.kind)).collect();
        let endpoints = || self.devices.iter().chain(&self.services);
        features.extend(endpoints().map(|endpoint| Feature::Transport(endpoint.transport)));
        // Devices and services that come in groups are tasks of one host there.
        features.push(Feature::Hosts(self.hubs.len() + self.proxies.len() + endpoints().count()));
        let is_there = |is_such: fn(&LinkSpec) -> bool| self.lines().any(|line| line.ways().any(is_such));
        let blocks_udp = self.faults.iter().any(|fault| fault.kind == FaultKind::BlockUdp)
            || self.lines().any(|line| line.blocks_udp);
        let has_quic = endpoints().any(|endpoint| endpoint.transport == Transport::Quic);
        let wants = [
            (blocks_udp && !has_quic, Feature::BlockUdpWithoutQuic),
            (is_there(LinkSpec::is_unreliable), Feature::Loss),
            (self.is_under_tcp(LinkSpec::is_unreliable), Feature::LossUnderTcp),
            (self.wants_survival(), Feature::Survival),
            (self.session_has_limits(), Feature::Session),
            (is_there(|link| link.mtu.is_some()), Feature::Mtu),
            (self.is_under_tcp(|link| link.mtu.is_some()), Feature::MtuUnderTcp),
            (is_there(|link| link.nat_timeout.is_some()), Feature::Nat),
            (self.hubs.iter().any(|hub| hub.handshake.0 > 0), Feature::Handshake),
            (self.expect.memory_below.is_some(), Feature::Memory),
            (self.expect.window_at_least.is_some(), Feature::Window),
            (self.expect.resumes_at_most.is_some(), Feature::Resumes),
            (self.expect.resumes_at_least.is_some(), Feature::ResumesAtLeast),
            (self.expect.links_at_most.is_some(), Feature::Links),
            (self.work.iter().any(|work| work.late_resets.0 > 0), Feature::LateResets),
        ];
        features.extend(wants.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, feature)| feature));
        features.sort();
        features.dedup();
        features
    }

    /// Whether a connection of TCP goes over such a link.
    fn is_under_tcp(&self, is_such: fn(&LinkSpec) -> bool) -> bool {
        let is_it = |link: &Option<String>| {
            let line = link.as_ref().and_then(|name| self.line(name));
            line.is_some_and(|line| line.ways().any(is_such))
        };
        let endpoints = || self.devices.iter().chain(&self.services);
        let uses_tcp = |endpoint: &EndpointSpec| endpoint.transport != Transport::Quic;
        let is_shared = self.hubs.iter().any(|hub| is_it(&hub.link))
            || self.proxies.iter().any(|proxy| is_it(&proxy.link));
        endpoints().any(|endpoint| uses_tcp(endpoint) && (is_shared || is_it(&endpoint.link)))
    }

    fn session_has_limits(&self) -> bool {
        let SessionSpec { resumable, optimistic_resend, .. } = self.session;
        self.session != SessionSpec { resumable, optimistic_resend, ..SessionSpec::default() }
    }

    /// Whether streams are expected to live on though something breaks what carries them.
    fn wants_survival(&self) -> bool {
        use FaultKind::{Crash, Cut, Drain, Move, PowerLoss};
        let breaks = |fault: &FaultSpec| matches!(fault.kind, Crash | Cut | Drain | Move | PowerLoss);
        let endpoints = || self.devices.iter().chain(&self.services);
        let forgets = |endpoint: &EndpointSpec| {
            let line = endpoint.link.as_ref().and_then(|name| self.line(name));
            let forgets = line.is_some_and(|line| line.ways().any(|way| way.nat_timeout.is_some()));
            endpoint.transport != Transport::Quic && forgets
        };
        let something_breaks = self.faults.iter().any(breaks) || endpoints().any(forgets);
        let are_in_sessions = !self.work.is_empty() && self.work.iter().all(|work| work.session);
        !are_in_sessions && self.session.resumable && self.expect.no_failure && something_breaks
    }

    /// The backends that can run it.
    pub fn backends(&self) -> Vec<Backend> {
        let features = self.features();
        let can = |backend: &Backend| features.iter().all(|&feature| is_supported(*backend, feature).is_ok());
        Backend::ALL.into_iter().filter(can).collect()
    }
}

/// The table: what, and for each backend an empty text, or why not.
pub fn support_table() -> Vec<(&'static str, [&'static str; 2])> {
    use FaultKind::{
        BlockTls, BlockUdp, ClockJump, CloseSessions, Crash, Cut, CutDown, CutUp, Drain, DrainSessions,
        Expire, Forge, Hold, HoldDown, HoldUp, LateBytes, Move, PowerLoss, Replay, SlowReader, Suspend,
    };
    let rows = [
        ("fault `cut`", Feature::Fault(Cut)),
        ("fault `cut-up`", Feature::Fault(CutUp)),
        ("fault `cut-down`", Feature::Fault(CutDown)),
        ("fault `hold`", Feature::Fault(Hold)),
        ("fault `hold-up`", Feature::Fault(HoldUp)),
        ("fault `hold-down`", Feature::Fault(HoldDown)),
        ("fault `crash`", Feature::Fault(Crash)),
        ("fault `power-loss`", Feature::Fault(PowerLoss)),
        ("fault `move`", Feature::Fault(Move)),
        ("fault `block-udp`", Feature::Fault(BlockUdp)),
        ("the same where nobody has `transport = \"quic\"`", Feature::BlockUdpWithoutQuic),
        ("fault `block-tls`", Feature::Fault(BlockTls)),
        ("fault `slow-reader`", Feature::Fault(SlowReader)),
        ("fault `suspend`", Feature::Fault(Suspend)),
        ("fault `clock-jump`", Feature::Fault(ClockJump)),
        ("fault `drain`", Feature::Fault(Drain)),
        ("fault `expire`", Feature::Fault(Expire)),
        ("fault `drain-sessions`", Feature::Fault(DrainSessions)),
        ("fault `close-sessions`", Feature::Fault(CloseSessions)),
        ("fault `replay`", Feature::Fault(Replay)),
        ("fault `forge`", Feature::Fault(Forge)),
        ("fault `late-bytes`", Feature::Fault(LateBytes)),
        ("`transport = \"tls\"`", Feature::Transport(Transport::Tls)),
        ("`transport = \"quic\"`", Feature::Transport(Transport::Quic)),
        ("`transport = \"web-socket\"`", Feature::Transport(Transport::WebSocket)),
        ("link `loss`, `burst`, `reorder`, `duplicate`", Feature::Loss),
        ("the same under TCP", Feature::LossUnderTcp),
        ("`no_failure`, with faults that break links, without `session`", Feature::Survival),
        ("limits in `session`", Feature::Session),
        ("link `mtu`", Feature::Mtu),
        ("the same under TCP", Feature::MtuUnderTcp),
        ("link `nat_timeout`", Feature::Nat),
        ("hub `handshake`", Feature::Handshake),
        ("expect `memory_below`", Feature::Memory),
        ("expect `window_at_least`", Feature::Window),
        ("expect `resumes_at_most`", Feature::Resumes),
        ("expect `resumes_at_least`", Feature::ResumesAtLeast),
        ("expect `links_at_most`", Feature::Links),
        ("work `late_resets`", Feature::LateResets),
        ("more than 25 hosts and groups", Feature::Hosts(TURMOIL_HOSTS + 1)),
    ];
    let row = |(name, feature)| {
        (name, Backend::ALL.map(|backend| is_supported(backend, feature).err().unwrap_or_default()))
    };
    rows.into_iter().map(row).collect()
}
