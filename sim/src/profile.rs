//! Lines as people have them: what a link is like in each direction, and who says so.
//!
//! A profile is a file, `sim/profiles/*.toml`, made of what the simulator's links are made of.

use serde::Deserialize;

use crate::link::LinkSpec;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Whose line it is.
    pub about: String,
    /// Where the figures come from.
    pub source: String,
    /// Whether no UDP passes.
    #[serde(default)]
    pub blocks_udp: bool,
    /// From the end that calls to the rest of the world.
    pub up: LinkSpec,
    /// And back.
    pub down: LinkSpec,
}

macro_rules! profiles {
    ($($name:literal),* $(,)?) => {
        /// Each profile's name, and what is in its file.
        const ALL: &[(&str, &str)] = &[$(($name, include_str!(concat!("../profiles/", $name, ".toml")))),*];
    };
}

profiles![
    "lan",
    "dsl",
    "lte",
    "3g",
    "satellite",
    "factory-wifi",
    "office",
    "slow-line",
    "long-line",
    "lossy-line"
];

/// The names of those that come with the laboratory.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// The one with this name, of those that come with the laboratory.
pub fn named(name: &str) -> Option<Profile> {
    let (_, text) = ALL.iter().find(|(known, _)| *known == name)?;
    Some(toml::from_str(text).expect("those that come with the laboratory are well formed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_them_can_be_read() {
        for name in names() {
            let profile = named(name).unwrap();
            assert!(!profile.source.is_empty() && profile.up.rate.and(profile.down.rate).is_some(), "{name}");
        }
        assert_eq!(named("telegraph"), None);
    }
}
