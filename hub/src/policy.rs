//! Who may open what.

use std::fmt;
use std::str::FromStr;

use crate::identity::{Identity, Name};

/// Decides who may open what. The hub asks for each tunnel.
pub trait Policy: fmt::Debug + Send + 'static {
    /// Whether the service endpoint `asker` may open `service` of `device`.
    fn may_open(&self, asker: &Identity, device: &Name, service: &Name) -> bool;
}

/// Every service endpoint of the trust domain may open everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn may_open(&self, _: &Identity, _: &Name, _: &Name) -> bool {
        true
    }
}

/// A service endpoint may open what one of the rules allows.
#[derive(Clone, Debug, Default)]
pub struct Rules(pub Vec<Rule>);

impl Policy for Rules {
    fn may_open(&self, asker: &Identity, device: &Name, service: &Name) -> bool {
        self.0.iter().any(|rule| {
            matches(&rule.asker, asker.name.as_str())
                && matches(&rule.device, device.as_str())
                && matches(&rule.service, service.as_str())
        })
    }
}

/// `ASKER:DEVICE:SERVICE`, where `*` stands for any characters: `ops:press-*:ssh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    asker: String,
    device: String,
    service: String,
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rule reads ASKER:DEVICE:SERVICE, such as ops:press-*:ssh")]
pub struct BadRule;

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let parts: Vec<_> = text.split(':').collect();
        let is_pattern = |part: &&str| -> bool {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-*".contains(c))
        };
        match parts[..] {
            [asker, device, service] if parts.iter().all(is_pattern) => {
                Ok(Self { asker: asker.to_owned(), device: device.to_owned(), service: service.to_owned() })
            }
            _ => Err(BadRule),
        }
    }
}

/// Whether `text` fits `pattern`, in time proportional to the product of their lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*", "press-7", true),
            ("press-7", "press-7", true),
            ("press-7", "press-70", false),
            ("press-*", "press-70", true),
            ("press-*", "lathe", false),
            ("*-7", "press-7", true),
            ("p*s*7", "press-7", true),
            ("a*a", "a", false),
            ("a*b*a", "aba", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} and {text}");
        }
    }

    #[test]
    fn one_rule_that_fits_is_enough() {
        let rules = Rules(vec!["ops:*:ssh".parse().unwrap(), "backup:press-*:rsync".parse().unwrap()]);
        let may = |asker: &str, device: &str, service: &str| {
            let asker: Identity = format!("spiffe://d/service/{asker}").parse().unwrap();
            rules.may_open(&asker, &device.parse().unwrap(), &service.parse().unwrap())
        };
        assert!(may("ops", "press-7", "ssh"));
        assert!(may("backup", "press-7", "rsync"));
        assert!(!may("backup", "press-7", "ssh"));
        assert!(!may("backup", "lathe", "rsync"));
        assert!(!may("intern", "press-7", "ssh"));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in ["", "a", "a:b", "a:b:c:d", "a::c", "a:b c:d", "a:b:"] {
            assert_eq!(text.parse::<Rule>(), Err(BadRule), "{text}");
        }
    }
}
