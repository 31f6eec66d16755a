//! The stories of the whole product, each with a few seeds; more of them: `TOWLINE_SEEDS=0..100`, or `cargo sim sweep`.
#![allow(clippy::unwrap_used, reason = "tests")]

use towline_sim::run::{Ended, Outcome, Sink, run};
use towline_sim::scenario::{Backend, parse};

const SEEDS: u64 = 3;

fn outcome(name: &str, seed: u64) -> Outcome {
    let file = format!("{}/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let scenario =
        parse(&file, &std::fs::read_to_string(&file).unwrap()).unwrap_or_else(|error| panic!("{error:?}"));
    let plan = scenario.expand(seed, Some(Backend::Turmoil)).unwrap();
    run(&plan, Sink::new()).unwrap()
}

fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var("TOWLINE_SEEDS").unwrap_or_default();
    let given = text.split_once("..").map(|(from, to)| from.parse().unwrap()..to.parse().unwrap());
    given.unwrap_or(0..SEEDS)
}

fn holds(name: &str) {
    let (mut failed, mut hashes) = (Vec::new(), Vec::new());
    for seed in seeds() {
        let outcome = outcome(name, seed);
        if seed < SEEDS {
            hashes.push(outcome.hash.clone());
        }
        let broken: Vec<_> = outcome.properties.broken().collect();
        if !broken.is_empty() || outcome.ended != Ended::Done {
            failed.push(format!("seed {seed}: {broken:?} {:?} {:?}", outcome.ended, outcome.waiting));
        }
    }
    assert!(failed.is_empty(), "{name}: {}", failed.join("\n"));
    if seeds() == (0..SEEDS) {
        check_golden(name, &hashes);
    }
}

/// Holds the hashes of the first seeds against those that are written down, for every machine and every build. A change is
/// one of what the product sends, or of the simulator. If it is meant, run this with `TOWLINE_BLESS=1`.
fn check_golden(name: &str, hashes: &[String]) {
    let file = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let found: String = hashes.iter().map(|hash| format!("{hash}\n")).collect();
    if std::env::var_os("TOWLINE_BLESS").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&file).unwrap(), "{name}");
}

macro_rules! stories {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            holds($name);
        })*
    };
}

stories! {
    a_hub_that_crashes: "product-hub-crash",
    power_that_fails: "product-power-loss",
    udp_that_is_blocked: "product-udp-blocked",
    two_devices_with_one_identity: "product-twins",
    a_hub_that_drains: "product-drain",
    keystrokes_beside_a_copy: "product-keys-beside-copy",
    a_slow_reader_beside_keystrokes: "product-slow-reader",
    credentials_that_expire: "product-expiry",
    a_proxy_that_dies: "product-proxy-dies",
    a_radio_that_loses_packets: "product-lossy-radio",
    a_bad_day: "product-bad-day",
    a_session_that_hops_from_kind_to_kind: "product-kind-hop",
    sessions_through_a_hub_that_crashes: "product-session-hub-crash",
    a_session_whose_ends_move: "product-session-moves",
    a_network_that_is_gone_for_a_while: "product-session-outage",
    two_hubs_of_which_one_dies: "product-two-hubs",
    two_hubs_of_which_one_drains: "product-drain-two-hubs",
}
