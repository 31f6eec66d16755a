//! The real hub, device and service in simulated time.
#![allow(clippy::unwrap_used, reason = "tests")]

use towline_sim::event::{Event, What};
use towline_sim::run::{Ended, Outcome, Sink, run};
use towline_sim::scenario::{Backend, Share, parse};

/// One hub, one device, one service, and a line with a delay between them and the hub.
const SMALLEST: &str = r#"
name = "smallest"
story = "A tunnel carries 1 MiB each way."

[[hub]]
name = "hub"

[[device]]
name = "device"
link = "line"
transport = "TRANSPORT"

[[service]]
name = "service"
link = "line"
transport = "TRANSPORT"

[link.line]
delay = "10 ms"
jitter = "5 ms"

[[work]]
name = "bulk"
service = "service"
device = "device"
up = "1 MiB"
down = "1 MiB"
both_ways = true

[expect]
no_failure = true
all_online = true
"#;

fn outcome(text: &str, seed: u64) -> Outcome {
    let plan = parse("test.toml", text).unwrap().expand(seed, Some(Backend::Turmoil)).unwrap();
    run(&plan, Sink::keeping()).unwrap()
}

/// Runs it, and sees that everything held.
fn held(text: &str, seed: u64) -> Outcome {
    let outcome = outcome(text, seed);
    let broken: Vec<_> = outcome.properties.broken().collect();
    assert!(broken.is_empty() && outcome.ended == Ended::Done, "{broken:#?} {:#?}", outcome.waiting);
    outcome
}

#[test]
fn a_tunnel_carries_every_byte_over_each_transport_and_the_same_each_time() {
    for transport in ["tls", "quic", "web-socket"] {
        let text = SMALLEST.replace("TRANSPORT", transport);
        let first = held(&text, 1);
        assert_eq!(first.figures["bytes_read"], 2 << 20, "{transport}");
        assert!(first.properties.always["exact_prefix"].checked > 100, "{transport}");
        let again = held(&text, 1);
        let differs = first.lines.iter().zip(&again.lines).find(|(one, other)| one != other);
        assert_eq!(differs, None, "{transport}");
        assert_eq!(first.hash, again.hash, "{transport}");
        assert_ne!(first.hash, held(&text, 2).hash, "{transport}");
    }
}

/// A world in which streams go on for half a minute, and something goes wrong in the middle.
fn with_fault(transport: &str, fault: &str, expect: &str) -> String {
    format!(
        r#"
name = "fault"
story = "Something goes wrong in the middle."

[[hub]]
name = "hub"

[[device]]
name = "device"
count = 2
link = "line"
transport = "{transport}"

[[service]]
name = "service"
link = "line"
transport = "{transport}"

[link.line]
delay = "10 ms"
rate = "20 Mbit/s"

[[work]]
name = "talk"
service = "service"
device = "device"
streams = "2"
start = "1 s..2 s"
rounds = "60"
up = "2 KiB"
down = "16 KiB"
think = "100 ms..300 ms"

[[fault]]
{fault}

[expect]
all_online = true
{expect}
"#
    )
}

#[test]
fn a_line_that_is_held_for_a_while_loses_nothing() {
    for kind in ["hold", "hold-up", "hold-down"] {
        let fault = format!("kind = \"{kind}\"\nhost = \"service\"\nat = \"5 s\"\nfor = \"3 s\"");
        let outcome = held(&with_fault("tls", &fault, "no_failure = true"), 1);
        assert_eq!(outcome.figures["streams_done"], 4, "{kind}");
        assert!(outcome.figures["stall_ns"] >= 2_900_000_000, "{kind}: {}", outcome.figures["stall_ns"]);
    }
}

