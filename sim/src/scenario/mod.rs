//! Scenarios: a world, what is done in it, what goes wrong, and what must hold all the same.
//!
//! A [`Scenario`] is what a TOML file says ([`parse`]), or what code builds. With a seed it becomes a [`Plan`]
//! ([`Scenario::expand`]), in which everything that is drawn is fixed: what runs, and what a failure keeps.

mod check;
mod expand;
mod lines;
mod parse;
mod plan;
mod support;
mod units;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use check::Problem;
pub use parse::{Malformed, parse, parse_for};
pub use plan::{End, FORMAT, Fault, Host, Plan, Role, StreamPlan};
pub use support::{Backend, Feature, is_supported, support_table};
pub use units::{BadQuantity, Count, Quantity, Range, Rate, Share, Size, Span};

use crate::link::LinkSpec;

/// A scenario, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, as the command line knows it.
    pub name: String,
    /// What happens, and why it is worth a look.
    pub story: String,
    /// The backend it is for. `None`: the first that can run it.
    #[serde(default)]
    pub backend: Option<Backend>,
    /// When to give up.
    #[serde(default)]
    pub limits: Limits,
    /// Where devices and services meet.
    #[serde(default, rename = "hub")]
    pub hubs: Vec<HubSpec>,
    /// Who is reached.
    #[serde(default, rename = "device")]
    pub devices: Vec<EndpointSpec>,
    /// Who asks.
    #[serde(default, rename = "service")]
    pub services: Vec<EndpointSpec>,
    /// What some must pass to reach a hub.
    #[serde(default, rename = "proxy")]
    pub proxies: Vec<ProxySpec>,
    /// What links are like, by name; a profile's need not be said.
    #[serde(default, rename = "link")]
    pub links: BTreeMap<String, LinkSpec>,
    /// What sessions between services and devices are like.
    #[serde(default)]
    pub session: SessionSpec,
    /// What services do.
    #[serde(default)]
    pub work: Vec<WorkSpec>,
    /// What goes wrong.
    #[serde(default, rename = "fault")]
    pub faults: Vec<FaultSpec>,
    /// What must hold.
    #[serde(default)]
    pub expect: Expect,
}

/// When to give up. What was not done by then says who was waiting for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How long the world exists.
    pub simulated: Span,
    /// How long that may take.
    pub wall: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self { simulated: Span::seconds(300), wall: Span::seconds(60) }
    }
}

/// A hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSpec {
    /// Its name.
    pub name: String,
    /// What its link is like, by name. `None`: it has no limits of its own.
    #[serde(default)]
    pub link: Option<String>,
    /// How long its processor works for each handshake, one after the other.
    #[serde(default)]
    pub handshake: Span,
    /// How many connections may be on their way through the handshake. `None`: as the product has it.
    #[serde(default)]
    pub unauthenticated: Option<Count>,
}

/// Devices or services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// The name. With a count, the names are this with `-0`, `-1` and so on.
    pub name: String,
    /// How many of them.
    #[serde(default)]
    pub count: Option<Count>,
    /// Who they prove to be, if not by their own name: two with one identity.
    #[serde(default)]
    pub identity: Option<String>,
    /// Which hubs they know, by name, the first one first. Empty: all, in the order of the file.
    #[serde(default)]
    pub hubs: Vec<String>,
    /// What their link is like, by name.
    #[serde(default)]
    pub link: Option<String>,
    /// How they connect.
    #[serde(default)]
    pub transport: Transport,
    /// What they must pass, by name.
    #[serde(default)]
    pub proxy: Option<String>,
    /// When they start.
    #[serde(default)]
    pub start: Range<Span>,
}

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxySpec {
    /// Its name.
    pub name: String,
    /// What its link is like, by name.
    #[serde(default)]
    pub link: Option<String>,
}

/// How an endpoint connects to a hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Whatever works, as the product has it.
    #[default]
    Auto,
    /// TLS over TCP.
    Tls,
    /// QUIC.
    Quic,
    /// WebSocket over TLS.
    WebSocket,
}

