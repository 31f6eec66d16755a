//! One report: the product beside other products, on the same work, over the same lines of the link laboratory.
//!
//! In: [`Options`], which are checked before anything is measured. Out: a folder with [`results::Report`] as JSON, all samples
//! as CSV, and a page that shows them.

mod files;
mod load;
mod machine;
pub mod options;
mod page;
pub mod results;
mod turn;
mod ways;
pub mod workload;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::Context;
use indicatif::ProgressBar;
use tokio::signal::unix::{SignalKind, signal};
use towline_sim::profile::Profile;
use towline_sim::scenario::Share;

use crate::lab;
use crate::lab::stage::{Stage, find, round_trip};
use crate::process;
use crate::report;
use crate::tunnel::peers::{self, Missing};
use files::Folder;
use options::Options;
use results::{Line, Report, WayResult};
use turn::{Amount, Samples, lossy_turn, turn};
use ways::Way;
use workload::Workload;

/// What of the packets a lossy line loses, each way: 1 %, in millionths.
const LOSS: Share = Share(10_000);

/// How often a turn is taken in which packets were late, before its way has no figures.
const TRIES: usize = 3;

/// What a process is ended with by an interrupt.
const INTERRUPTED: i32 = 130;

/// A line that ways are measured over, and what is done there.
struct Course {
    name: String,
    profile: Profile,
    turn: fn(&Stage, &Way, Amount, &mut Vec<Samples>) -> anyhow::Result<()>,
}

/// One turn: which course, which way, and in which round.
#[derive(Clone, Copy)]
struct Turn {
    course: usize,
    way: usize,
    round: usize,
}

/// Measures, and writes the report.
///
/// # Errors
///
/// The system lacks something, which the error names; or the report cannot be written.
pub fn run(options: &Options, folder: Folder) -> anyhow::Result<Report> {
    end_with_a_signal()?;
    let (ways, missing) = ways(options);
    let (courses, begun) = (courses(options)?, Instant::now());
    let mut report = Report::new(options, missing, &ways)?;
    let results_over =
        |course: &Course| ways.iter().map(|way| WayResult::new(way, &course.profile)).collect();
    let results = courses.iter().map(results_over).collect();
    let turns = turns(options, courses.len(), ways.len());
    let bar = report::progress(turns.len());
    let queue = Queue { turns: Mutex::new(turns), results: Mutex::new(results) };
    let work = || queue.work(options, &courses, &ways, &bar);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.at_once()).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
    })?;
    bar.finish_and_clear();
    let results = queue.results.into_inner().expect("nobody has panicked with it");
    let lines = courses.iter().zip(results);
    report.lines = lines.map(|(course, ways)| Line::new(&course.name, &course.profile, ways)).collect();
    report.took_s = begun.elapsed().as_secs_f64().round();
    files::write(&report, folder)?;
    Ok(report)
}

/// The turns that are still to be taken, and what those that were have given.
struct Queue {
    turns: Mutex<VecDeque<Turn>>,
    results: Mutex<Vec<Vec<WayResult>>>,
}

impl Queue {
    /// Takes turns until there are none.
    fn work(
        &self,
        options: &Options,
        courses: &[Course],
        ways: &[Way],
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let turns = || self.turns.lock().expect("nobody panics with it");
        let results = || self.results.lock().expect("nobody panics with it");
        loop {
            let Some(Turn { course: course_at, way: way_at, round }) = turns().pop_front() else {
                return Ok(());
            };
            let (course, way) = (&courses[course_at], &ways[way_at]);
            bar.set_message(format!("{}: {}", course.name, way.name()));
            if results()[course_at][way_at].goes_on() {
                let taken = take_in_time(course, way, options, round);
                if taken.is_err() && results().iter().flatten().all(WayResult::is_empty) {
                    // It is the system that lacks something: nobody else needs to try.
                    turns().clear();
                    return taken.map(|_| ());
                }
                results()[course_at][way_at].add(taken);
            }
            bar.inc(1);
        }
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

/// One turn; once more if packets were late, as what it gives then is worth nothing.
fn take_in_time(course: &Course, way: &Way, options: &Options, round: usize) -> anyhow::Result<Taken> {
    let mut late = 0;
    loop {
        let (samples, failed, line) = take(course, way, options, round)?;
        if line.is_punctual() {
            return Ok(Taken { samples, failed, line, late });
        }
        late += 1;
        if late == TRIES {
            let why = format!("packets were late {TRIES} times in a row: is the machine busy?");
            return Ok(Taken { samples: Vec::new(), failed: Some(why), line, late });
        }
    }
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

/// All turns, in their order: every round has every way once, on each line, and begins with another one. If several are taken at once, the lines take
/// turns as well, so that the long ones are not all at the end.
fn turns(options: &Options, courses: usize, ways: usize) -> VecDeque<Turn> {
    let turn = |course, round, way| Turn { course, way, round };
    let rounds =
        || (0..options.rounds).flat_map(move |round| (0..ways).map(move |way| (round, (way + round) % ways)));
    if options.at_once() > 1 {
        rounds().flat_map(|(round, way)| (0..courses).map(move |course| turn(course, round, way))).collect()
    } else {
        (0..courses).flat_map(|course| rounds().map(move |(round, way)| turn(course, round, way))).collect()
    }
}

/// The lines, and each of them with losses.
fn courses(options: &Options) -> anyhow::Result<Vec<Course>> {
    let mut courses = Vec::new();
    for name in &options.profiles {
        let profile = find(name)?;
        let mut lossy = profile.clone();
        courses.push(Course { name: name.clone(), profile, turn });
        if options.has_wide() {
            (lossy.up.loss, lossy.down.loss) = (LOSS, LOSS);
            courses.push(Course { name: format!("{name}, 1 % lost"), profile: lossy, turn: lossy_turn });
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
    let (there, missing) = peers::installed(&options.peers);
    ways.extend(there.into_iter().map(Way::Peer));
    (ways, missing)
}

/// Ends this process, and all that it has started, when a signal asks it to.
fn end_with_a_signal() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            if let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                process::end_all();
                eprintln!("interrupted: nothing is written");
                std::process::exit(INTERRUPTED);
            }
        });
    })?;
    Ok(())
}

/// Whether anything of it is worth less than it seems, in words.
pub fn warnings(report: &Report) -> Vec<String> {
    let slow = cfg!(debug_assertions)
        .then(|| "this program was built without --release: figures of speed are lower".into());
    let few =
        (report.rounds < 3).then(|| format!("{} rounds: there are no ranges to speak of", report.rounds));
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
    slow.into_iter().chain(few).chain(impossible).chain(failed).chain(missing).collect()
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
