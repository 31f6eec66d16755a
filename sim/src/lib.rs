//! The laboratory: looks for mistakes where tests do not reach.
//!
//! A [`scenario`] says what happens in a world of hubs, devices and services; with a seed it becomes a plan, and
//! [`run`](mod@run) tells what came of it, always the same. [`explore`] walks every interleaving of two real sessions,
//! within scopes that are small enough to be exhausted. Under `--cfg towline_sabotage` the module `sabotage` arms known
//! bugs, to see that they are found.
//!
//! A scenario that needs code is a struct like any other, and a property that no scenario has is a closure. Here a hub
//! crashes in the very moment in which a session is on a pipe again, which no file can say; and no stream may be silent for
//! longer than the hub is gone and endpoints take to come back:
//!
//! ```
//! use std::collections::BTreeMap;
//! use towline_sim::event::{Event, What};
//! use towline_sim::run::{Looked, Sink, run};
//! use towline_sim::scenario::{Fault, FaultKind, Span};
//! use towline_sim::shrink::shrink;
//!
//! /// Watches whether each half of a stream that has begun goes on, or ends, within this many nanoseconds.
//! fn silence(most: u64) -> impl FnMut(&Event) -> Option<Looked> {
//!     let mut heard = BTreeMap::new();
//!     move |event| {
//!         let silent = heard.iter().find(|(_, at)| event.time - **at > most);
//!         let silent = silent.map(|((_, stream), at)| format!("{stream} is silent since {at} ns"));
//!         match &event.what {
//!             What::StreamRead { stream, .. } => _ = heard.insert((event.who.clone(), stream.clone()), event.time),
//!             What::StreamEnded { stream, .. } => _ = heard.remove(&(event.who.clone(), stream.clone())),
//!             _ => {}
//!         }
//!         Some(("no_long_silence", silent.map_or(Ok(()), Err)))
//!     }
//! }
//!
//! let scenario = towline_sim::scenarios::named("link-loss").ok_or("it is there")??;
//! let resumed = |event: &Event| matches!(event.what, What::SessionAttached { epoch: 1.., .. });
//! let mut found = None;
//! for seed in 0..100 {
//!     let plan = scenario.expand(seed, None)?;
//!     let lines = run(&plan, Sink::keeping())?.lines;
//!     let events = lines.iter().map(|line| serde_json::from_str::<Event>(line)).collect::<Result<Vec<_>, _>>()?;
//!     if let Some(event) = events.iter().find(|event| resumed(event)) {
//!         found = Some((plan, event.time));
//!         break;
//!     }
//! }
//! let (mut plan, again) = found.ok_or("some session is resumed")?;
//! // Until then all goes as it went: the same plan and seed are the same run.
//! let (kind, host, lasts) = (FaultKind::Crash, "hub".to_owned(), Some(Span::seconds(2)));
//! plan.faults.push(Fault { at: Span(again), kind, host, lasts });
//! plan.faults.sort_by_key(|fault| fault.at);
//!
//! let outcome = run(&plan, Sink::new().watched_by(silence(20_000_000_000)))?;
//! assert!(outcome.properties.held(), "{:?}", outcome.properties.broken().collect::<Vec<_>>());
//! // A bound that nobody could keep is broken, and what is left of the plan is what it takes.
//! let mut fails = |plan: &_| {
//!     let outcome = run(plan, Sink::new().watched_by(silence(1_000_000_000)));
//!     outcome.is_ok_and(|outcome| outcome.properties.first.as_deref() == Some("no_long_silence"))
//! };
//! assert!(fails(&plan));
//! assert_eq!(shrink(plan, &mut fails).streams.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cli;
pub mod corpus;
pub mod crypto;
pub mod des;
#[cfg(towline_sabotage)]
mod drawn;
pub mod engine_log;
pub mod event;
pub mod expect;
pub mod explore;
pub mod issuer;
pub mod link;
pub mod output;
mod pattern;
pub mod profile;
pub mod property;
pub mod random;
pub mod run;
#[cfg(towline_sabotage)]
pub mod sabotage;
mod say;
pub mod scenario;
pub mod scenarios;
pub mod shrink;
mod table;
pub mod turmoil;
