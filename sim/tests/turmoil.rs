//! The real hub, device and service in simulated time.
#![allow(clippy::unwrap_used, reason = "tests")]

use towline_sim::run::{Ended, Outcome, Sink, run};
use towline_sim::scenario::{Backend, parse};

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
