//! One report: the product beside other products, on the same work, over the same lines of the link laboratory.
//!
//! In: [`Options`], which are checked before anything is measured. Out: a folder with [`results::Report`] as JSON, all samples
//! as CSV, and a page that shows them.

mod files;
mod interrupt;
mod load;
mod machine;
pub mod options;
mod pace;
mod page;
pub mod results;
mod turn;
mod ways;
pub mod workload;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::ProgressBar;
use towline::Transport;
use towline_sim::profile::Profile;
use towline_sim::scenario::Share;

use crate::lab::stage::{Stage, find, round_trip};
use crate::lab::{self, TRIES, in_time};
use crate::process;
use crate::report;
use crate::tunnel::peers::{self, Missing};
use files::Folder;
use interrupt::End;
pub use interrupt::INTERRUPTED;
use options::Options;
use pace::Pace;
use results::{Interrupted, Line, Report, WayResult};
use turn::{Amount, Samples, lossy_turn, turn};
use ways::Way;
use workload::Workload;

/// What of the packets a lossy line loses, each way: 1 %, in millionths.
const LOSS: Share = Share(10_000);

/// What three turns at once do to a fast line.
const SHARED: &str =
    "three turns at once keep each other from the processors: without --quick rates are higher";

/// A line that ways are measured over, and what is done there.
struct Course {
    name: String,
    profile: Profile,
    /// How long a turn takes with `--quick`, if nothing disturbs it.
    planned: Duration,
    turn: fn(&Stage, &Way, Amount, &mut Vec<Samples>) -> anyhow::Result<()>,
}

/// One turn: which course, which way, and in which round.
#[derive(Clone, Copy)]
struct Turn {
    course: usize,
    way: usize,
    round: usize,
}

/// Measures, and writes the report. If a signal interrupts that, the report is of the turns that were over by then, and says
/// so. If there was none, nothing is written, and this process ends. With [`Options::limit`], what is not over by then has
/// failed.
///
/// # Errors
///
/// The system lacks something, which the error names; or the report cannot be written.
pub fn run(options: &Options, folder: Folder) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let (ways, missing) = ways(options);
    let mut report = Report::new(options, missing, &ways)?;
    let queue = Arc::new(Queue::new(options, courses(options)?, ways, begun));
    let working = queue.clone();
    let limit = options.limit.map(|limit| limit.saturating_sub(begun.elapsed()));
    let end = interrupt::wait_for(move || working.take_all(), limit)?;
    let mut results = queue.end();
    let taken = results.iter().flatten().map(|way| way.turns).sum();
    if end == End::Interrupted && taken == 0 {
        process::end_all();
        eprintln!("interrupted before a turn was over: nothing is written");
        std::process::exit(INTERRUPTED);
    }
    report.interrupted = (end == End::Interrupted).then_some(Interrupted { taken, of: queue.of });
    if let (End::OutOfTime, Some(limit)) = (end, options.limit) {
        results.iter_mut().flatten().for_each(|way| way.give_up_after(limit));
    }
    let lines = queue.courses.iter().zip(results);
    report.lines = lines.map(|(course, ways)| Line::new(&course.name, &course.profile, ways)).collect();
    report.took_s = begun.elapsed().as_secs_f64().round();
    let written = files::write(&report, folder);
    if end != End::Over {
        // There are turns that still run.
        process::end_all();
    }
    written.map(|()| report)
}

/// What is measured, the turns that are still to be taken, and what those that were have given.
struct Queue {
    options: Options,
    courses: Vec<Course>,
    ways: Vec<Way>,
    /// How many turns there were in the beginning.
    of: usize,
    turns: Mutex<VecDeque<Turn>>,
    results: Mutex<Vec<Vec<WayResult>>>,
    pace: Mutex<Pace>,
    begun: Instant,
    bar: ProgressBar,
}

impl Queue {
    fn new(options: &Options, courses: Vec<Course>, ways: Vec<Way>, begun: Instant) -> Self {
        let results_over =
            |course: &Course| ways.iter().map(|way| WayResult::new(way, &course.profile)).collect();
        let results: Vec<Vec<WayResult>> = courses.iter().map(results_over).collect();
        let mut turns = turns(options, &courses, ways.len());
        turns.retain(|turn| results[turn.course][turn.way].goes_on());
        let (of, bar) = (turns.len(), report::progress(turns.len()));
        let lines = courses.iter().enumerate().map(|(index, course)| {
            (course.planned, turns.iter().filter(|turn| turn.course == index).count())
        });
        let pace = Mutex::new(Pace::new(options.limit, options.at_once(), lines));
        let (turns, results) = (Mutex::new(turns), Mutex::new(results));
        Self { options: options.clone(), courses, ways, of, turns, results, pace, begun, bar }
    }

