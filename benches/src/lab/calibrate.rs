//! How far the line is from theory: delay, jitter, rate, queue, losses and order, as two programs at its ends see them.
//!
//! Datagrams with numbers go from the end that calls to the other, and both ends note when. The clock is one, so a delay is
//! that of one way.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Serialize;
use towline_sim::link::{Burst, LinkSpec, Reorder};
use towline_sim::profile::Profile;
use towline_sim::scenario::{Rate, Share, Size, Span};

use super::line::Counts;
use super::wire::{Lab, Report, in_real_time, in_time};
use crate::report::{self, progress};
use crate::stats::percentile;

/// How far the middle of the delays may be from what it should be.
const DELAY_WITHIN: Duration = Duration::from_micros(300);

/// How far a rate may be from what it should be, as a share of that.
const RATE_WITHIN: f64 = 0.03;

/// How many standard deviations what is drawn may be from what it should be: with this, one run in a thousand that is right is
/// called wrong.
const DEVIATIONS: f64 = 3.29;

/// The bytes of IPv4 and UDP before a datagram's.
const HEADERS: usize = 28;

/// The port of the far end.
const PORT: u16 = 7777;

/// One property of one line, as it should be and as it is.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub what: String,
    /// As it should be: milliseconds, Mbit/s, or a share in percent.
    pub wanted: f64,
    /// As it is.
    pub measured: f64,
    /// How far off it may be.
    pub within: f64,
    /// One packet in a hundred was given on later than this, in microseconds.
    pub late_p99_us: f64,
    /// How long one packet in a hundred may have waited before that counts, in microseconds.
    pub unseen_p99_us: f64,
    /// Whether the packets were on time.
    pub on_time: bool,
    /// Whether it is near enough, and the packets were on time.
    pub holds: bool,
    /// How often it was measured: more than once if packets were late, which says something of the machine and not of the line.
    pub tries: usize,
}

/// What is sent: so many datagrams, so many together every so often, of so many bytes with their headers.
#[derive(Clone, Copy)]
struct Load {
    count: usize,
    together: usize,
    every: Duration,
    length: usize,
}

impl Load {
    /// Many small ones, to count some of them.
    fn many(count: usize) -> Self {
        Self { count, together: 10, every: Duration::from_millis(1), length: 100 }
    }
}

/// What both ends have noted: when each datagram was sent, and which came when.
struct Noted {
    sent: Vec<Instant>,
    came: Vec<(usize, Instant)>,
    line: Report,
}

impl Noted {
    /// How long those took that came.
    fn delays(&self) -> Vec<Duration> {
        self.came.iter().map(|&(index, at)| at - self.sent[index]).collect()
    }
}

/// A line that is measured, and what it gives.
type Step<'a> = &'a dyn Fn() -> anyhow::Result<Vec<Row>>;

fn one(row: anyhow::Result<Row>) -> anyhow::Result<Vec<Row>> {
    row.map(|row| vec![row])
}

