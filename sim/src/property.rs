//! What holds and what does not, by name.
//!
//! In: what a run sees. Out: for each property how often it was looked at, and where it was broken first. The names are
//! those of docs/ARCHITECTURE.md's invariants. `always` must hold each time, `eventually` in the end; `sometimes` must
//! happen in some run of a sweep, which shows that the sweep goes where it should.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a property was broken first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// When, in nanoseconds.
    pub time: u64,
    /// With whom.
    pub who: String,
    /// What was seen.
    pub detail: String,
}

/// What is known of a property.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How often it was looked at.
    pub checked: u64,
    /// Where it was broken first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<Broken>,
}

/// All properties of a run, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// What must hold each time it is looked at, or in the end.
    pub always: BTreeMap<String, Tally>,
    /// What should happen, and how often it did.
    pub sometimes: BTreeMap<String, u64>,
    /// Which property was broken first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
}

impl Properties {
    /// Looks at a property. Returns whether it holds.
    pub fn always(&mut self, name: &str, holds: bool, broken: impl FnOnce() -> Broken) -> bool {
        if let Some(tally) = self.always.get_mut(name) {
            tally.checked += 1;
        } else {
            self.always.insert(name.to_owned(), Tally { checked: 1, broken: None });
        }
        if !holds && let Some(tally) = self.always.get_mut(name) {
            tally.broken.get_or_insert_with(broken);
            self.first.get_or_insert_with(|| name.to_owned());
        }
        holds
    }

    /// A property was looked at so often, and held.
    pub fn looked(&mut self, name: &str, count: u64) {
        match self.always.get_mut(name) {
            Some(tally) => tally.checked += count,
            None if count == 0 => {}
            None => _ = self.always.insert(name.to_owned(), Tally { checked: count, broken: None }),
        }
    }

    /// Something that should happen sometimes did, or did not.
    pub fn sometimes(&mut self, name: &str, happens: bool) {
        match self.sometimes.get_mut(name) {
            Some(count) => *count += u64::from(happens),
            None => _ = self.sometimes.insert(name.to_owned(), u64::from(happens)),
        }
    }

    /// What was broken, in the order of names.
    pub fn broken(&self) -> impl Iterator<Item = (&str, &Broken)> {
        self.always.iter().filter_map(|(name, tally)| Some((name.as_str(), tally.broken.as_ref()?)))
    }

    /// Whether everything held.
    pub fn held(&self) -> bool {
        self.broken().next().is_none()
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (name, tally) in &other.always {
            let sum = self.always.entry(name.clone()).or_default();
            sum.checked += tally.checked;
            if sum.broken.is_none() {
                sum.broken.clone_from(&tally.broken);
            }
        }
        for (name, count) in &other.sometimes {
            *self.sometimes.entry(name.clone()).or_default() += count;
        }
        if self.first.is_none() {
            self.first.clone_from(&other.first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u64) -> Broken {
        Broken { time, who: "d".into(), detail: "seen".into() }
    }

    #[test]
    fn the_first_breach_is_kept_and_all_looks_are_counted() {
        let mut properties = Properties::default();
        properties.always("exact_prefix", true, || at(0));
        properties.always("exact_prefix", false, || at(1));
        properties.always("exact_prefix", false, || at(2));
        properties.sometimes("resumed", false);
        properties.sometimes("resumed", true);
        let tally = Tally { checked: 3, broken: Some(at(1)) };
        assert_eq!(properties.always["exact_prefix"], tally);
        assert_eq!((properties.sometimes["resumed"], properties.held()), (1, false));
        assert_eq!(properties.first.as_deref(), Some("exact_prefix"));
    }

    #[test]
    fn what_others_have_looked_at_is_counted_if_there_was_anything() {
        let mut properties = Properties::default();
        properties.looked("gapless", 0);
        assert!(properties.always.is_empty());
        properties.looked("gapless", 2);
        properties.looked("gapless", 3);
        assert_eq!(properties.always["gapless"].checked, 5);
    }

    #[test]
    fn runs_add_up() {
        let (mut sum, mut one) = (Properties::default(), Properties::default());
        one.always("no_dup", true, || at(0));
        one.sometimes("held", true);
        sum.add(&one);
        sum.add(&one);
        assert_eq!((sum.always["no_dup"].checked, sum.sometimes["held"], sum.held()), (2, 2, true));
    }
}
