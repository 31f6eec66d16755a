//! The laboratory: looks for mistakes where tests do not reach.
//!
//! A [`scenario`] says what happens in a world of hubs, devices and services; with a seed it becomes a plan, and
//! [`run`](mod@run) tells what came of it, always the same. [`explore`] walks every interleaving of two real sessions,
//! within scopes that are small enough to be exhausted. Under `--cfg towline_sabotage` the module `sabotage` arms known
//! bugs, to see that they are found.

pub mod cli;
pub mod des;
#[cfg(towline_sabotage)]
mod drawn;
pub mod event;
pub mod expect;
pub mod explore;
pub mod link;
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
