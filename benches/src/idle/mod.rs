//! What a connection costs the end that holds it, while nobody says anything.
//!
//! A process of its own holds them, so that its memory is that of one end. It is measured twice, and the difference is
//! divided by the connections that came in between: so what there is once is in no figure.

pub mod holder;
pub(crate) mod load;
mod sessions;

use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use towline::Transport;

use crate::report;
use crate::stats::short;
use crate::transports::contender;
use crate::transports::trust::Trust;
use holder::{Held, Holder};

/// What is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// TCP connections, with nothing around them
    Tcp,
    /// The least that tokio-rustls needs: a task that waits for a byte, and no more left of the handshake
    Rustls,
    /// Our links over TLS
    TowlineTls,
    /// Devices of a whole hub, over TLS
    HubTls,
    /// Our links over TLS over WebSocket over TLS
    TowlineWss,
    /// Devices of a whole hub, over WebSocket
    HubWss,
    /// quinn with its defaults
    Quinn,
    /// quinn without discovery of the MTU, without datagrams, and with 16 streams
    QuinnTuned,
    /// Our links over QUIC
    TowlineQuic,
    /// Devices of a whole hub, over QUIC
    HubQuic,
    /// Sessions end to end that have lost their tunnel, at a device
    DetachedSession,
}

/// Who holds connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Contender(contender::Name),
    Hub(Transport),
    DetachedSessions,
}

impl Name {
    /// As it is written on the command line.
    pub fn text(self) -> String {
        self.to_possible_value().expect("no name is hidden").get_name().to_owned()
    }

    pub(crate) fn who(self) -> Who {
        match self {
            Self::Tcp => Who::Contender(contender::Name::Tcp),
            Self::Rustls => Who::Contender(contender::Name::Rustls),
            Self::TowlineTls => Who::Contender(contender::Name::TowlineTls),
            Self::TowlineWss => Who::Contender(contender::Name::TowlineWss),
            Self::Quinn => Who::Contender(contender::Name::Quinn),
            Self::QuinnTuned => Who::Contender(contender::Name::QuinnTuned),
            Self::TowlineQuic => Who::Contender(contender::Name::TowlineQuic),
            Self::HubTls => Who::Hub(Transport::Tls),
            Self::HubWss => Who::Hub(Transport::WebSocket),
            Self::HubQuic => Who::Hub(Transport::Quic),
            Self::DetachedSession => Who::DetachedSessions,
        }
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is held; nothing means all.
    pub contenders: Vec<Name>,
    /// How many connections in the end.
    pub links: usize,
    /// How long all is quiet before memory is measured.
    pub settle: Duration,
}

/// What a connection costs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Whose row.
    pub contender: Name,
    /// How many there were when it was measured first, and last.
    pub links: [usize; 2],
    /// Resident memory, in bytes.
    pub rss_bytes: f64,
    /// What is live on the heap, as it was asked for, in bytes.
    pub heap_bytes: f64,
    /// What the heap's part is made of: how many blocks of how many bytes.
    pub made_of: Vec<(f64, usize)>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// What was measured.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub missing: Vec<String>,
}

/// How many descriptors a process needs besides those of its connections.
const SPARE: usize = 100;

/// Measures one after the other.
///
/// # Errors
///
/// The system does not let a process have so many connections, or there are no certificates to be had.
pub fn measure(options: &Options) -> anyhow::Result<Results> {
    let Options { contenders, links, settle } = options;
    let most = most()?;
    if *links > most {
        bail!(
            "{links} links need {} descriptors, and a process may have {} here: \
             ask for --links {most}, or raise the hard limit (ulimit -Hn)",
            links + SPARE,
            most + SPARE
        );
    }
    let all = Name::value_variants();
    let names = if contenders.is_empty() { all } else { &contenders[..] };
    let trust = Trust::new()?;
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    let bar = report::progress(names.len());
    for &name in names {
        bar.set_message(name.text());
        match hold(name, *links, *settle, &trust) {
            Ok(row) => rows.push(row),
            Err(error) => missing.push(format!("{}: {error:#}", name.text())),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Results { rows, missing })
}

/// How many connections a process may hold here, as far as its descriptors go.
///
/// # Errors
///
/// The system does not tell.
pub fn most() -> anyhow::Result<usize> {
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    Ok(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(SPARE))
}

/// What each of these numbers of connections costs the process that holds them, one after the other.
pub(crate) fn held(
    name: Name,
    counts: &[usize],
    settle: Duration,
    trust: &Trust,
) -> anyhow::Result<Vec<Held>> {
    let mut holder = Holder::start(name, settle, trust, None)?;
    load::load(name, &mut holder, trust, counts)
}

fn hold(name: Name, links: usize, settle: Duration, trust: &Trust) -> anyhow::Result<Row> {
    let first = FIRST.min(links / 2);
    let held = held(name, &[first, links], settle, trust)?;
    let [before, after] = &held[..] else { bail!("it was asked twice, and answered {} times", held.len()) };
    let each = |bytes: i64| bytes as f64 / (links - first) as f64;
    let made_of = after.grown.iter().map(|&(size, count)| (each(count), size));
    Ok(Row {
        contender: name,
        links: [first, links],
        rss_bytes: each(after.rss_bytes - before.rss_bytes),
        heap_bytes: each(after.heap_bytes - before.heap_bytes),
        made_of: made_of.filter(|&(count, _)| count >= 0.01).take(PARTS).collect(),
    })
}

/// How many connections there are when it is measured first: until then, tables and pools have grown.
const FIRST: usize = 1000;

/// How many sizes of blocks are listed.
const PARTS: usize = 12;

/// Prints them.
///
/// # Errors
///
/// They cannot be written as JSON.
pub fn print(results: &Results, json: bool) -> anyhow::Result<()> {
    if json {
        return report::json(results);
    }
    let mut table = report::table(["IDLE CONNECTION", "RSS B", "HEAP B", "LARGEST BLOCKS"], 1);
    for Row { contender, rss_bytes, heap_bytes, made_of, .. } in &results.rows {
        let parts = made_of.iter().map(|(count, size)| format!("{} x {size}", short(*count)));
        let parts = parts.take(6).collect::<Vec<_>>().join(" + ");
        table.add_row([contender.text(), short(*rss_bytes), short(*heap_bytes), parts]);
    }
    println!("{table}\n");
    if let Some(Row { links: [first, last], .. }) = results.rows.first() {
        println!("bytes of the end that accepts, for each connection between number {first} and {last}");
    }
    results.missing.iter().for_each(|missing| println!("missing: {missing}"));
    Ok(())
}
