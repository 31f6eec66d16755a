//! Every scenario, in two fresh processes; golden hashes; and what the command line says to bad input.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_towline-sim");

fn sim(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("the program runs")
}

fn trace_hash(output: &Output) -> String {
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    value["outcome"]["hash"].as_str().expect("a hash").to_owned()
}

#[test]
fn each_scenario_holds_and_is_the_same_in_two_processes_and_always() {
    let golden = include_str!("golden.txt");
    let (mut now, mut looked) = (String::new(), BTreeSet::new());
    for name in towline_sim::scenarios::names() {
        for seed in ["0", "1"] {
            let runs = [(); 2].map(|()| sim(&["run", name, "--seed", seed, "--json"]));
            assert_eq!(runs[0].status.code(), Some(0), "{name} {seed}: {runs:?}");
            let hashes = runs.each_ref().map(trace_hash);
            assert_eq!(hashes[0], hashes[1], "{name} with seed {seed} differs between processes");
            looked.extend(properties(&runs[0]));
            // What the product says is in tests/golden, and changes more often.
            if !name.starts_with("product-") {
                now.push_str(&format!("{name} {seed} {}\n", hashes[0]));
            }
        }
    }
    assert_eq!(
        now, golden,
        "traces have changed: if that was meant, sim/tests/golden.txt is to be this\n{now}"
    );
    let missing: Vec<_> = INVARIANTS.iter().filter(|name| !looked.contains(**name)).collect();
    assert!(missing.is_empty(), "no scenario looks at {missing:?}");
}

/// The invariants of the engine and the product that are best shown by deterministic simulation: those whose tag says so.
const INVARIANTS: [&str; 27] = [
    "exact_prefix",
    "eof_iff_fin",
    "no_dup",
    "accepted_means_owed",
    "never_over_limit",
    "credit_conservation",
    "blocked_writer_wakes",
    "no_stall",
    "slow_reader_isolated",
    "tune_bounded",
    "drain_partition",
    "close_flushes",
    "no_residue",
    "one_terminal_event",
    "any_byte_is_life",
    "control_under_bulk",
    "rtt_at_wire",
    "dead_is_detach",
    "resume_safe",
    "newest_wins_now",
    "unacked_never_evicted",
    "ttl_order",
    "closed_truth",
    "kind_hop",
    "eventual",
    "drop_semantics",
    "stale_pipe_inert",
];

/// What a run has looked at.
fn properties(output: &Output) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let all = value["outcome"]["properties"]["always"].as_object().expect("properties");
    let is_looked_at = |tally: &serde_json::Value| tally["checked"].as_u64() > Some(0);
    all.iter().filter(|(_, tally)| is_looked_at(tally)).map(|(name, _)| name.clone()).collect()
}

/// Seeds that failed once, and why.
#[test]
fn what_failed_once_holds() {
    let found = [
        // Both hubs were cut, and each end settled on another one: nobody looked elsewhere, and the session was given up.
        ("split-brain", &["474", "835"][..]),
        // A hub died before a device's first word, while its answer was on its way, or when its line took nothing more.
        ("product-two-hubs", &["79", "146", "321", "338", "508", "639"]),
        // A doubt that had a reason made the next one later, and the other hub died as well.
        ("product-two-hubs", &["54"]),
        // A stream found no room, and those that came later took what there was in turns.
        ("product-drain-two-hubs", &["995"]),
        // The simulator's proxy said FIN to a hub that had lost power, and waited for an answer for good.
        ("product-bad-day", &["185", "191"]),
    ];
    for (name, seeds) in found {
        for seed in seeds {
            let output = sim(&["run", name, "--seed", seed]);
            assert_eq!(output.status.code(), Some(0), "{name} {seed}: {output:?}");
        }
    }
}