/// Over TCP it is a hold, from the first word on; over QUIC packets are lost that way alone, and sent again.
#[test]
fn a_way_that_is_cut_is_held_to_tcp_and_loses_packets_of_quic() {
    for (cut, hold, is_up) in [("cut-up", "hold-up", true), ("cut-down", "hold-down", false)] {
        for at in ["0 s", "5 s"] {
            let [one, other] = [cut, hold].map(|kind| {
                let fault = format!("kind = \"{kind}\"\nhost = \"service\"\nat = \"{at}\"\nfor = \"3 s\"");
                let lines = held(&with_fault("tls", &fault, "no_failure = true"), 1).lines;
                lines.into_iter().filter(|line| !line.contains("towline:fault_")).collect::<Vec<_>>()
            });
            assert!(one == other, "{cut} at {at}");
        }
        let fault = format!("kind = \"{cut}\"\nhost = \"service\"\nat = \"5 s\"\nfor = \"1 s\"");
        let outcome = held(&with_fault("quic", &fault, "no_failure = true"), 1);
        let events = outcome.lines.iter().map(|line| serde_json::from_str::<Event>(line).unwrap());
        let is_lost =
            |event: &Event| matches!(&event.what, What::PacketSent { fate, .. } if fate == "blocked");
        let senders: Vec<_> = events.filter(is_lost).map(|event| event.who).collect();
        assert!(
            !senders.is_empty() && senders.iter().all(|who| (who == "service") == is_up),
            "{cut}: {senders:?}"
        );
    }
}

/// A fault of six seconds, and one of a second in its midst.
fn overlapping(one: &str, other: &str, host: &str) -> String {
    format!(
        "kind = \"{one}\"\nhost = \"{host}\"\nat = \"5 s\"\nfor = \"6 s\"\n\n\
         [[fault]]\nkind = \"{other}\"\nhost = \"{host}\"\nat = \"6 s\"\nfor = \"1 s\""
    )
}

#[test]
fn what_overlapping_faults_hold_comes_after_the_last_of_them() {
    for (one, other) in [
        ("hold", "hold"),
        ("hold", "hold-up"),
        ("hold-down", "hold"),
        ("hold-up", "hold-up"),
        ("slow-reader", "slow-reader"),
    ] {
        let text = with_fault("tls", &overlapping(one, other, "service"), "no_failure = true");
        let outcome = held(&text, 1);
        assert!(
            outcome.figures["stall_ns"] >= 5_500_000_000,
            "{one} {other}: {}",
            outcome.figures["stall_ns"]
        );
    }
}

/// In whatever order they end, it is down until the last one does, and then it is started once.
#[test]
fn a_host_that_dies_twice_is_down_until_the_last_fault_ends_and_is_started_once() {
    for host in ["device-0", "hub"] {
        for (one, other) in [
            ("crash", "crash"),
            ("crash", "power-loss"),
            ("power-loss", "crash"),
            ("power-loss", "power-loss"),
            ("cut", "cut"),
        ] {
            let text = with_fault("tls", &overlapping(one, other, host), "some_failure = true");
            let outcome = held(&text, 1);
            let ups =
                outcome.lines.iter().map(|line| serde_json::from_str(line).unwrap()).filter(
                    |event: &Event| event.who == "device-0" && matches!(event.what, What::LinkUp { .. }),
                );
            let ups: Vec<_> = ups.map(|event| event.time / 1_000_000_000).collect();
            assert!(ups.len() == 2 && ups[1] >= 11, "{host} {one} {other}: up at {ups:?} s");
        }
    }
}

#[test]
fn what_breaks_a_link_fails_its_streams_and_the_device_comes_back() {
    for (transport, kind, host) in [
        ("tls", "cut", "device-0"),
        ("tls", "cut", "hub"),
        ("tls", "crash", "hub"),
        ("tls", "power-loss", "hub"),
        ("tls", "crash", "device-0"),
        ("tls", "power-loss", "device-0"),
        ("tls", "move", "device-0"),
        ("quic", "crash", "hub"),
        ("quic", "power-loss", "hub"),
        ("quic", "power-loss", "device-1"),
        ("web-socket", "crash", "hub"),
        ("auto", "power-loss", "hub"),
    ] {
        let lasts = if kind == "move" { "" } else { "\nfor = \"3 s\"" };
        let fault = format!("kind = \"{kind}\"\nhost = \"{host}\"\nat = \"5 s\"{lasts}");
        let text = with_fault(transport, &fault, "some_failure = true");
        println!("{transport} {kind} {host}");
        let first = held(&text, 1);
        let again = held(&text, 1);
        let differs = first.lines.iter().zip(&again.lines).find(|(one, other)| one != other);
        assert_eq!(differs, None, "{transport} {kind} {host}");
    }
}