/// What sessions between services and devices are like. What is left out is as the engine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionSpec {
    /// Whether they outlive their pipes.
    pub resumable: bool,
    /// Whether what is not acknowledged goes out right behind RESUME.
    pub optimistic_resend: bool,
    /// A service closes its session as soon as it has said everything, rather than once all has arrived.
    pub hasty_close: bool,
    /// See the engine's configuration.
    pub stream_window: Option<Size>,
    /// See the engine's configuration.
    pub session_window: Option<Size>,
    /// See the engine's configuration.
    pub send_buffer: Option<Size>,
    /// See the engine's configuration.
    pub max_streams: Option<Count>,
    /// See the engine's configuration.
    pub idle_timeout: Option<Span>,
    /// See the engine's configuration.
    pub keep_alive: Option<Span>,
    /// See the engine's configuration.
    pub close_timeout: Option<Span>,
    /// See the engine's configuration.
    pub grace: Option<Span>,
}

impl Default for SessionSpec {
    fn default() -> Self {
        Self {
            resumable: true,
            optimistic_resend: true,
            hasty_close: false,
            stream_window: None,
            session_window: None,
            send_buffer: None,
            max_streams: None,
            idle_timeout: None,
            keep_alive: None,
            close_timeout: None,
            grace: None,
        }
    }
}

/// What a service does with a device: streams, each of so many rounds. In a round the service says something and the
/// device answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkSpec {
    /// Its name, for people.
    pub name: String,
    /// Which service, or which group of them, each of which does it.
    pub service: String,
    /// Which device, or which group of them: each service does it with each.
    pub device: String,
    /// How many streams.
    #[serde(default = "one")]
    pub streams: Range<Count>,
    /// When each is opened.
    #[serde(default)]
    pub start: Range<Span>,
    /// How many rounds each has.
    #[serde(default = "one")]
    pub rounds: Range<Count>,
    /// How many bytes the service says in a round.
    #[serde(default)]
    pub up: Range<Size>,
    /// How many bytes the device answers.
    #[serde(default)]
    pub down: Range<Size>,
    /// How long the service waits before each round.
    #[serde(default)]
    pub think: Range<Span>,
    /// The device does not wait for the service's words.
    #[serde(default)]
    pub both_ways: bool,
    /// It is urgent, as keystrokes are.
    #[serde(default)]
    pub interactive: bool,
    /// Of how many of the streams that are neither reset nor stopped the service finishes its half with its last words, and
    /// reads on; of the others it does once it has read all. `None`: of all on `des`, of those with `both_ways` on `turmoil`.
    #[serde(default)]
    pub half_closes: Option<Share>,
    /// How many of the streams the service resets in the middle.
    #[serde(default)]
    pub resets: Share,
    /// How many of the streams the service stops reading in the middle.
    #[serde(default)]
    pub stops: Share,
    /// How many of the streams the service finishes, and resets soon after that: perhaps too late.
    #[serde(default)]
    pub late_resets: Share,
    /// How much is read at once at most. `None`: all that there is; or, by who reads slowly, 4 KiB.
    #[serde(default)]
    pub sips: Option<Size>,
    /// The streams share a session that outlives its tunnels. To `des` all do.
    #[serde(default)]
    pub session: bool,
    /// How fast the device reads. `None`: at once.
    #[serde(default)]
    pub device_reads: Option<Rate>,
    /// How fast the service reads. `None`: at once.
    #[serde(default)]
    pub service_reads: Option<Rate>,
}

fn one() -> Range<Count> {
    Range::exactly(Count(1))
}

