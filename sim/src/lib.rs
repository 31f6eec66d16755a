//! The laboratory: looks for mistakes where tests do not reach.
//!
//! A [`scenario`] says what happens in a world of hubs, devices and services; with a seed it becomes a plan, and
//! [`run`](mod@run) tells what came of it, always the same. [`explore`] walks every interleaving of two real sessions,
//! within scopes that are small enough to be exhausted. Under `--cfg towline_sabotage` the module `sabotage` arms known
//! bugs, to see that they are found.
//!
//! A scenario that needs code is a struct like any other:
//!
//! ```
//! use towline_sim::run::{Sink, run};
//! use towline_sim::scenario::{Count, FaultKind, FaultSpec, Range, Span};
//!
//! let mut scenario = towline_sim::scenarios::named("nat-forgets").ok_or("it is there")??;
//! scenario.devices[0].count = Some(Count(3));
//! // Each of the three devices moves, one second after the other.
//! for index in 0..3 {
//!     let at = Range::exactly(Span::seconds(5 + index));
//!     let times = Range::exactly(Count(1));
//!     let host = format!("device-{index}");
//!     scenario.faults.push(FaultSpec { kind: FaultKind::Move, host, each: false, at, lasts: None, times });
//! }
//! let plan = scenario.expand(7, None)?;
//! let outcome = run(&plan, Sink::new())?;
//! assert!(outcome.properties.held(), "{:?}", outcome.properties.broken().collect::<Vec<_>>());
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
mod pattern;
pub mod profile;
pub mod property;
pub mod random;
pub mod run;
#[cfg(towline_sabotage)]
pub mod sabotage;
pub mod scenario;
pub mod scenarios;
pub mod shrink;
mod table;
pub mod turmoil;