/// Measures, with an eighth of the datagrams if it is to be `quick`. What is lost is drawn from `seed`.
///
/// # Errors
///
/// The system lacks something, which the error names.
pub fn measure(quick: bool, seed: u64) -> anyhow::Result<Vec<Row>> {
    let few = if quick { 8 } else { 1 };
    let steps: [Step<'_>; 13] = [
        &|| one(delay(seed, 1, 2000 / few)),
        &|| one(delay(seed, 20, 2000 / few)),
        &|| one(delay(seed, 280, 2000 / few)),
        &|| jitter(seed, 1000 / few),
        &|| one(rate(seed, 1, 4000 / few)),
        &|| one(rate(seed, 10, 10_000 / few)),
        &|| one(rate(seed, 50, 40_000 / few)),
        &|| one(rate(seed, 200, 100_000 / few)),
        &|| one(queue(seed, 10_000 / few)),
        &|| one(loss(seed, 1000, 100_000)),
        &|| one(loss(seed, 10_000, 80_000 / few)),
        &|| one(burst(seed, 160_000 / few)),
        &|| one(order(seed, 80_000 / few)),
    ];
    let bar = progress(steps.len());
    let mut rows = Vec::new();
    for step in steps {
        let (taken, tries) = in_time(step, |rows| rows.iter().all(|row| row.on_time))?;
        rows.extend(taken.into_iter().map(|row| Row { tries, ..row }));
        bar.set_message(rows.last().map_or_else(String::new, |row| row.what.clone()));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// Prints what was measured.
///
/// # Errors
///
/// The result cannot be written as JSON.
pub fn print(rows: &[Row], json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(&rows);
    }
    let mut table =
        report::table(["line", "should be", "is", "within", "late p99 us", "unseen p99 us", "tries", ""], 1);
    for Row { what, wanted, measured, within, late_p99_us, unseen_p99_us, on_time, holds, tries } in rows {
        let verdict = match (holds, on_time) {
            (true, _) => "holds",
            (false, true) => "DOES NOT HOLD",
            (false, false) => "PACKETS WERE LATE",
        };
        table.add_row([
            what.clone(),
            format!("{wanted:.3}"),
            format!("{measured:.3}"),
            format!("{within:.3}"),
            format!("{late_p99_us:.0}"),
            format!("{unseen_p99_us:.0}"),
            tries.to_string(),
            verdict.to_owned(),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn delay(seed: u64, millis: u64, count: usize) -> anyhow::Result<Row> {
    let spec = LinkSpec { delay: Span::millis(millis), ..LinkSpec::default() };
    let noted = run(seed, spec, Load { count, together: 1, every: Duration::from_millis(2), length: 200 })?;
    let measured = percentile(&mut noted.delays(), 0.5) / 1000.0;
    Ok(row(format!("delay {millis} ms"), millis as f64, measured, millis_of(DELAY_WITHIN), &noted.line))
}

/// The most that is added to a delay, in milliseconds. All that is between nothing and that is equally likely.
const JITTER: u64 = 10;

/// The delays on a line that has nothing but jitter, of packets so far apart that none has to wait for the one before it: they
/// do not overtake each other.
///
/// Their mean is half of the most. That of `count` packets deviates by the most through the root of 12 `count`. Their standard
/// deviation is the most through the root of 12, and deviates by the most through the root of 60 `count`, as the fourth central
/// moment is an 80th of the most to the fourth power.
fn jitter(seed: u64, count: usize) -> anyhow::Result<Vec<Row>> {
    let spec = LinkSpec { jitter: Span::millis(JITTER), ..LinkSpec::default() };
    let every = Duration::from_millis(JITTER);
    let noted = run_whole(seed, spec, Load { count, together: 1, every, length: 200 })?;
    let delays: Vec<_> = noted.delays().into_iter().map(millis_of).collect();
    let (most, count, middle) = (JITTER as f64, count as f64, mean(&delays));
    let squares: Vec<_> = delays.iter().map(|delay| (delay - middle).powi(2)).collect();
    let of = |what: &str, wanted, measured, within| {
        row(format!("jitter {JITTER} ms, {what}"), wanted, measured, within, &noted.line)
    };
    let within = DEVIATIONS * most / (12.0 * count).sqrt() + millis_of(DELAY_WITHIN);
    let spread = DEVIATIONS * most / (60.0 * count).sqrt();
    Ok(vec![
        of("mean", most / 2.0, middle, within),
        of("standard deviation", most / 12_f64.sqrt(), mean(&squares).sqrt(), spread),
    ])
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn millis_of(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Whoever is the last to find room in a queue waits until all of it is sent, himself included: its length through the rate.
/// Where more comes all the time, it is full to less than a packet, so the longest delay is that, or less by up to a packet.
/// It is taken of 99 in a hundred, since a program at an end may have been held up.
fn queue(seed: u64, count: usize) -> anyhow::Result<Row> {
    let (length, bytes, rate) = (1000, 100_000, 10_000_000);
    let spec = LinkSpec { rate: Some(Rate(rate)), queue: Some(Size(bytes)), ..LinkSpec::default() };
    // 16 Mbit/s.
    let noted = run(seed, spec, Load { count, together: 2, every: Duration::from_millis(1), length })?;
    let Counts { carried, overflowed, .. } = noted.line.up;
    let adds_up =
        overflowed > 0 && (carried + overflowed, carried) == (count as u64, noted.came.len() as u64);
    if !adds_up && noted.line.is_punctual() {
        bail!(
            "{count} datagrams were sent, {} came, and the line says {:?}",
            noted.came.len(),
            noted.line.up
        );
    }
    let measured = percentile(&mut noted.delays(), 0.99) / 1000.0;
    let takes = |bytes: u64| (bytes * 8 * 1000) as f64 / rate as f64;
    let what = format!("queue {} kB, longest delay", bytes / 1000);
    Ok(row(what, takes(bytes), measured, takes(length as u64) + millis_of(DELAY_WITHIN), &noted.line))
}

/// Whoever takes a detour comes after somebody who was sent later, as there are always some within that time who take none.
fn order(seed: u64, count: usize) -> anyhow::Result<Row> {
    let reorder = Reorder { share: Share(50_000), by: Span::millis(5) };
    let spec = LinkSpec { reorder: Some(reorder), ..LinkSpec::default() };
    let Noted { came, line, .. } = run_whole(seed, spec, Load::many(count))?;
    let (mut latest, mut late) = (0, 0);
    for (number, _) in came {
        late += usize::from(number < latest);
        latest = latest.max(number);
    }
    Ok(share(
        "out of order".into(),
        f64::from(reorder.share.0) / 1e6,
        late as f64 / count as f64,
        1.0,
        count,
        &line,
    ))
}

fn rate(seed: u64, mbit: u64, count: usize) -> anyhow::Result<Row> {
    let rate = Rate(mbit * 1_000_000);
    let spec = LinkSpec { rate: Some(rate), queue: Some(Size(256 << 10)), ..LinkSpec::default() };
    // Half as much again as it takes.
    let length = 1000;
    let every = Duration::from_micros(1000);
    let together = usize::try_from(rate.0 * 3 / 2 / 8 / 1000)?.div_ceil(length);
    let Noted { came, line, .. } = run(seed, spec, Load { count, together, every, length })?;
    let (Some((_, first)), Some((_, last))) = (came.first(), came.last()) else {
        bail!("nothing came through a line of {mbit} Mbit/s");
    };
    let bits = (came.len() - 1) * length * 8;
    let measured = bits as f64 / (*last - *first).as_secs_f64() / 1e6;
    Ok(row(format!("rate {mbit} Mbit/s"), mbit as f64, measured, RATE_WITHIN * mbit as f64, &line))
}

fn loss(seed: u64, millionths: u32, count: usize) -> anyhow::Result<Row> {
    let spec = LinkSpec { loss: Share(millionths), ..LinkSpec::default() };
    let wanted = f64::from(millionths) / 1e6;
    lost(seed, format!("loss {} %", wanted * 100.0), spec, wanted, 1.0, count)
}

fn burst(seed: u64, count: usize) -> anyhow::Result<Row> {
    let burst = Burst { enter: Share(2_000), leave: Share(125_000), loss: Share(500_000) };
    let spec = LinkSpec { burst: Some(burst), ..LinkSpec::default() };
    // It is bad for 2 of 127 packets, and loses half of those. Losses come together, some eight at a time, so that as many
    // packets say as much as an eighth of them would.
    lost(seed, "losses in bursts".into(), spec, 0.5 * 2.0 / 127.0, 8.0, count)
}

fn lost(
    seed: u64,
    what: String,
    spec: LinkSpec,
    wanted: f64,
    together: f64,
    count: usize,
) -> anyhow::Result<Row> {
    let Noted { came, line, .. } = run(seed, spec, Load::many(count))?;
    let Counts { carried, lost, overflowed, dropped, .. } = line.up;
    let adds_up = (carried + lost, carried, overflowed + dropped) == (count as u64, came.len() as u64, 0);
    if !adds_up && line.is_punctual() {
        bail!("{what}: {count} datagrams were sent, {} came, and the line says {:?}", came.len(), line.up);
    }
    Ok(share(what, wanted, 1.0 - came.len() as f64 / count as f64, together, count, &line))
}

/// A share of packets to which something happens, each by itself or so many `together`.
fn share(what: String, wanted: f64, measured: f64, together: f64, count: usize, line: &Report) -> Row {
    let deviation = (wanted * (1.0 - wanted) * together / count as f64).sqrt();
    row(what, wanted * 100.0, measured * 100.0, DEVIATIONS * deviation * 100.0, line)
}

fn row(what: String, wanted: f64, measured: f64, within: f64, line: &Report) -> Row {
    let on_time = line.is_punctual();
    let holds = (measured - wanted).abs() <= within && on_time;
    let Report { late_p99_us, unseen_p99_us, .. } = *line;
    Row { what, wanted, measured, within, late_p99_us, unseen_p99_us, on_time, holds, tries: 1 }
}

/// As [`run`], over a line that loses nothing, unless a kernel did.
fn run_whole(seed: u64, spec: LinkSpec, load: Load) -> anyhow::Result<Noted> {
    let noted = run(seed, spec, load)?;
    if noted.came.len() != load.count && noted.line.is_punctual() {
        bail!("{} datagrams were sent, and {} came", load.count, noted.came.len());
    }
    Ok(noted)
}

/// Sends a load over a line that is like this in both directions.
fn run(seed: u64, spec: LinkSpec, load: Load) -> anyhow::Result<Noted> {
    let profile = Profile {
        about: "calibration".into(),
        source: "the command".into(),
        blocks_udp: false,
        up: spec.clone(),
        down: spec,
    };
    let lab = Lab::start(&profile, seed)?;
    let ends = lab.ends().clone();
    let socket = ends.far.run(|| Ok(UdpSocket::bind((Lab::FAR, PORT))?))?;
    let (sent, came) = thread::scope(|scope| -> anyhow::Result<_> {
        let receiving = scope.spawn(|| {
            in_real_time();
            receive(&socket, load)
        });
        let sent = ends.near.run(|| {
            in_real_time();
            send(load)
        })?;
        let came = receiving.join().expect("it does not panic")?;
        Ok((sent, came))
    })?;
    Ok(Noted { sent, came, line: lab.stop()? })
}

fn send(load: Load) -> anyhow::Result<Vec<Instant>> {
    let socket = UdpSocket::bind((Lab::NEAR, 0))?;
    socket.connect((Lab::FAR, PORT))?;
    let mut datagram = vec![0; load.length - HEADERS];
    let mut sent = Vec::with_capacity(load.count);
    let start = Instant::now();
    for index in 0..load.count {
        if index % load.together == 0 {
            let at = start + load.every * u32::try_from(index / load.together)?;
            thread::sleep(at.saturating_duration_since(Instant::now()));
        }
        datagram[..8].copy_from_slice(&(index as u64).to_be_bytes());
        sent.push(Instant::now());
        socket.send(&datagram)?;
    }
    Ok(sent)
}

/// Receives until nothing has come for a while.
fn receive(socket: &UdpSocket, load: Load) -> anyhow::Result<Vec<(usize, Instant)>> {
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut datagram = vec![0; load.length];
    let mut came = Vec::with_capacity(load.count);
    // An error is the timeout: a socket that is not connected hears of no other.
    while let Ok(length) = socket.recv(&mut datagram) {
        let at = Instant::now();
        if let Some(number) = datagram[..length].first_chunk::<8>() {
            came.push((usize::try_from(u64::from_be_bytes(*number))?, at));
        }
    }
    Ok(came)
}
