//! What a report holds. It is written as it stands, so its names are those of the JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use towline_sim::link::LinkSpec;
use towline_sim::profile::Profile;

use super::Taken;
use super::machine::{self, Machine, Versions};
use super::options::Options;
use super::ways::Way;
use super::workload::{self, About, Figure, Workload};
use crate::lab;
use crate::lab::stage::rates;
pub use crate::tunnel::peers::Missing;

/// How fast a line may be of which three are carried at once: less than a third of what one may have alone.
const FAST_MBIT_PER_S: f64 = 50.0;

/// All that was measured, and how.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When it was begun, in UTC.
    pub date: String,
    /// How it was asked for.
    pub command: String,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// What of it was done, if it was interrupted.
    pub interrupted: Option<Interrupted>,
    /// Whether less of everything was done.
    pub quick: bool,
    /// How many rounds there were.
    pub rounds: usize,
    /// How many keys a workload of a round had.
    pub keys: usize,
    /// From what everything drawn on the lines was drawn.
    pub seed: u64,
    /// The commit of the source tree, if that can be known.
    pub commit: Option<String>,
    /// Where it was measured.
    pub machine: Machine,
    /// Of what.
    pub versions: Versions,
    /// How it is done, in paragraphs.
    pub method: Vec<String>,
    /// What is done over each way.
    pub workloads: Vec<About>,
    /// What was not measured, and how to change that.
    pub missing: Vec<Missing>,
    /// What was measured.
    pub lines: Vec<Line>,
}

/// How much of a run was done when it was interrupted.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Interrupted {
    /// How many turns were over. What others had measured by then is lost.
    pub taken: usize,
    /// How many there were to be.
    pub of: usize,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted: there are only {} of {} turns", self.taken, self.of)
    }
}

/// A line, and the ways over it.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub profile: String,
    /// Whose line it is.
    pub about: String,
    /// Where its figures come from.
    pub source: String,
    /// From the near end.
    pub up: LinkSpec,
    /// To the near end.
    pub down: LinkSpec,
    /// In Mbit/s: up and down.
    pub rates_mbit_per_s: [f64; 2],
    /// Whether it is so fast that turns at the same time keep each other from the processors.
    pub is_fast: bool,
    /// How it has done: in the worst turn, and in all together.
    pub line: Option<lab::Report>,
    /// The ways.
    pub ways: Vec<WayResult>,
}

/// What was measured over one way.
#[derive(Clone, Debug, Serialize)]
pub struct WayResult {
    /// Which.
    pub way: String,
    /// How many of its legs are encrypted.
    pub legs: u8,
    /// Whether it is the product, another product, or no tunnel.
    pub of: Whose,
    /// What it is made of.
    pub note: &'static str,
    /// How the line has done in its turns.
    pub line: Option<lab::Report>,
    /// How many turns it has had, those included that have failed.
    pub turns: usize,
    /// How many turns were thrown away, and mostly taken again, since packets were late.
    pub late_turns: usize,
    /// Why there is no such way over this line, if there is none: that is no failure.
    pub impossible: Option<&'static str>,
    /// Why not all was measured, if it was not.
    pub failed: Option<String>,
    /// What was.
    pub measured: Vec<Measured>,
}

/// Whose a way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    /// Nobody's: there is no tunnel.
    Nobody,
    /// This product's.
    Towline,
    /// Another product's.
    Peer,
}

/// A workload over a way.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Which.
    pub workload: Workload,
    /// What its samples come to.
    pub figures: Vec<Figure>,
    /// All samples, round by round, in the order in which they were taken.
    pub rounds: Vec<Vec<f64>>,
}

impl Report {
    /// One with everything but what is still to be measured.
    pub(super) fn new(options: &Options, missing: Vec<Missing>, ways: &[Way]) -> anyhow::Result<Self> {
        let is_done = |about: &About| options.has_wide() || !about.workload.is_wide();
        Ok(Self {
            date: machine::now()?,
            command: machine::command(),
            took_s: 0.0,
            interrupted: None,
            quick: options.quick,
            rounds: options.rounds,
            keys: options.keys,
            seed: options.seed,
            commit: machine::commit(),
            machine: Machine::this()?,
            versions: Versions::of(ways),
            method: METHOD.iter().copied().map(str::to_owned).collect(),
            workloads: Workload::ALL.map(Workload::about).into_iter().filter(is_done).collect(),
            missing,
            lines: Vec::new(),
        })
    }
}

impl Line {
    pub(super) fn new(name: &str, profile: &Profile, mut ways: Vec<WayResult>) -> Self {
        ways.iter_mut().for_each(WayResult::summarize);
        if let Some(without) = ways.iter().find(|way| way.of == Whose::Nobody).cloned() {
            ways.iter_mut().for_each(|way| way.compare_with(&without));
        }
        let rates_mbit_per_s = rates(profile).map(|rate| rate as f64 / 1e6);
        Self {
            profile: name.into(),
            about: profile.about.clone(),
            source: profile.source.clone(),
            up: profile.up.clone(),
            down: profile.down.clone(),
            rates_mbit_per_s,
            is_fast: rates_mbit_per_s.iter().any(|&rate| rate > FAST_MBIT_PER_S),
            line: ways.iter().filter_map(|way| way.line).reduce(lab::Report::and),
            ways,
        }
    }

