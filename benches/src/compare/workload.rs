//! What is done over each way, and what is made of its samples.

use serde::Serialize;

use crate::stats::{self, Spread};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// The way is started, and its first request answered.
    Cold,
    /// A request on a new connection, of a way that has carried something.
    Request,
    /// A key that is typed, alone.
    Key,
    /// An upload.
    Upload,
    /// A key beside it.
    KeyBesideUpload,
    /// A download.
    Download,
    /// A key beside it.
    KeyBesideDownload,
    /// Many uploads at once.
    SharedUpload,
    /// A key beside a download that nobody reads.
    SlowReader,
    /// A small message beside the small messages of others, where packets are lost.
    HeadOfLine,
}

/// What its samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// 10^6 bits a second.
    #[serde(rename = "Mbit/s")]
    Rate,
}

impl Unit {
    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Millis => "ms",
            Self::Rate => "Mbit/s",
        }
    }
}

/// A workload, as a reader of the report is told of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct About {
    /// Which.
    pub workload: Workload,
    /// Its heading.
    pub title: &'static str,
    /// What its samples are.
    pub unit: Unit,
    /// What is done, and what a sample is.
    pub about: &'static str,
}

/// One number of a workload: of each round, the middle of the rounds, and how far they are apart.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Which.
    pub name: &'static str,
    /// Over the rounds.
    pub spread: Spread,
    /// What it is, as a share of the same without a tunnel.
    pub against_no_tunnel: Option<f64>,
}

impl Workload {
    /// All, in the order in which a report has them.
    pub const ALL: [Self; 10] = [
        Self::Cold,
        Self::Request,
        Self::Key,
        Self::KeyBesideUpload,
        Self::KeyBesideDownload,
        Self::Upload,
        Self::Download,
        Self::SharedUpload,
        Self::SlowReader,
        Self::HeadOfLine,
    ];

    /// What its samples are.
    pub fn unit(self) -> Unit {
        match self {
            Self::Upload | Self::Download | Self::SharedUpload => Unit::Rate,
            Self::Cold
            | Self::Request
            | Self::Key
            | Self::KeyBesideUpload
            | Self::KeyBesideDownload
            | Self::SlowReader
            | Self::HeadOfLine => Unit::Millis,
        }
    }

    /// Whether it needs many connections, or a line of its own, and more time.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::SharedUpload | Self::SlowReader | Self::HeadOfLine)
    }

    /// Whether it is a key beside something.
    pub(super) fn is_key_beside(self) -> bool {
        matches!(self, Self::KeyBesideUpload | Self::KeyBesideDownload | Self::SlowReader)
    }

    /// What it is called in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Request => "request",
            Self::Key => "key",
            Self::Upload => "upload",
            Self::KeyBesideUpload => "key-beside-upload",
            Self::Download => "download",
            Self::KeyBesideDownload => "key-beside-download",
            Self::SharedUpload => "shared-upload",
            Self::SlowReader => "slow-reader",
            Self::HeadOfLine => "head-of-line",
        }
    }

    /// As a reader of the report is told of it.
    pub fn about(self) -> About {
        let (title, about) = match self {
            Self::Cold => (
                "Cold connect",
                "From the start of the part that dials over the line until its first request (1 KiB there and back) is \
                 answered. One sample a round. A peer's includes the start of a process; without a tunnel it is a TCP \
                 connection and the request.",
            ),
            Self::Request => (
                "Request on a new connection",
                "Connect to the local port, 1 KiB there and back, on a way that has carried something before. Requests \
                 begin at fixed times, whether or not the one before is answered.",
            ),
            Self::Key => (
                "A key, alone",
                "One byte on an open connection until its echo is back. Keys are typed at fixed times, whether or not \
                 earlier echoes are back, so that a pause delays all keys that were typed in it.",
            ),
            Self::KeyBesideUpload => (
                "A key beside an upload",
                "The same while another connection uploads as much as it can, and has done so since before the first key.",
            ),
            Self::KeyBesideDownload => {
                ("A key beside a download", "The same while another connection downloads as much as it can.")
            }
            Self::Upload => (
                "Upload",
                "One connection sends as much as it can. A sample is what arrived at the target in a quarter of a second, from \
                 the connection's begin, slow start included; the figure is the mean of a round.",
            ),
            Self::Download => (
                "Download",
                "The same the other way: a sample is what arrived at the near end in a quarter of a second.",
            ),
            Self::SharedUpload => (
                "64 uploads at once",
                "64 connections send as much as they can. A sample is the mean rate of one of them; the figures are the rate \
                 of all together, and Jain's fairness index of their shares: 1 if all got the same, 1/64 if one got all.",
            ),
            Self::SlowReader => (
                "A key beside a reader that has stopped",
                "Another connection has asked for a download and reads nothing of it, so that all windows on its way are \
                 full. Keys as before.",
            ),
            Self::HeadOfLine => (
                "A small message beside others, with losses",
                "On a line of the same profile that loses one packet in a hundred, one connection sends 32 bytes at fixed \
                 times and has them echoed, and so do four others. A loss should delay only the messages of the connection \
                 whose packet it was.",
            ),
        };
        About { workload: self, title, unit: self.unit(), about }
    }

    /// What is made of the samples of each round. The first figure is the one to compare.
    pub fn figures(self, rounds: &[Vec<f64>]) -> Vec<Figure> {
        let figure = |name, of: &dyn Fn(&[f64]) -> f64| {
            let spread = Spread::of(rounds.iter().filter(|round| !round.is_empty()).map(|round| of(round)))?;
            Some(Figure { name, spread, against_no_tunnel: None })
        };
        let figures = match self {
            Self::Cold => vec![figure("time", &mean)],
            Self::Upload | Self::Download => vec![figure("mean", &mean)],
            Self::SharedUpload => {
                vec![figure("all together", &|round| round.iter().sum()), figure("fairness", &fairness)]
            }
            Self::Request
            | Self::Key
            | Self::KeyBesideUpload
            | Self::KeyBesideDownload
            | Self::SlowReader
            | Self::HeadOfLine => vec![
                figure("p50", &|round| quantile(round, 0.5)),
                figure("p99", &|round| quantile(round, 0.99)),
                figure("max", &|round| quantile(round, 1.0)),
            ],
        };
        figures.into_iter().flatten().collect()
    }
}