/// What goes wrong, and with whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// What.
    pub kind: FaultKind,
    /// With whom: a host, or a group, of which one is drawn, unless `each`.
    pub host: String,
    /// With each of the group.
    #[serde(default)]
    pub each: bool,
    /// When.
    pub at: Range<Span>,
    /// For how long. `None`: to the end; what is over at once has none.
    #[serde(default, rename = "for")]
    pub lasts: Option<Range<Span>>,
    /// How often; each time is drawn anew.
    #[serde(default = "one")]
    pub times: Range<Count>,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The host's connections break, which both ends notice, and there are no others for as long as it lasts.
    Cut,
    /// What the host sends is lost, for as long as it lasts, and nobody is told. A connection of TCP sends it again, so that
    /// there it waits, as with `hold-up`.
    CutUp,
    /// What the host is sent is lost, for as long as it lasts, and nobody is told. On a connection of TCP it waits, as with
    /// `hold-down`.
    CutDown,
    /// What the host sends and is sent waits, for as long as it lasts; then it goes on its way.
    Hold,
    /// What the host sends waits.
    HoldUp,
    /// What the host is sent waits.
    HoldDown,
    /// The host's process dies. Its kernel says so to whoever is connected. Then it is started anew.
    Crash,
    /// The host is gone at once, and nobody says so. Then it is started anew.
    PowerLoss,
    /// The host has another address from now on. It knows; who it is connected to does not.
    Move,
    /// No datagrams to or from the host.
    BlockUdp,
    /// A firewall lets the host's TLS through only if it is of a web browser's kind; links that are not end at once.
    BlockTls,
    /// The applications of the host read nothing.
    SlowReader,
    /// The host stands still, while its clock goes on.
    Suspend,
    /// The host's clock is ahead from now on, by as much as it is said to last.
    ClockJump,
    /// A hub asks all to come back later, and closes their links.
    Drain,
    /// The host's credentials are not valid any more.
    Expire,
    /// A device ends its sessions gently: what was begun may finish, and what comes later is refused.
    DrainSessions,
    /// A device's application closes its sessions.
    CloseSessions,
    /// Somebody asks a device for its sessions with what their pipes have begun with before.
    Replay,
    /// Somebody asks a device for its sessions with a proof of their own making.
    Forge,
    /// What the pipes that a host's sessions have left had under way arrives now, and then their ends.
    LateBytes,
}

impl FaultKind {
    /// Whether it is over as soon as it has begun.
    pub fn is_over_at_once(self) -> bool {
        match self {
            Self::Move
            | Self::Drain
            | Self::Expire
            | Self::DrainSessions
            | Self::CloseSessions
            | Self::Replay
            | Self::Forge
            | Self::LateBytes => true,
            Self::Cut
            | Self::CutUp
            | Self::CutDown
            | Self::Hold
            | Self::HoldUp
            | Self::HoldDown
            | Self::Crash
            | Self::PowerLoss
            | Self::BlockUdp
            | Self::BlockTls
            | Self::SlowReader
            | Self::Suspend
            | Self::ClockJump => false,
        }
    }
}

/// What must hold. What is not said need not, but for what must always hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// All that the work says is done: every stream comes to its end.
    pub done: bool,
    /// No stream fails, though it was neither reset nor stopped.
    pub no_failure: bool,
    /// At least one stream fails, and says so.
    pub some_failure: bool,
    /// The longest that a stream which has something to say may be without progress.
    pub stall_below: Option<Span>,
    /// No session is resumed more often.
    pub resumes_at_most: Option<Count>,
    /// Sessions are resumed at least so often, all together: that the faults did anything.
    pub resumes_at_least: Option<Count>,
    /// What a session holds of what has come and was not read.
    pub memory_below: Option<Size>,
    /// All devices are online in the end.
    pub all_online: bool,
    /// By when after the last fault all devices are online again.
    pub online_within: Option<Span>,
    /// How long a round of interactive streams takes at most, for 99 in 100.
    pub interactive_below: Option<Span>,
    /// How often endpoints may connect, all together.
    pub links_at_most: Option<Count>,
    /// How large the window of some stream becomes at least.
    pub window_at_least: Option<Size>,
    /// With which errors of the transport sessions may end, by their codes. Any other is a violation.
    pub transport_errors: Vec<u64>,
    /// When all is done, nothing is left.
    pub no_residue: bool,
    /// What must happen in some run of a sweep, by name.
    pub sometimes: Vec<String>,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            done: true,
            no_failure: false,
            some_failure: false,
            stall_below: None,
            resumes_at_most: None,
            resumes_at_least: None,
            memory_below: None,
            all_online: false,
            online_within: None,
            interactive_below: None,
            links_at_most: None,
            window_at_least: None,
            transport_errors: Vec::new(),
            no_residue: true,
            sometimes: Vec::new(),
        }
    }
}