#[test]
fn a_hub_that_drains_lets_streams_end_and_everybody_comes_back() {
    for transport in ["tls", "quic"] {
        let fault = "kind = \"drain\"\nhost = \"hub\"\nat = \"5 s\"";
        held(&with_fault(transport, fault, "some_failure = true"), 1);
    }
}

/// Keystrokes over QUIC, through a line that loses, doubles and delays packets.
#[test]
fn a_line_that_loses_packets_loses_no_byte_of_quic() {
    let text = with_fault(
        "quic",
        "kind = \"hold\"\nhost = \"service\"\nat = \"5 s\"\nfor = \"1 s\"",
        "no_failure = true",
    );
    let lossy = "loss = \"2 %\"\nduplicate = \"1 %\"\njitter = \"5 ms\"\nmtu = 1400\nburst = { enter = \"0.1 %\", leave = \"30 %\", loss = \"50 %\" }\n";
    let text = text.replace("rate = \"20 Mbit/s\"\n", &format!("rate = \"20 Mbit/s\"\n{lossy}"));
    let outcome = held(&text, 1);
    for fate in ["lost", "twice", "too large"] {
        let fate = format!("\"fate\":\"{fate}\"");
        assert!(outcome.lines.iter().any(|line| line.contains(&fate)), "{fate}");
    }
}

/// More devices than turmoil has hosts for share some.
#[test]
fn a_crowd_shares_the_hosts() {
    let fault = "kind = \"power-loss\"\nhost = \"hub\"\nat = \"5 s\"\nfor = \"2 s\"";
    let text = with_fault("tls", fault, "some_failure = true").replace("count = 2", "count = 60");
    let outcome = held(&text, 1);
    assert_eq!(outcome.figures["devices_online"], 60);
}

#[test]
fn who_is_alone_on_no_host_cannot_die() {
    let fault = "kind = \"crash\"\nhost = \"device-7\"\nat = \"5 s\"\nfor = \"2 s\"";
    let text = with_fault("tls", fault, "").replace("count = 2", "count = 60");
    let plan = parse("test.toml", &text).unwrap().expand(1, Some(Backend::Turmoil)).unwrap();
    let error = run(&plan, Sink::new()).unwrap_err().to_string();
    assert!(error.contains("device-7 cannot die alone"), "{error}");
}

/// The same in one process again and again, and in two others.
#[test]
fn the_same_seed_is_the_same_run_in_every_process() {
    let fault = "kind = \"power-loss\"\nhost = \"hub\"\nat = \"5 s\"\nfor = \"2 s\"";
    let text = with_fault("quic", fault, "some_failure = true").replace("rounds = \"60\"", "rounds = \"40\"");
    let hash = held(&text, 7).hash;
    if std::env::var_os("TOWLINE_SIM_CHILD").is_some() {
        println!("the hash is {hash}");
        return;
    }
    for _ in 0..20 {
        assert_eq!(held(&text, 7).hash, hash);
    }
    for _ in 0..2 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "the_same_seed_is_the_same_run_in_every_process";
        child.args(["--exact", name, "--nocapture"]).env("TOWLINE_SIM_CHILD", "1");
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("the hash is {hash}")), "{said}");
    }
}

/// A NAT that forgets after 3 s, and nobody says anything for 8 s: QUIC goes on from another port.
#[test]
fn a_nat_that_forgets_moves_a_quic_link_to_another_port() {
    let fault = "kind = \"hold\"\nhost = \"service\"\nat = \"5 s\"\nfor = \"1 s\"";
    let text = with_fault("quic", fault, "no_failure = true")
        .replace("rate = \"20 Mbit/s\"", "nat_timeout = \"500 ms\"")
        .replace("think = \"100 ms..300 ms\"", "think = \"100 ms..1500 ms\"");
    let outcome = held(&text, 1);
    assert!(outcome.lines.iter().any(|line| line.contains("its port of UDP is another one")));
}

/// Streams that are reset and stopped in the middle, over each transport.
#[test]
fn a_reset_is_seen_as_one() {
    for transport in ["tls", "quic", "web-socket"] {
        let text = SMALLEST
            .replace("TRANSPORT", transport)
            .replace("both_ways = true\n", "streams = \"20\"\nresets = \"40 %\"\nstops = \"30 %\"\n");
        let text = text.replace("1 MiB", "64 KiB").replace("no_failure = true", "");
        let outcome = held(&text, 3);
        assert!(outcome.properties.always["drop_semantics"].checked > 2, "{transport}");
        assert!(outcome.properties.always["accepted_means_owed"].checked > 2, "{transport}");
    }
}

