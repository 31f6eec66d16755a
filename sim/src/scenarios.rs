//! The scenarios that come with the laboratory: `sim/scenarios/*.toml`.

use crate::scenario::{Backend, Malformed, Scenario, parse_for};

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        /// Each file's name, and what is in it.
        pub const ALL: &[(&str, &str)] = &[
            $((concat!("sim/scenarios/", $name, ".toml"), include_str!(concat!("../scenarios/", $name, ".toml")))),*
        ];
    };
}

scenarios![
    "address-change",
    "device-crash",
    "device-sleeps",
    "drain-under-load",
    "drained-sessions",
    "gone-too-long",
    "half-closes",
    "hasty-close",
    "hub-crash",
    "hub-power-loss",
    "hub-suspended",
    "intruder",
    "keys-beside-copy",
    "late-reset",
    "link-loss",
    "long-fat-pipe",
    "many-small-streams",
    "metered",
    "nat-forgets",
    "one-way-cut",
    "one-way-silence",
    "product-bad-day",
    "product-drain",
    "product-drain-two-hubs",
    "product-expiry",
    "product-hub-crash",
    "product-keys-beside-copy",
    "product-kind-hop",
    "product-lossy-radio",
    "product-power-loss",
    "product-proxy-dies",
    "product-session-hub-crash",
    "product-session-moves",
    "product-session-outage",
    "product-slow-reader",
    "product-twins",
    "product-two-hubs",
    "product-udp-blocked",
    "proxy-dies",
    "quic-address-change",
    "quic-bad-day",
    "quic-lossy",
    "quic-udp-blocked",
    "reconnect-storm",
    "satellite",
    "sip-by-sip",
    "slow-reader",
    "slow-readers",
    "small-windows",
    "split-brain",
    "storm-small",
    "two-of-a-name",
    "without-resumption",
];

/// The scenario with this name.
///
/// # Errors
///
/// If its file is malformed, which a test rules out.
pub fn named(name: &str) -> Option<Result<Scenario, Malformed>> {
    named_for(name, None)
}

/// The same, for a backend that somebody has chosen.
///
/// # Errors
///
/// If that backend cannot run it.
pub fn named_for(name: &str, backend: Option<Backend>) -> Option<Result<Scenario, Malformed>> {
    let file = ALL.iter().find(|(file, _)| file_name(file) == name)?;
    Some(parse_for(file.0, file.1, backend))
}

/// All of their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(file, _)| file_name(file))
}

fn file_name(file: &str) -> &str {
    file.trim_start_matches("sim/scenarios/").trim_end_matches(".toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Sink, run};
    use crate::scenario::Span;

    #[test]
    fn all_can_be_read_and_are_named_like_their_files() {
        for name in names() {
            let scenario = named(name).expect("it was listed").unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.name, name);
        }
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let files = std::fs::read_dir(directory).expect("it is there").count();
        assert_eq!(files, ALL.len(), "a file that is not listed runs never");
    }
    /// What its story says must not be: with so little patience each queue is a death, and each death costs bytes.
    #[test]
    fn a_metered_line_that_is_full_is_taken_for_dead_by_nobody() {
        let mut scenario = named("metered").expect("it was listed").unwrap_or_else(|error| panic!("{error}"));
        let breaks = |scenario: &Scenario| {
            let plan = scenario.expand(0, None).expect("it makes sense");
            let outcome = run(&plan, Sink::new()).expect("it runs");
            outcome.properties.broken().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert!(breaks(&scenario).is_empty());
        scenario.session.idle_timeout = Some(Span::millis(2500));
        scenario.session.keep_alive = Some(Span::millis(500));
        assert_eq!(breaks(&scenario), ["resumes_at_most"]);
    }
}