    fn turns(&self) -> MutexGuard<'_, VecDeque<Turn>> {
        self.turns.lock().expect("nobody panics with it")
    }

    fn results(&self) -> MutexGuard<'_, Vec<Vec<WayResult>>> {
        self.results.lock().expect("nobody panics with it")
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().expect("nobody panics with it")
    }

    /// Takes all turns, several at once if that is asked for.
    fn take_all(&self) -> anyhow::Result<()> {
        thread::scope(|scope| {
            let workers: Vec<_> =
                (0..self.options.at_once()).map(|_| scope.spawn(|| self.take_turns())).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
        })
    }

    /// Takes turns until there are none.
    fn take_turns(&self) -> anyhow::Result<()> {
        loop {
            let Some(turn) = self.turns().pop_front() else { return Ok(()) };
            let (course, way) = (&self.courses[turn.course], &self.ways[turn.way]);
            self.bar.set_message(format!("{}: {}", course.name, way.name()));
            if self.results()[turn.course][turn.way].goes_on() {
                let taken = self.take_in_time(turn);
                if taken.is_err() && self.results().iter().flatten().all(WayResult::is_empty) {
                    // It is the system that lacks something: nobody else needs to try.
                    self.turns().clear();
                    return taken.map(|_| ());
                }
                self.results()[turn.course][turn.way].add(taken);
            }
            self.pace().over(turn.course);
            self.bar.inc(1);
        }
    }

    /// One turn; again if packets were late, and there is time.
    fn take_in_time(&self, turn: Turn) -> anyhow::Result<Taken> {
        let (course, way) = (&self.courses[turn.course], &self.ways[turn.way]);
        let take = || {
            let begun = Instant::now();
            let taken = take(course, way, &self.options, turn.round)?;
            // What fails early says nothing about how long others take.
            if taken.1.is_none() {
                self.pace().taken(turn.course, begun.elapsed());
            }
            Ok(taken)
        };
        let is_enough = |(_, _, line): &(_, _, lab::Report)| {
            if line.is_punctual() || !self.pace().has_time(self.begun.elapsed()) {
                return true;
            }
            self.bar.set_message(format!("{}: {}, again", course.name, way.name()));
            false
        };
        let ((samples, failed, line), tries) = in_time(take, is_enough)?;
        if line.is_punctual() {
            return Ok(Taken { samples, failed, line, late: tries - 1 });
        }
        let mut why = if tries == TRIES {
            format!("packets were late {TRIES} times in a row: is the machine busy?")
        } else {
            "packets were late, and --quick leaves no time for another turn: is the machine busy?".into()
        };
        if let Some(failed) = failed {
            why = format!("{why} besides, {failed}");
        }
        Ok(Taken { samples: Vec::new(), failed: Some(why), line, late: tries })
    }

    /// Lets no more turns begin. Returns what those that are over have given.
    fn end(&self) -> Vec<Vec<WayResult>> {
        self.turns().clear();
        self.bar.finish_and_clear();
        self.results().clone()
    }
}

/// What a turn gave, why it ended early if it did, and how its line has done.
struct Taken {
    samples: Vec<Samples>,
    failed: Option<String>,
    line: lab::Report,
    /// How often it was taken before, and thrown away since packets were late.
    late: usize,
}

/// One turn, on a line of its own. All ways of a round have the same draws.
fn take(
    course: &Course,
    way: &Way,
    options: &Options,
    round: usize,
) -> anyhow::Result<(Vec<Samples>, Option<String>, lab::Report)> {
    let seed = options.seed.wrapping_add(round as u64);
    let stage = Stage::start(&course.profile, seed).with_context(|| format!("the line {}", course.name))?;
    let mut samples = Vec::new();
    let amount = options.amount(round_trip(&course.profile));
    let done = (course.turn)(&stage, way, amount, &mut samples);
    Ok((samples, done.err().map(|error| format!("{error:#}")), stage.stop()?))
}

/// All turns, in their order: every round has every way once, on each line, and begins with another one. If several are taken at
/// once, those of the slowest line come first: at the end nobody waits for a long one then.
fn turns(options: &Options, courses: &[Course], ways: usize) -> VecDeque<Turn> {
    let mut order: Vec<usize> = (0..courses.len()).collect();
    if options.at_once() > 1 {
        order.sort_by_key(|&course| Reverse(courses[course].planned));
    }
    let rounds =
        || (0..options.rounds).flat_map(move |round| (0..ways).map(move |way| (round, (way + round) % ways)));
    let turns_over = |course| rounds().map(move |(round, way)| Turn { course, way, round });
    order.into_iter().flat_map(turns_over).collect()
}

