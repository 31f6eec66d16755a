//! What is measured, as it is asked for on the command line; all of it is checked before anything begins.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use towline::Transport;
use towline_sim::profile;

use super::files::{self, Folder};
use super::turn::Amount;
use crate::report;
use crate::tunnel::peers::{self, Peer, Peers};

/// How long it may take with `--quick`, unless it is told how much to do: three minutes, with what comes after that.
const QUICK: Duration = Duration::from_secs(174);

/// For how many lines that is enough; each further one has as much as one of them.
const QUICK_LINES: u32 = 2;

/// What `compare` is told.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Over which lines, by commas: lan, dsl, lte, 3g, satellite, factory-wifi, office, slow-line,
    /// long-line, lossy-line
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "lte", value_parser = known_profile)]
    profile: Vec<String>,
    /// Over which transports the caller has its link to the hub, by commas: tls, quic, wss
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "tls,quic,wss", value_parser = transport)]
    transports: Vec<Transport>,
    /// Beside which peers, by commas: all, none, or of socat, ssh, rathole, penguin, bore
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "all", value_parser = Peers::named)]
    peers: Vec<Peers>,
    /// How many rounds; the ways take turns [default: 3, or 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// How many keys are typed in a round, for each workload that has keys [default: 100, or 24 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    keys: Option<u16>,
    /// Draw what is lost on the lines from this seed, and not from a fresh one
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Less of everything, three turns at the same time, and none of the workloads with many connections: below 3 minutes for
    /// one or two lines, 1.5 more for each further one. A turn in which packets were late is taken again only if there is time, and
    /// what is not over by then has failed; with --rounds or --keys it takes as long as it takes
    #[arg(long)]
    quick: bool,
    /// Where to write the report: a folder that there is not, or is empty, or has an earlier report
    #[arg(short, long, value_name = "FOLDER", default_value = "report")]
    out: PathBuf,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Over which lines, by their names.
    pub profiles: Vec<String>,
    /// Over which transports the caller has its link to the hub.
    pub transports: Vec<Transport>,
    /// Beside whom.
    pub(crate) peers: Vec<Peer>,
    /// How many rounds there are; the ways take turns.
    pub rounds: usize,
    /// How many keys are typed for each workload of a round.
    pub keys: usize,
    /// What is lost on the lines, and how their delay varies, is drawn from this.
    pub seed: u64,
    /// Whether less is measured.
    pub quick: bool,
    /// How long it may take; `None` if as long as it takes.
    pub limit: Option<Duration>,
}

impl CompareArgs {
    /// What it is told, with `seed` to make one where none is given; and the folder for the report.
    ///
    /// # Errors
    ///
    /// The folder cannot be written, or holds something else.
    pub fn check(&self, seed: impl FnOnce(Option<u64>) -> u64) -> anyhow::Result<(Options, Folder)> {
        let folder = files::prepare(&self.out)?;
        let is_as_usual = self.rounds.is_none() && self.keys.is_none();
        let mut options = Options {
            profiles: self.profile.clone(),
            transports: self.transports.clone(),
            peers: peers::list(&self.peers),
            rounds: self.rounds.unwrap_or(if self.quick { 1 } else { 3 }).into(),
            keys: self.keys.unwrap_or(if self.quick { 24 } else { 100 }).into(),
            seed: seed(self.seed),
            quick: self.quick,
            limit: None,
        };
        // Who is named twice is measured once.
        report::once(&mut options.profiles, |name| name.clone());
        report::once(&mut options.transports, ToString::to_string);
        let lines = u32::try_from(options.profiles.len()).unwrap_or(u32::MAX).max(QUICK_LINES);
        options.limit = (self.quick && is_as_usual).then(|| (QUICK / QUICK_LINES).saturating_mul(lines));
        Ok((options, folder))
    }
}

impl Options {
    /// How much is done in a turn over a line that takes so long there and back, which windows take some of to grow.
    pub(crate) fn amount(&self, round_trip: Duration) -> Amount {
        let (least, round_trips) = if self.quick { (1500, 3) } else { (5000, 12) };
        let bulk = Duration::from_millis(least) + round_trips * round_trip;
        Amount { keys: self.keys, requests: self.keys.div_ceil(4), bulk, has_wide: self.has_wide() }
    }

    /// Whether there is time for the workloads that are about many connections.
    pub(crate) fn has_wide(&self) -> bool {
        !self.quick
    }

    /// How many turns there are at the same time.
    pub(crate) fn at_once(&self) -> usize {
        if self.quick { 3 } else { 1 }
    }
}

fn known_profile(name: &str) -> Result<String, String> {
    let known: Vec<_> = profile::names().collect();
    if known.contains(&name) {
        return Ok(name.into());
    }
    Err(format!("there is no profile {name:?}: there are {}", known.join(", ")))
}

/// The transport that is called so on the command line.
///
/// # Errors
///
/// There is none; the error has those that there are.
pub fn transport(name: &str) -> Result<Transport, String> {
    match name {
        "tls" => Ok(Transport::Tls),
        "quic" => Ok(Transport::Quic),
        "wss" | "websocket" => Ok(Transport::WebSocket),
        _ => Err(format!("there is no transport {name:?}: there are tls, quic, wss")),
    }
}
