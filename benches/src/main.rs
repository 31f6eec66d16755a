//! `towline-bench`: the project's figures, the whole product, and the comparison with peers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use towline::Transport;
use towline_bench::compare::{self, options::CompareArgs};
use towline_bench::muxer::Name;
use towline_bench::transports::contender;
use towline_bench::tunnel::peers::{self, Peers};
use towline_bench::work::{self, Workload};
use towline_bench::{baseline, figures, idle, instructions, lab, muxers, scale, transports, tunnel};
use towline_sim::output;

/// Measures Towline, alone and beside others who do the same. See `benches/README.md`.
#[derive(Debug, Parser)]
#[command(name = "towline-bench", version, after_help = EXAMPLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example, the figures that come out the same on every run:
  cargo run --release -p towline-bench -- figures";

#[derive(Debug, Subcommand)]
enum Command {
    /// Count what idle streams and sessions cost, and what 16 KiB of payload cost on the wire and on the heap
    #[command(after_help = "\
Example, one number for a script:
  towline-bench figures --json | jq '.[] | select(.what | startswith(\"idle stream\"))'")]
    Figures {
        /// Over how many streams, sessions and links
        #[arg(long, default_value_t = 2000, value_name = "N")]
        count: usize,
        /// Print JSON: an array of objects
        #[arg(long)]
        json: bool,
    },
    /// Measure a hub, a device and a service over loopback TLS, beside other products and the least that TLS costs
    #[command(after_help = "\
Example, a quick look beside socat:
  towline-bench tunnel --size 64 --opens 100 --peers socat

Example, the CPU seconds per GB of all parts of each way, the load's excepted:
  towline-bench tunnel --json | jq '.ways[] | [.way, .up.cpu_s_per_gb.median]'")]
    Tunnel(TunnelArgs),
    /// Measure muxers side by side, over a pipe in memory, both ends on one thread
    #[command(after_help = "\
Example, a quick look at two of them:
  towline-bench muxers --quick towline yamux-0.14")]
    Muxers {
        /// Which; all, if none is named
        #[arg(value_name = "MUXER")]
        muxers: Vec<Name>,
        /// How many rounds; the muxers take turns
        #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// A sixteenth of the work
        #[arg(long)]
        quick: bool,
        /// Print JSON: an object
        #[arg(long)]
        json: bool,
    },
    /// Measure transports side by side, over sockets on loopback, each end in a thread of its own
    #[command(after_help = "\
Example, a quick look at ours beside the library that it is made of:
  towline-bench transports --quick towline-tls rustls rustls-unbuffered

Example, the CPU seconds per GB of all:
  towline-bench transports --json | jq '.rows[] | [.contender, .bulk.cpu_s_per_gb.median]'")]
    Transports {
        /// Which; all but quinn-tuned, if none is named
        #[arg(value_name = "CONTENDER")]
        contenders: Vec<contender::Name>,
        /// How many rounds; the contenders take turns
        #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// How much a transfer moves, in MiB
        #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1 << 14))]
        size: u32,
        /// An eighth of the work
        #[arg(long)]
        quick: bool,
        /// Print JSON: an object
        #[arg(long)]
        json: bool,
    },
    /// Count what an idle connection costs the end that accepts: resident memory, and heap
    #[command(after_help = "\
Example, a quick look at ours beside the library that it is made of:
  towline-bench idle --links 3000 rustls towline-tls hub-tls")]
    Idle {
        /// Which; all, if none is named
        #[arg(value_name = "CONTENDER")]
        contenders: Vec<idle::Name>,
        /// How many connections
        #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
        links: u32,
        /// How long all is quiet before memory is measured: by default until signs of life have come and gone
        #[arg(long, default_value_t = 6, value_name = "SECONDS")]
        settle: u64,
        /// Print JSON: an object
        #[arg(long)]
        json: bool,
    },
    /// Hold connections, for `idle`, which starts this
    #[command(name = idle::holder::COMMAND, hide = true)]
    Hold {
        /// Which
        contender: idle::Name,
        /// How long all is quiet before memory is measured, in seconds
        settle: u64,
        /// Where a hub listens [default: any port of 127.0.0.1]
        listen: Option<SocketAddr>,
    },
    /// Count instructions with callgrind: for 16 KiB, for an echo, for a stream
    #[command(after_help = "\
Example, what a change of ours did:
  towline-bench instructions towline-engine towline --json | jq .rows")]
    Instructions {
        /// Which; all, if none is named
        #[arg(value_name = "MUXER")]
        muxers: Vec<Name>,
        /// Print JSON: an object
        #[arg(long)]
        json: bool,
    },
    /// Count what our own code costs, and hold that against benches/baseline.json
    ///
    /// Instructions and bytes may be 3 % more, and of allocations none.
    #[command(after_help = "\
Exit status: 0 if nothing costs more than it may, 1 if something does, or could not be counted.

Example, once a change costs more and that is meant, or costs less:
  towline-bench baseline --bless")]
    Baseline {
        /// What was counted before
        #[arg(long, default_value = "benches/baseline.json", value_name = "FILE")]
        file: PathBuf,
        /// Write what is counted now into the file
        #[arg(long)]
        bless: bool,
        /// Print JSON: an array of objects
        #[arg(long, conflicts_with = "bless")]
        json: bool,
    },
    /// Measure what more of everything costs: 1 to 1,000 streams, tunnels and connections, devices by the thousand, and how long
    /// these take to come back once their hub is killed
    #[command(after_help = "\
Example, with plots, in a quarter of an hour; the most devices that descriptors allow:
  towline-bench scale --out scale.html

Example, in a minute:
  towline-bench scale --quick

Example, one of them, again and again:
  towline-bench scale --rounds 9 --shared-by 1000 session

Example, how long 1,000 devices take to come back to another hub:
  towline-bench scale storm --devices 1000")]
    Scale(ScaleArgs),
    /// Hold the link laboratory against theory: delay, jitter, rate, queue, losses and order on lines between two networks of this
    /// machine
    #[command(after_help = "\
Needs /dev/net/tun and iproute2; root, or a system that allows user namespaces. With other work on the machine, packets are \
late: that line is measured again, three times in all, and what is late then does not hold.

Example, in two thirds of a minute:
  towline-bench calibrate --quick")]
    Calibrate {
        /// An eighth of the packets
        #[arg(long)]
        quick: bool,
        /// Draw what is lost from this seed, and not from a fresh one
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Print JSON: an array of objects
        #[arg(long)]
        json: bool,
    },
    /// Measure the product over lines of the link laboratory, beside no tunnel at all; over QUIC, beside
    /// QUIC without a hub as well
    #[command(after_help = "\
Needs what `calibrate` needs. A run in which one packet in a hundred was given on later than 1 ms exits with 1.

Example, a key beside an upload on a slow line, over TLS and over QUIC:
  towline-bench over --profile slow-line --transport tls,quic")]
    Over {
        /// Over which lines: lan, dsl, lte, 3g, satellite, factory-wifi, office, slow-line,
        /// long-line, lossy-line
        #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "slow-line")]
        profile: Vec<String>,
        /// Over which transports the caller has its link to the hub
        #[arg(long, value_name = "TRANSPORT", value_delimiter = ',', default_value = "tls", value_parser = compare::options::transport)]
        transport: Vec<Transport>,
        /// How many rounds; the ways take turns
        #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// How many keys are typed in a round, alone and beside bulk; and a tenth of that are connections that are opened
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        keys: u16,
        /// Draw what is lost on the lines from this seed, and not from a fresh one
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Print JSON: an array of objects
        #[arg(long)]
        json: bool,
    },
    /// Measure the product beside other products over lines of the link laboratory, and write one report
    #[command(after_help = "\
Needs what `calibrate` needs. A peer that is not installed is named, with how one gets it. Exits with 1 if something was late or \
failed, and with 2 if it was asked for what there is not. Interrupted (Ctrl-C), it writes a report of the turns that are over, \
which says so, and exits with 130; interrupted once more, it ends at once.

Example, a quick look in less than three minutes:
  towline-bench compare --quick --profile lte,satellite -o report

Example, one transport beside ssh, on a line with losses:
  towline-bench compare --profile factory-wifi --transports quic --peers ssh --rounds 5")]
    Compare(CompareArgs),
    /// Do one thing so many times and nothing else, to be watched by a profiler
    #[command(after_help = "\
Example, where an echo's instructions go:
  valgrind --tool=callgrind towline-bench once towline-engine echo 10000")]
    Once {
        /// Which muxer
        muxer: Name,
        /// At what
        workload: Workload,
        /// How many times
        times: u64,
    },
}