/// A sweep says the same however many threads there are, but for how long it took.
#[test]
fn a_sweep_does_not_depend_on_the_number_of_threads() {
    let said = |name: &str, jobs: &str| {
        let output = sim(&["sweep", name, "--seeds", "0..8", "--jobs", jobs, "--json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let mut value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(value[0]["hash"].is_string() && value[0]["seeds"] == 8);
        value[0].as_object_mut().expect("an object").remove("wall_seconds");
        value
    };
    for name in ["link-loss", "intruder", "product-twins"] {
        let one = said(name, "1");
        for jobs in ["2", "5"] {
            assert_eq!(one, said(name, jobs), "{name} with {jobs} threads");
        }
    }
}

/// When the time is up that is said, and of a scenario that was not run nobody says that it held.
#[test]
fn a_sweep_without_time_says_what_it_has_not_run() {
    let output = sim(&["sweep", "late-reset", "--seeds", "0..9", "--time", "0", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&value[0]["seeds"], &value[0]["asked"]), (&0.into(), &9.into()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("late-reset: 0 of 9 seeds, as the time was up"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

/// Behind the last of them there is no next one.
#[test]
fn a_sweep_ends_with_the_last_seeds_of_all() {
    let (first, end) = (u64::MAX - 2, u64::MAX);
    let output = sim(&["sweep", "late-reset", "--seeds", &format!("{first}..{end}"), "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value[0]["seeds"], 2);
}

/// The command that compares any build with the golden hashes notices one that is another.
#[test]
fn a_golden_hash_that_differs_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("golden")).expect("it can be made");
    let golden = include_str!("golden.txt").lines().find(|line| line.starts_with("nat-forgets 0 ")).unwrap();
    let path = directory.path().to_str().expect("it is text");
    for (text, code) in [(golden.to_owned(), 0), (golden.replace("nat-forgets 0", "nat-forgets 1"), 3)] {
        std::fs::write(directory.path().join("golden.txt"), text).expect("it can be written");
        assert_eq!(sim(&["golden", path]).status.code(), Some(code));
    }
    std::fs::write(directory.path().join("golden.txt"), "nothing").expect("it can be written");
    assert_eq!(sim(&["golden", path]).status.code(), Some(2));
}

/// What is said about bad input: the arguments, and what the message must hold. Always one message, and status 2.
#[test]
fn bad_input_is_refused_and_nothing_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path.to_str().expect("it is text").to_owned()
    };
    let malformed = file("malformed.toml", "name = \"x\"\nstory = \"s\"\nspeed = 3\n");
    let impossible = file("impossible.toml", "name = \"x\"\nstory = \"s\"\n");
    let old = file("old.json", r#"{"format":0}"#);
    let other = file("other.json", "[]");
    let headless = file("headless.qlog", "\u{1e}nothing\n");
    let written = directory.path().join("no/such/place.qlog");
    let unwritable = written.to_str().expect("it is text");
    let log = |format: u32| {
        let head = r#"{"file_schema":"x","towline":{"format":FORMAT,"version":"0.0.1","side":"client","limits":{}}}"#;
        "\u{1e}".to_owned() + &head.replace("FORMAT", &format.to_string()) + "\n"
    };
    let old_log = file("old.sqlog", &log(0));
    let old_plan = file("old-plan.json", r#"{"format":2,"plan":{"format":0}}"#);
    let cases: [(&[&str], &str); 13] = [
        (&["run", "no-such"], "no scenario `no-such`"),
        (&["run", &malformed], "malformed.toml:3:1: unknown field `speed`"),
        (&["run", &impossible], "there is no hub"),
        (&["run", "link-loss", "--backend", "turmoil", "--seed", "x"], "invalid value"),
        (&["run", "link-loss", "--trace", unwritable], "cannot write"),
        (&["sweep", "link-loss", "--seeds", "9..3"], "write it like"),
        (&["replay", &old], "version 0"),
        (&["replay", &old_plan], "version 0"),
        (&["run", "late-reset", "--backend", "turmoil"], "sim/scenarios/late-reset.toml:"),
        (&["shrink", &other], "neither a failure nor a trace"),
        (&["report", &headless], "the trace has no head"),
        (&["replay", &old_log], "it is of version 0 of 0.0.1"),
        (&["report", &old_log], "it is of version 0 of 0.0.1"),
    ];
    for (arguments, message) in cases {
        let output = sim(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(message), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert!(!written.exists());
    let files = std::fs::read_dir(directory.path()).expect("it is there").count();
    assert_eq!(files, 7, "nothing half-written");
}

/// What cannot be done ends by the limit of simulated time, and says who waits for what.
#[test]
fn a_deadlock_ends_and_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "name = \"stuck\"\nstory = \"The hub never comes back.\"\n[limits]\nsimulated = \"30 s\"\n[[hub]]\nname = \"hub\"\n\
        [[device]]\nname = \"device\"\n[[service]]\nname = \"service\"\n\
        [[work]]\nname = \"bulk\"\nservice = \"service\"\ndevice = \"device\"\nstart = \"5 s\"\nup = \"1 KiB\"\n\
        [[fault]]\nkind = \"crash\"\nhost = \"hub\"\nat = \"1 s\"\n";
    let path = directory.path().join("stuck.toml");
    std::fs::write(&path, text).expect("it can be written");
    let failure = directory.path().join("failure.json");
    let arguments = ["run", path.to_str().unwrap(), "--failure", failure.to_str().unwrap()];
    let output = sim(&arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "SimulatedLimit",
        "device waits for service on bulk/service/device/0",
        "device waits for a link to hub",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let replayed = sim(&["replay", failure.to_str().unwrap()]);
    assert_eq!(replayed.status.code(), Some(1), "{replayed:?}");
}

#[test]
fn a_trace_is_replayed_compared_and_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("it is text").to_owned();
    let (one, other, page) = (path("one.qlog"), path("other.qlog"), path("one.html"));
    for (seed, trace) in [("3", &one), ("4", &other)] {
        assert_eq!(
            sim(&["run", "nat-forgets", "--seed", seed, "--trace", trace, "--check"]).status.code(),
            Some(0)
        );
    }
    let text = std::fs::read_to_string(&one).expect("it was written");
    let second = text.lines().nth(1).expect("something happened");
    assert!(
        second.starts_with("\u{1e}{\"time\":0.000000,\"group_id\":"),
        "in milliseconds, as qvis wants it: {second}"
    );
    assert_eq!(sim(&["replay", &one]).status.code(), Some(0));
    assert_eq!(sim(&["diff", &one, &one]).status.code(), Some(0));
    let differ = sim(&["diff", &one, &other]);
    assert_eq!(differ.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&differ.stderr).contains("differs, the first"));
    // A single event that is changed is found.
    let text = std::fs::read_to_string(&one).expect("it was written");
    std::fs::write(&one, text.replacen("link_up", "link_started", 1)).expect("it can be written");
    assert_eq!(sim(&["replay", &one]).status.code(), Some(3));
    // One that cannot be is none.
    std::fs::write(&one, text.replacen("link_up", "link_op", 1)).expect("it can be written");
    let no_event = sim(&["replay", &one]);
    assert_eq!(no_event.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&no_event.stderr).contains("is no event of a trace"));
    std::fs::write(&one, text).expect("it can be written");
    assert_eq!(sim(&["report", &one]).status.code(), Some(0));
    let html = std::fs::read_to_string(Path::new(&page)).expect("it was written");
    assert!(!html.contains("{{DATA}}") && !html.contains("src=\"http"), "it needs nothing else");
}

/// A plan that somebody has written asks for what nobody looks at.
#[test]
fn a_plan_that_asks_for_what_nobody_looks_at_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let plan = sim(&["run", "nat-forgets", "--plan"]).stdout;
    let mut plan: serde_json::Value = serde_json::from_slice(&plan).expect("JSON");
    let path = directory.path().join("failure.json");
    // The first is another trace than what the file says.
    for (sometimes, code) in [("session_resumed", 3), ("coffee_was_made", 2)] {
        plan["expect"]["sometimes"] = serde_json::json!([sometimes]);
        let failure = serde_json::json!({
            "format": plan["format"], "property": "no_dup", "detail": "", "hash": "", "plan": plan
        });
        std::fs::write(&path, failure.to_string()).expect("it can be written");
        let output = sim(&["replay", path.to_str().expect("it is text")]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains("nobody looks whether `coffee_was_made` happens"), code == 2, "{said}");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

/// `head` and others stop reading.
#[test]
fn who_stops_reading_has_had_enough() {
    let (reader, writer) = std::io::pipe().expect("there are pipes");
    drop(reader);
    let output = Command::new(PROGRAM).arg("list").stdout(writer).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_disk_that_is_full_is_told() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("it is there");
    let output = Command::new(PROGRAM).arg("list").stdout(full).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot write to the standard output"),
        "{output:?}"
    );
}

/// What is written has the mode of any new file; what is there and is no file stays what it is.
#[cfg(unix)]
#[test]
fn outputs_are_files_like_any_other() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let text = |name: &str| path(name).to_str().expect("it is text").to_owned();
    std::fs::write(path("usual"), "").expect("it can be written");
    let mode = |name: &str| std::fs::metadata(path(name)).expect("it is there").permissions().mode();
    assert!(sim(&["run", "nat-forgets", "--trace", &text("one.qlog")]).status.success());
    assert_eq!(mode("one.qlog"), mode("usual"));

    assert!(Command::new("mkfifo").arg(path("fifo")).status().expect("it runs").success());
    let fifo = path("fifo");
    let reader = std::thread::spawn(move || std::fs::read_to_string(fifo).expect("it can be read"));
    assert!(sim(&["run", "nat-forgets", "--trace", &text("fifo")]).status.success());
    assert!(std::fs::metadata(path("fifo")).expect("it is there").file_type().is_fifo());
    assert_eq!(reader.join().unwrap(), std::fs::read_to_string(path("one.qlog")).unwrap());

    std::os::unix::fs::symlink("one.qlog", path("link.qlog")).expect("it can be made");
    assert!(sim(&["run", "nat-forgets", "--seed", "1", "--trace", &text("link.qlog")]).status.success());
    assert!(std::fs::symlink_metadata(path("link.qlog")).expect("it is there").is_symlink());
    let one = std::fs::read_to_string(path("one.qlog")).expect("it can be read");
    assert!(one.contains("\"seed\":1,"), "what it leads to was written");
    let itself = sim(&["report", &text("link.qlog"), "--out", &text("one.qlog")]);
    assert_eq!(itself.status.code(), Some(2), "{}", String::from_utf8_lossy(&itself.stderr));

    let same = sim(&["run", "nat-forgets", "--trace", &text("two"), "--failure", &text("./two")]);
    let said = String::from_utf8_lossy(&same.stderr);
    assert_eq!(same.status.code(), Some(2), "{said}");
    assert!(said.contains("--trace and --failure are both"), "{said}");

    let nowhere = sim(&["run", "nat-forgets", "--trace", &text("no/such.qlog")]);
    let said = String::from_utf8_lossy(&nowhere.stderr);
    assert!(said.trim_end().ends_with("no/such.qlog: there is no such directory"), "{said}");
}

/// Where services half-close, devices learn of the end before they have answered; where none does, after.
#[test]
fn a_half_is_closed_early_or_late() {
    use towline_sim::event::{Event, What};
    use towline_sim::run::{Sink, run};
    use towline_sim::scenario::Share;
    for (share, is_early) in [(100, true), (0, false)] {
        let mut scenario =
            towline_sim::scenarios::named("half-closes").expect("it is there").expect("it can be read");
        scenario.faults.clear();
        scenario.work.truncate(1);
        let work = &mut scenario.work[0];
        (work.half_closes, work.resets, work.stops) = (Some(Share(share * 10_000)), Share(0), Share(0));
        let plan = scenario.expand(1, None).expect("it makes sense");
        let lines = run(&plan, Sink::keeping()).expect("it runs").lines;
        let events: Vec<Event> =
            lines.iter().map(|line| serde_json::from_str(line).expect("an event")).collect();
        for stream in &plan.streams {
            let of = |what: &What| match what {
                What::StreamEnded { stream: name, .. } => *name == stream.name,
                _ => false,
            };
            let ended = |who: &str| {
                events.iter().position(|event| event.who == who && of(&event.what)).expect("it ends")
            };
            assert_eq!(ended("device") < ended("service"), is_early, "{}", stream.name);
        }
    }
}
