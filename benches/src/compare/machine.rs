//! On what, of what and when: what somebody needs to judge figures, and to repeat them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ways::Way;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The model of its processors.
    pub cpu: String,
    /// How many this process may use.
    pub cores: usize,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// The kernel.
    pub kernel: String,
}

/// What was measured, and what it was made with.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// The product.
    pub towline: &'static str,
    /// The compiler.
    pub rustc: Option<&'static str>,
    /// The peers, as they say, and the quinn that is measured without a hub.
    pub peers: Vec<(String, Option<String>)>,
}

impl Machine {
    /// This one. What the system does not tell is "unknown".
    pub(super) fn this() -> anyhow::Result<Self> {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
            line.map(|(_, value)| value.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        let kibibytes = memory.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: thread::available_parallelism()?.into(),
            memory_bytes: kibibytes.unwrap_or(0) * 1024,
            kernel: format!("Linux {}", kernel.trim()),
        })
    }
}

impl Versions {
    pub(super) fn of(ways: &[Way]) -> Self {
        let peers = ways.iter().filter_map(|way| match way {
            Way::Peer(peer) => Some((peer.name.to_owned(), peer.version())),
            Way::BareQuic => Some((
                way.name(),
                option_env!("TOWLINE_BENCH_QUINN").map(|version| format!("quinn {version}")),
            )),
            Way::Direct | Way::Tunnels(_) | Way::EndToEnd(_) => None,
        });
        Self {
            towline: env!("CARGO_PKG_VERSION"),
            rustc: option_env!("TOWLINE_BENCH_RUSTC"),
            peers: peers.collect(),
        }
    }
}

/// The commit of the source tree that this program was built in, and whether it has changes; `None` where there is no tree
/// any more, or no git.
pub(super) fn commit() -> Option<String> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").arg("-C").arg(tree).args(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let is_changed = git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
    Some(if is_changed { format!("{commit}, with changes") } else { commit })
}

/// The command line, as one would type it; the program without its folder.
pub(super) fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_plain = |word: &str| {
        let plain = |char: char| char.is_ascii_alphanumeric() || "-_./,=:+".contains(char);
        !word.is_empty() && word.chars().all(plain)
    };
    let quoted =
        words.map(|word| if is_plain(&word) { word } else { format!("'{}'", word.replace('\'', "'\\''")) });
    [program].into_iter().chain(quoted).collect::<Vec<_>>().join(" ")
}

/// The time, as in `2026-01-31T12:00:00Z`.
pub(super) fn now() -> anyhow::Result<String> {
    Ok(OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?)
}