/// What turmoil cannot do honestly is refused when the scenario is read, with a word on where to go instead.
#[test]
fn what_cannot_be_modelled_is_refused() {
    let fault = "kind = \"cut\"\nhost = \"hub\"\nat = \"5 s\"\nfor = \"1 s\"";
    let lossy = with_fault("tls", fault, "").replace("rate = \"20 Mbit/s\"", "loss = \"1 %\"");
    let survival = with_fault("tls", fault, "no_failure = true");
    let suspended = with_fault("tls", &fault.replace("cut", "suspend"), "");
    let jumps = with_fault("tls", &fault.replace("cut", "clock-jump"), "");
    let drained = "kind = \"drain-sessions\"\nhost = \"device\"\nat = \"5 s\"";
    let drained = with_fault("tls", drained, "");
    let late = with_fault("tls", fault, "").replace("rounds =", "late_resets = \"10 %\"\nrounds =");
    let window = with_fault("tls", fault, "window_at_least = \"1 MiB\"");
    for (text, why) in [
        (lossy, "link laboratory"),
        (survival, "do not outlive"),
        (suspended, "cannot stop one host"),
        (jumps, "share a clock"),
        (drained, "out of reach"),
        (late, "have let go"),
        (window, "cannot look into"),
    ] {
        let problem = match parse("test.toml", &text) {
            Err(malformed) => malformed.to_string(),
            Ok(scenario) => format!("{:?}", scenario.expand(1, Some(Backend::Turmoil)).unwrap_err()),
        };
        assert!(problem.contains(why), "{problem}");
    }
}

/// That everybody goes home in the end does not take away when they were back.
#[test]
fn how_long_devices_take_to_be_back_is_measured() {
    let fault = "kind = \"cut\"\nhost = \"hub\"\nat = \"5 s\"\nfor = \"1 s\"";
    let outcome = outcome(&with_fault("tls", fault, "online_within = \"1 ms\""), 1);
    let broken: Vec<_> = outcome.properties.broken().map(|(name, _)| name).collect();
    assert_eq!(broken, ["online_within"], "{:?}", outcome.figures);
}

/// Over QUIC a device that gets another address loses nothing.
#[test]
fn a_device_that_moves_keeps_its_quic_streams() {
    let fault = "kind = \"move\"\nhost = \"device\"\neach = true\nat = \"5 s\"";
    let outcome = held(&with_fault("quic", fault, ""), 1);
    assert!(outcome.lines.iter().any(|line| line.contains("its port of UDP is another one")));
    assert_eq!(outcome.figures["streams_failed"], 0);
}

/// Two devices with one identity take each other's place, and a slow reader is there: both are looked at.
#[test]
fn twins_and_slow_readers_are_looked_at() {
    for (name, property) in
        [("product-twins", "newest_wins_now"), ("product-slow-reader", "slow_reader_isolated")]
    {
        let file = format!("{}/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let outcome = held(&std::fs::read_to_string(file).unwrap(), 1);
        assert!(outcome.properties.always[property].checked > 0, "{name}");
    }
}

/// A service that ends its half early and one that does it late: both hear all, and the runs are not the same.
#[test]
fn a_service_may_close_its_half_early_or_late() {
    let played = |both_ways: bool, share: u32, session: bool| {
        let mut scenario = towline_sim::scenarios::named("half-closes").unwrap().unwrap();
        for work in &mut scenario.work {
            work.half_closes = Some(Share(share * 10_000));
            (work.both_ways, work.session) = (both_ways, session);
            (work.resets, work.stops) = (Share(0), Share(0));
        }
        scenario.faults.clear();
        scenario.expect.sometimes.clear();
        let plan = scenario.expand(3, Some(Backend::Turmoil)).unwrap();
        let outcome = run(&plan, Sink::new()).unwrap();
        assert!(outcome.properties.held(), "{share} % {both_ways}: {:?}", outcome.properties);
        outcome.hash
    };
    for session in [true, false] {
        for both_ways in [true, false] {
            assert_ne!(
                played(both_ways, 0, session),
                played(both_ways, 100, session),
                "{both_ways} {session}"
            );
        }
    }
}
