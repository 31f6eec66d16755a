//! The stories of the whole product, each with a few seeds. More of them: `cargo sim sweep`.
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
    let mut failed = Vec::new();
    for seed in seeds() {
        let outcome = outcome(name, seed);
        let broken: Vec<_> = outcome.properties.broken().collect();
        if !broken.is_empty() || outcome.ended != Ended::Done {
            failed.push(format!("seed {seed}: {broken:?} {:?} {:?}", outcome.ended, outcome.waiting));
        }
    }
    assert!(failed.is_empty(), "{name}: {}", failed.join("\n"));
    assert_eq!(outcome(name, 1).hash, outcome(name, 1).hash, "{name}");
}

/// What came of the first seeds, for every machine and every build: a change here is one of what the product sends, or of
/// the simulator. If it is meant, `TOWLINE_BLESS=1 cargo test -p towline-sim --test product_scenarios golden` writes it down.
#[test]
fn golden_hashes() {
    let file = format!("{}/tests/golden/product.txt", env!("CARGO_MANIFEST_DIR"));
    let line = |name: &&str| {
        let hashes = [0, 1].map(|seed| outcome(name, seed).hash);
        format!("{name} {}\n", hashes.join(" "))
    };
    let found: String = NAMES.iter().map(line).collect();
    if std::env::var_os("TOWLINE_BLESS").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&file).unwrap());
}

macro_rules! stories {
    ($($test:ident: $name:literal),* $(,)?) => {
        const NAMES: &[&str] = &[$($name),*];

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
    a_slow_reader_beside_keystrokes: "product-slow-reader",
    credentials_that_expire: "product-expiry",
    a_proxy_that_dies: "product-proxy-dies",
    a_radio_that_loses_packets: "product-lossy-radio",
    a_bad_day: "product-bad-day",
}