/// The lines, and each of them with losses.
fn courses(options: &Options) -> anyhow::Result<Vec<Course>> {
    let mut courses = Vec::new();
    for name in &options.profiles {
        let profile = find(name)?;
        let planned = options.amount(round_trip(&profile)).duration(round_trip(&profile));
        let mut lossy = profile.clone();
        courses.push(Course { name: name.clone(), profile, planned, turn });
        if options.has_wide() {
            (lossy.up.loss, lossy.down.loss) = (LOSS, LOSS);
            let name = format!("{name}, 1 % lost");
            courses.push(Course { name, profile: lossy, planned, turn: lossy_turn });
        }
    }
    Ok(courses)
}

/// The ways that there are to measure, and the peers that cannot be.
fn ways(options: &Options) -> (Vec<Way>, Vec<Missing>) {
    let mut ways = vec![Way::Direct];
    for &transport in &options.transports {
        ways.extend([Way::Tunnels(transport), Way::EndToEnd(transport)]);
    }
    if options.transports.contains(&Transport::Quic) {
        ways.push(Way::BareQuic);
    }
    let (there, missing) = peers::installed(&options.peers);
    ways.extend(there.into_iter().map(Way::Peer));
    (ways, missing)
}

/// Whether anything of it is worth less than it seems, in words.
pub fn warnings(report: &Report) -> Vec<String> {
    let slow = cfg!(debug_assertions)
        .then(|| "this program was built without --release: figures of speed are lower".into());
    let few =
        (report.rounds < 3).then(|| format!("{} rounds: there are no ranges to speak of", report.rounds));
    let shared = report
        .lines
        .iter()
        .filter(|line| report.quick && line.is_fast)
        .map(|line| format!("{}: {SHARED}", line.profile));
    let failed = report.lines.iter().flat_map(|line| {
        let failed = line.ways.iter().filter_map(|way| Some((&way.way, way.failed.as_ref()?)));
        failed.map(|(way, why)| format!("{}: {way} failed: {why}", line.profile))
    });
    let missing = report.missing.iter().map(|missing| {
        format!("missing: {}: there is no {} ({})", missing.peer, missing.program, missing.install)
    });
    let impossible = report.lines.iter().flat_map(|line| {
        let impossible = line.ways.iter().filter_map(|way| Some((&way.way, way.impossible?)));
        impossible.map(|(way, why)| format!("{}: not measured: {way}: {why}", line.profile))
    });
    let interrupted = report.interrupted.map(|interrupted| interrupted.to_string());
    interrupted
        .into_iter()
        .chain(slow)
        .chain(few)
        .chain(shared)
        .chain(impossible)
        .chain(failed)
        .chain(missing)
        .collect()
}

/// Says on the terminal what was measured.
pub fn print(report: &Report) {
    for line in &report.lines {
        println!("{}: {} ({})", line.profile, line.about, line.summary());
        if let Some(late) = &line.line {
            println!(
                "in the worst turn packets were late by {:.0} us at p50, {:.0} us at p99, and unseen before for {:.0} us\n",
                late.late_p50_us, late.late_p99_us, late.unseen_p99_us
            );
        }
        println!("{}\n", table(line));
    }
    println!(
        "{} rounds: the middle one of the first figure; min..max and all samples are in the report",
        report.rounds
    );
    warnings(report).iter().for_each(|warning| println!("{warning}"));
}

fn table(line: &Line) -> comfy_table::Table {
    let measured = |workload: &Workload| line.ways.iter().any(|way| way.measured(*workload).is_some());
    let workloads: Vec<_> = Workload::ALL.into_iter().filter(measured).collect();
    let mut table = report::table(["WAY", "LEGS"], 1);
    let head = workloads.iter().map(|workload| format!("{} {}", workload.name(), workload.unit().text()));
    table.set_header(["WAY".to_owned(), "LEGS".to_owned()].into_iter().chain(head));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    for way in &line.ways {
        let cells = workloads.iter().map(|&workload| {
            let figure = way.measured(workload).and_then(|measured| measured.figures.first());
            figure.map_or("-".into(), |figure| crate::stats::short(figure.spread.median))
        });
        table.add_row([way.way.clone(), way.legs.to_string()].into_iter().chain(cells));
    }
    table
}