#[derive(Debug, Args)]
struct TunnelArgs {
    /// Which ways, beside the peers; all, if none is named
    #[arg(value_name = "WAY")]
    ways: Vec<tunnel::Which>,
    /// How much one transfer moves, in MiB
    #[arg(long, default_value_t = 512, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    size: u64,
    /// How many tunnels are opened in a round; a tenth of that where one takes more than 10 ms
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    opens: u32,
    /// How many rounds; the ways take turns
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Beside which peers, by commas: all, none, or of socat, ssh, rathole, penguin, bore
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "all", value_parser = Peers::named)]
    peers: Vec<Peers>,
    /// Print JSON: an object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ScaleArgs {
    /// What there is to be more of [default: all]
    what: Vec<scale::What>,
    /// How many streams, tunnels or connections share a transfer, by commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 10, 100, 1000], value_parser = clap::value_parser!(u16).range(1..))]
    shared_by: Vec<u16>,
    /// How much a transfer moves, whoever shares it, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1 << 14))]
    size: u32,
    /// How many rounds of transfers, and of storms
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How many devices at most [default: 20,000 that are idle and 10,000 that come back, or as many as descriptors allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    devices: Option<u32>,
    /// How long devices are idle before memory is looked at, and processor time is counted, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    settle: u64,
    /// One round of a quarter of the bytes, 2,000 devices that are idle for six seconds, and 1,000 that come back
    #[arg(long)]
    quick: bool,
    /// Write a page with plots as well
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// Print JSON: an object
    #[arg(long)]
    json: bool,
}

