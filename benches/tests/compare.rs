//! The report: what is refused before anything is measured, and that its three files say the same.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use serde_json::Value;

/// Nothing here that is waited for takes as long.
const PATIENCE: Duration = Duration::from_secs(120);

fn compare(arguments: &[&str]) -> Command {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_towline-bench"));
    bench.arg("compare").args(arguments);
    bench
}

/// As little as can be measured over a line.
fn quick(profile: &str, transport: &str, peers: &str, out: &Path) -> Command {
    let mut run = compare(&["--quick", "--keys", "3", "--profile", profile, "--transports", transport]);
    run.args(["--peers", peers, "--out"]).arg(out);
    run
}

fn refused(arguments: &[&str]) -> String {
    let output: Output = compare(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    error
}

#[test]
fn what_there_is_not_is_refused_with_what_there_is() {
    for (arguments, words) in [
        (["--profile", "lte,telegraph"], "there is no profile \"telegraph\": there are lan, dsl, lte"),
        (["--transports", "tls,pigeon"], "there is no transport \"pigeon\": there are tls, quic, wss"),
        (["--peers", "ssh,drum"], "there is no peer \"drum\": there are all, none, socat, ssh, rathole"),
        (["--rounds", "0"], "0 is not in 1..=65535"),
    ] {
        let error = refused(&arguments);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    let below = file.join("report");
    let error = refused(&["--out", below.to_str().unwrap()]);
    assert!(error.contains("report") && !error.contains("seed"), "{error}");
    let error = refused(&["--out", "/proc/nowhere/report"]);
    assert!(error.contains("cannot write /proc/nowhere/report"), "{error}");
    let error = refused(&["--out", folder.path().to_str().unwrap()]);
    assert!(error.contains("holds file, which is no part of a report"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}

/// Where `ip` is and peers are not.
fn path_without_peers(folder: &Path) -> String {
    let path = std::env::var("PATH").unwrap();
    let ip = path.split(':').chain(["/usr/sbin", "/sbin"]).map(|folder| Path::new(folder).join("ip"));
    if let Some(ip) = ip.into_iter().find(|ip| ip.is_file()) {
        std::os::unix::fs::symlink(ip, folder.join("ip")).unwrap();
    }
    folder.to_str().unwrap().into()
}

#[test]
fn the_files_of_a_report_say_the_same_and_name_who_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let out = folder.path().join("made/report");
    let mut run = quick("lan", "tls", "rathole,bore", &out);
    let output = run.env("PATH", path_without_peers(&programs)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !is_made(&output, &out) {
        return;
    }
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let (json, csv, page) = (read("report.json"), read("samples.csv"), read("index.html"));
    assert_eq!(fs::read_dir(out.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    let report: Value = serde_json::from_str(&json).unwrap();
    let rows: Vec<_> = csv.lines().filter(|row| !row.contains("missing")).collect();
    assert_eq!(rows, as_csv(&report), "all samples, in the same order");
    for peer in ["rathole", "bore"] {
        let install = format!("cargo install {peer}");
        for (what, text) in [("JSON", &json), ("CSV", &csv), ("page", &page), ("terminal", &said)] {
            assert!(text.contains(&install), "{peer} is not missing in the {what}");
        }
    }
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    assert_eq!(serde_json::from_str::<Value>(data).unwrap(), report, "the page has all of it");
}

/// Whether a report was made. Where it needs networks of its own and there are none, that is told, but where real programs are
/// required.
fn is_made(output: &Output, out: &Path) -> bool {
    let error = String::from_utf8_lossy(&output.stderr);
    let is_made = out.join("report.json").exists();
    assert!(is_made || std::env::var_os("TOWLINE_REQUIRE_CLIENTS").is_none(), "{error}");
    if !is_made {
        eprintln!("not tested: {error}");
    }
    is_made
}

#[test]
fn peers_do_the_same_work() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let output = quick("lan", "tls", "socat,ssh", &out).output().unwrap();
    if !is_made(&output, &out) {
        return;
    }
    let report: Value = serde_json::from_str(&fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
    let ways = report["lines"][0]["ways"].as_array().unwrap();
    for name in ["no tunnel", "tls, tunnels", "tls, end to end", "socat", "ssh"] {
        let Some(way) = ways.iter().find(|way| way["way"] == name) else {
            assert!(std::env::var_os("TOWLINE_REQUIRE_CLIENTS").is_none(), "{name} is missing");
            continue;
        };
        // A busy machine is no fault of anybody's.
        let Some(why) = way["failed"].as_str() else {
            let workloads = way["measured"].as_array().unwrap().len();
            assert_eq!(workloads, 7, "{name}: {way}");
            continue;
        };
        assert!(why.starts_with("packets were late"), "{name}: {why}");
    }
}

#[test]
fn who_needs_udp_is_not_measured_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let output = quick("office", "quic", "none", &out).output().unwrap();
    if !is_made(&output, &out) {
        return;
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = "QUIC needs UDP, which this line does not carry";
    for name in ["report.json", "samples.csv", "index.html"] {
        assert!(fs::read_to_string(out.join(name)).unwrap().contains(words), "{name}");
    }
    assert!(said.contains(&format!("office: not measured: quic, tunnels: {words}")), "{said}");
}

/// All processes that come from this one.
fn descendants(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let line = children.collect::<Vec<_>>().concat();
    let children = line.split_whitespace().map(|pid| pid.parse().unwrap());
    children.flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

/// Waits until it is so, for as long as the run goes on. Whether it is. Where real programs are required, it has to be.
fn waits_for(run: &mut Child, is_there: impl Fn(u32) -> bool) -> bool {
    let begun = Instant::now();
    while run.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE {
        if is_there(run.id()) {
            return true;
        }
        thread::yield_now();
    }
    assert!(std::env::var_os("TOWLINE_REQUIRE_CLIENTS").is_none(), "it ended before it came to that");
    false
}

fn is_called(name: &str) -> impl Fn(&PathBuf) -> bool {
    move |process| fs::read_to_string(process.join("comm")).is_ok_and(|called| called.trim() == name)
}

/// The processes of socat, whose turn begins once another one is over.
fn socats(run: u32) -> Vec<PathBuf> {
    let processes = descendants(run).into_iter().map(|pid| Path::new("/proc").join(pid.to_string()));
    processes.filter(is_called("socat")).collect()
}

/// Unless it is over.
fn interrupt(run: &mut Child) {
    if run.try_wait().unwrap().is_some() {
        return;
    }
    let pid = nix::unistd::Pid::from_raw(run.id().try_into().unwrap());
    nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
}

/// What a run has said that was interrupted. `None` if it had not come to what is tested.
fn interrupted(run: Child, has_come: bool) -> Option<Output> {
    let output = run.wait_with_output().unwrap();
    if !has_come {
        eprintln!("not tested: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    Some(output)
}

fn are_gone(processes: &[PathBuf]) -> bool {
    let are_gone = || processes.iter().all(|process| process.join("exe").read_link().is_err());
    let begun = Instant::now();
    while !are_gone() && begun.elapsed() < PATIENCE {
        thread::yield_now();
    }
    are_gone()
}

#[test]
fn who_is_interrupted_ends_all_turns_and_writes_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    let mut run = quick("lan", "tls", "socat", &out);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let is_at_work = waits_for(&mut run, |run| socats(run).len() >= 3);
    let peers = socats(run.id());
    interrupt(&mut run);
    let Some(output) = interrupted(run, is_at_work) else { return };
    assert!(are_gone(&peers), "its peers live on");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "there is a report, and no part of one");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let (json, csv, page) = (read("report.json"), read("samples.csv"), read("index.html"));
    let report: Value = serde_json::from_str(&json).unwrap();
    let (taken, of) = (report["interrupted"]["taken"].as_u64().unwrap(), &report["interrupted"]["of"]);
    assert!((1..4).contains(&taken) && *of == 4, "{taken} of {of}");
    let ways = report["lines"][0]["ways"].as_array().unwrap();
    assert_eq!(ways.iter().map(|way| way["turns"].as_u64().unwrap()).sum::<u64>(), taken);
    assert!(ways.iter().all(|way| way["turns"] == 1 || way["measured"] == Value::from([0; 0])), "{ways:?}");
    let words = format!("interrupted: there are only {taken} of 4 turns");
    assert_eq!(csv.lines().nth(1), Some(&*format!(",,,,,,,{words}")));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&words), "{output:?}");
    assert!(page.contains(&json.replace('<', "\\u003c")) && page.contains("if (report.interrupted)"));
}

#[test]
fn who_is_interrupted_before_a_turn_is_over_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    // Without --quick a turn takes many seconds.
    let mut run = compare(&["--profile", "lan", "--transports", "tls", "--peers", "none", "--out"]);
    let mut run = run.arg(out).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let is_at_work = waits_for(&mut run, |run| {
        let threads = fs::read_dir(format!("/proc/{run}/task")).into_iter().flatten().flatten();
        threads.map(|thread| thread.path()).any(|thread| is_called("line")(&thread))
    });
    interrupt(&mut run);
    let Some(output) = interrupted(run, is_at_work) else { return };
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("interrupted before a turn was over: nothing is written"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "neither a report nor a part of one");
}

#[test]
fn who_is_interrupted_twice_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("report");
    // Nobody reads what it says, and nothing more can be said: so it does not end by itself.
    let (_nobody, mut full) = std::io::pipe().unwrap();
    let said = full.try_clone().unwrap();
    thread::spawn(move || full.write_all(&[b'.'; PIPE]));
    let mut run = quick("lan", "tls", "socat", &out);
    let mut run = run.stdout(said).stderr(Stdio::piped()).spawn().unwrap();
    let is_at_work = waits_for(&mut run, |run| socats(run).len() >= 3);
    let peers = socats(run.id());
    interrupt(&mut run);
    let is_written =
        is_at_work && waits_for(&mut run, |_| out.join("report.json").exists() && are_gone(&peers));
    interrupt(&mut run);
    let Some(output) = interrupted(run, is_written) else { return };
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("interrupted: it ends at once"), "{error}");
}

/// More than a pipe takes that nobody reads (pipe(7)).
const PIPE: usize = 1 << 20;

/// What the CSV is to be, of a report in which nothing has failed but for want of time.
fn as_csv(report: &Value) -> Vec<String> {
    let mut rows = vec!["profile,way,legs,workload,round,value,unit,note".to_owned()];
    let list = |value: &Value| value.as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for line in list(&report["lines"]) {
        for way in list(&line["ways"]) {
            let name = text(&way["way"]);
            let name = if name.contains(',') { format!("\"{name}\"") } else { name };
            let name = format!("{name},{}", way["legs"]);
            for measured in list(&way["measured"]) {
                let workload = text(&measured["workload"]);
                let about =
                    list(&report["workloads"]).into_iter().find(|about| about["workload"] == workload);
                let unit = text(&about.unwrap()["unit"]);
                for (round, samples) in list(&measured["rounds"]).iter().enumerate() {
                    rows.extend(list(samples).iter().map(|sample| {
                        let (line, value) = (text(&line["profile"]), sample.as_f64().unwrap());
                        format!("{line},{name},{workload},{},{value},{unit},", round + 1)
                    }));
                }
            }
            if let Some(why) = way["failed"].as_str() {
                // A busy machine is no fault of anybody's.
                assert!(why.starts_with("packets were late"), "{why}");
                rows.push(format!("{},{name},,,,,failed: {why}", text(&line["profile"])));
            }
        }
    }
    rows
}
