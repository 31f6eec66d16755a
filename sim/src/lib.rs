//! Looks for mistakes in the engine where tests do not reach.
//!
//! [`explore`] walks every interleaving of two real sessions, within scopes that are small enough to be exhausted. Under
//! `--cfg towline_sabotage` the module `sabotage` arms known bugs, to see that they are found.

pub mod explore;
#[cfg(towline_sabotage)]
mod random;
#[cfg(towline_sabotage)]
pub mod sabotage;
mod table;