fn run_scale(args: &ScaleArgs) -> anyhow::Result<()> {
    let most = idle::most()?;
    let asked = |default: usize| args.devices.map_or(most.min(default), |devices| devices as usize);
    let mut options = scale::Options {
        what: if args.what.is_empty() { scale::What::value_variants().to_vec() } else { args.what.clone() },
        counts: args.shared_by.iter().copied().map(usize::from).collect(),
        bytes: (args.size as usize) << 20,
        rounds: args.rounds.into(),
        settle: Duration::from_secs(args.settle),
        devices: asked(scale::MOST),
        storm: asked(scale::MOST_IN_A_STORM),
    };
    if args.quick {
        (options.bytes, options.rounds, options.settle) = (options.bytes / 4, 1, Duration::from_secs(6));
        (options.devices, options.storm) = (options.devices.min(2000), options.storm.min(1000));
    }
    // Before it is measured for minutes.
    output::check_writable(args.out.as_deref())?;
    let results = scale::measure(&options)?;
    if let Some(out) = &args.out {
        scale::write(&results, out)?;
    }
    scale::print(&results, args.json)?;
    if !results.missing.is_empty() {
        bail!("not everything could be measured: why is said above");
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Figures { count, json } => figures::print(&figures::measure(count), json),
        Command::Tunnel(args) => run_tunnel(&args),
        Command::Muxers { muxers, rounds, quick, json } => {
            let options = muxers::Options { muxers, rounds: rounds.into(), quick };
            muxers::print(&muxers::measure(&options), json)
        }
        Command::Transports { contenders, rounds, size, quick, json } => {
            let bytes = usize::try_from(size)? << 20;
            let options = transports::Options { contenders, rounds: rounds.into(), bytes, quick };
            transports::print(&transports::measure(&options)?, json)
        }
        Command::Idle { contenders, links, settle, json } => {
            let settle = Duration::from_secs(settle);
            let options = idle::Options { contenders, links: usize::try_from(links)?, settle };
            idle::print(&idle::measure(&options)?, json)
        }
        Command::Hold { contender, settle, listen } => {
            idle::holder::run(contender, Duration::from_secs(settle), listen)
        }
        Command::Instructions { muxers, json } => instructions::print(&instructions::count(&muxers)?, json),
        Command::Baseline { file, bless: true, .. } => {
            output::check_writable(Some(&file))?;
            baseline::write(&file, &baseline::count()?)
        }
        Command::Baseline { file, bless: false, json } => {
            let (before, now) = (baseline::read(&file)?, baseline::count()?);
            let compared = baseline::compare(&before.counts, &now.counts);
            baseline::print(&compared, json)?;
            if !compared.iter().all(|count| count.holds) {
                bail!(baseline::advice(&before, &now));
            }
            Ok(())
        }
        Command::Scale(args) => run_scale(&args),
        Command::Calibrate { quick, seed, json } => {
            lab::become_root_of_own()?;
            let rows = lab::calibrate::measure(quick, said(seed))?;
            lab::calibrate::print(&rows, json)?;
            if rows.iter().any(|row| !row.holds) {
                bail!("not everything holds: what is measured over such lines is worth nothing");
            }
            Ok(())
        }
        Command::Over { profile, transport, rounds, keys, seed, json } => {
            lab::become_root_of_own()?;
            let (rounds, keys) = (rounds.into(), keys.into());
            let (profiles, transports, seed) = (profile, transport, said(seed));
            let options = lab::over::Options { profiles, transports, rounds, keys, seed };
            let results = lab::over::measure(&options)?;
            lab::over::print(&results, json)?;
            if results.iter().any(|results| !results.is_punctual) {
                bail!("packets were late: what was measured is worth nothing; is the machine busy?");
            }
            if results.iter().flat_map(|results| &results.ways).any(|way| way.failed.is_some()) {
                bail!("not everything could be measured: why is said above");
            }
            Ok(())
        }
        Command::Compare(args) => run_compare(&args),
        Command::Once { muxer, workload, times } => work::run(muxer, workload, 0, times).map(|_| ()),
    }
}

