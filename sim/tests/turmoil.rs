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