    /// The line in one phrase.
    pub fn summary(&self) -> String {
        let [up, down] = self.rates_mbit_per_s;
        let delay = |link: &LinkSpec| link.delay.0 as f64 / 1e6;
        format!("{up} Mbit/s up, {down} down, {} ms there and back", delay(&self.up) + delay(&self.down))
    }
}

impl WayResult {
    pub(super) fn new(way: &Way, line: &Profile) -> Self {
        let of = match way {
            Way::Direct => Whose::Nobody,
            Way::Tunnels(_) | Way::EndToEnd(_) => Whose::Towline,
            Way::BareQuic | Way::Peer(_) => Whose::Peer,
        };
        let (legs, note) = (way.legs(), way.note());
        Self {
            way: way.name(),
            legs,
            of,
            note,
            line: None,
            turns: 0,
            late_turns: 0,
            impossible: way.impossible(line),
            failed: None,
            measured: Vec::new(),
        }
    }

    /// Whether there is more to be measured over it.
    pub(super) fn goes_on(&self) -> bool {
        self.impossible.is_none() && self.failed.is_none()
    }

    /// Whether nothing was measured, and nothing failed.
    pub(super) fn is_empty(&self) -> bool {
        self.measured.is_empty() && self.failed.is_none()
    }

    /// No more will come of it: what has had no turn by now has failed.
    pub(super) fn give_up_after(&mut self, limit: Duration) {
        if self.goes_on() && self.turns == 0 {
            self.failed = Some(format!(
                "its turn was not over, or not taken again after packets were late, when --quick ended after {} s: name fewer lines, \
                 transports or peers",
                limit.as_secs()
            ));
        }
    }

    /// Adds what a round gave, or why it gave nothing.
    pub(super) fn add(&mut self, taken: anyhow::Result<Taken>) {
        self.turns += 1;
        let Taken { samples, failed, line, late } = match taken {
            Ok(taken) => taken,
            Err(error) => return self.failed = Some(format!("{error:#}")),
        };
        self.failed = failed;
        self.late_turns += late;
        if line.is_punctual() {
            self.line = Some(self.line.map_or(line, |earlier| earlier.and(line)));
        }
        for (workload, samples) in samples {
            match self.measured.iter_mut().find(|measured| measured.workload == workload) {
                Some(measured) => measured.rounds.push(samples),
                None => {
                    self.measured.push(Measured { workload, figures: Vec::new(), rounds: vec![samples] });
                }
            }
        }
    }

    /// What a workload gave over it.
    pub fn measured(&self, workload: Workload) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.workload == workload)
    }

    fn summarize(&mut self) {
        let alone = self.measured(Workload::Key).map(|key| key.rounds.clone());
        for measured in &mut self.measured {
            measured.figures = measured.workload.figures(&measured.rounds);
            if let Some(alone) = alone.as_ref().filter(|_| measured.workload.is_key_beside()) {
                measured.figures.extend(workload::added(alone, &measured.rounds));
            }
        }
    }

    fn compare_with(&mut self, without: &Self) {
        for measured in &mut self.measured {
            let base = without.measured(measured.workload);
            for (index, figure) in measured.figures.iter_mut().enumerate() {
                let base = base.and_then(|base| base.figures.get(index)).map(|base| base.spread.median);
                figure.against_no_tunnel =
                    base.filter(|&base| base > 0.0).map(|base| figure.spread.median / base);
            }
        }
    }
}

/// How it is done.
const METHOD: [&str; 7] = [
    "Two networks of one machine (network namespaces) with the kernel's own TCP and UDP, and between them an emulated line: a \
     thread that gives each packet on when it would have arrived. Rate, delay, jitter, queue and losses are those of the \
     profile. How late packets were given on is recorded; a turn in which it was more than 1 ms for one in a hundred, or in \
     which a kernel dropped a packet, is thrown away and taken again; after three such turns a way has no figures. With --quick \
     it is taken again only where that leaves time for all others, unless --rounds or --keys are given.",
    "At the near end is whoever calls. At the far end are the meeting point (the hub, or the peer's server), the device, and \
     the target, a plain TCP server. So the line is between the caller and the meeting point, and what is beyond it costs \
     no time on the way.",
    "All ways do the same work through a local TCP port, with TCP_NODELAY, from the same program. CUBIC for all on the line. The target is \
     in that program too, so that one clock sees both ends.",
    "Ways take turns: each round measures every way once. Each turn has networks and a line of its own, with the same seed for \
     all of a round, and in it the way is started anew; the processes of a peer live for that turn only. With --quick, three \
     turns are taken at the same time. A figure is the middle one of the rounds, with the \
     least and the most of them; with an even number of rounds the lower of the two in the middle. Where two ranges overlap, it \
     is a tie. All samples are in report.json and samples.csv.",
    "Keys, messages and requests begin at fixed times (33, 20 and 50 ms apart), whether or not earlier ones are answered: a way \
     that stands still for a second delays all that began in it, and is not asked less.",
    "Compare like with like: the number of encrypted legs is given for each way. Two legs are caller to meeting point and \
     meeting point to device, with the meeting point's process between them; one leg is between caller and device directly, and \
     lacks a hop. What is not encrypted at all is here as a measure, and not as a rival.",
    "The product runs in the program that measures, with its near end, hub and device; peers are processes of their own. Keys and \
     certificates are made for the run: Ed25519 for the product and ssh, P-256 for the others.",
];