fn run_compare(args: &CompareArgs) -> anyhow::Result<()> {
    let (options, folder) = args.check(said).unwrap_or_else(|error| {
        Cli::command().error(ErrorKind::ValueValidation, format!("{error:#}")).exit();
    });
    lab::become_root_of_own()?;
    let report = compare::run(&options, folder)?;
    compare::print(&report);
    if report.interrupted.is_some() {
        std::process::exit(compare::INTERRUPTED);
    }
    if report.lines.iter().flat_map(|line| &line.ways).any(|way| way.failed.is_some()) {
        bail!("not everything could be measured: why is said above");
    }
    Ok(())
}

/// The seed, or a fresh one; told, so that the run can be repeated.
fn said(seed: Option<u64>) -> u64 {
    let fresh =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos().into());
    let seed = seed.unwrap_or_else(fresh);
    eprintln!("seed {seed}");
    seed
}

fn run_tunnel(args: &TunnelArgs) -> anyhow::Result<()> {
    let options = tunnel::Options {
        bytes: args.size << 20,
        opens: args.opens.try_into()?,
        rounds: args.rounds.try_into()?,
        ways: if args.ways.is_empty() { tunnel::Which::value_variants().to_vec() } else { args.ways.clone() },
        peers: peers::list(&args.peers),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let results = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut hangup = signal(SignalKind::hangup())?;
        // Whichever way it ends, what was started is dropped, and ends with it.
        tokio::select! {
            biased;
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
            _ = hangup.recv() => bail!("the terminal is gone"),
            results = tunnel::measure(&options) => results,
        }
    });
    runtime.shutdown_background();
    tunnel::print(&results?, args.json)
}