/// What is added to a key alone, round by round, by what it is beside.
pub(super) fn added(alone: &[Vec<f64>], beside: &[Vec<f64>]) -> Vec<Figure> {
    let added = |name, part| {
        let rounds =
            alone.iter().zip(beside).filter(|(alone, beside)| !alone.is_empty() && !beside.is_empty());
        let each = rounds.map(|(alone, beside)| quantile(beside, part) - quantile(alone, part));
        Some(Figure { name, spread: Spread::of(each)?, against_no_tunnel: None })
    };
    [added("added p50", 0.5), added("added p99", 0.99)].into_iter().flatten().collect()
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

/// As [`stats::quantile`], of samples of which there are some.
fn quantile(samples: &[f64], part: f64) -> f64 {
    stats::quantile(samples, part).unwrap_or(f64::NAN)
}

/// Jain's index: 1 if all are the same (R. Jain et al., DEC-TR-301, 1984).
fn fairness(shares: &[f64]) -> f64 {
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    let sum: f64 = shares.iter().sum();
    if squares == 0.0 { 0.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_rounds() {
        let rounds = [vec![3.0, 1.0, 2.0], vec![5.0, 4.0, 6.0], Vec::new()];
        let figures = Workload::Key.figures(&rounds);
        assert_eq!(figures.iter().map(|figure| figure.name).collect::<Vec<_>>(), ["p50", "p99", "max"]);
        assert_eq!(figures[0].spread, Spread { median: 2.0, min: 2.0, max: 5.0 });
        assert_eq!(figures[2].spread, Spread { median: 3.0, min: 3.0, max: 6.0 });
    }

    #[test]
    fn what_is_added_is_of_the_same_round() {
        let (alone, beside) = ([vec![1.0, 2.0], vec![5.0, 9.0]], [vec![4.0, 8.0], vec![5.0, 10.0]]);
        let figures = added(&alone, &beside);
        assert_eq!(figures[0].spread, Spread { median: 0.0, min: 0.0, max: 3.0 });
        assert_eq!((figures[1].name, figures[1].spread.max), ("added p99", 6.0));
        assert!(added(&alone, &[Vec::new()]).is_empty());
    }

    #[test]
    fn fairness_is_one_if_all_get_the_same() {
        assert_eq!(fairness(&[2.0; 64]), 1.0);
        assert_eq!(fairness(&[1.0, 0.0, 0.0, 0.0]), 0.25);
        assert_eq!(fairness(&[0.0; 4]), 0.0);
    }

    #[test]
    fn names_in_files_are_those_in_json() {
        for workload in Workload::ALL {
            assert_eq!(serde_json::to_value(workload).unwrap(), workload.name());
        }
    }
}
