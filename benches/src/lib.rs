//! Measures Towline, alone and beside others who do the same.
//!
//! `benches/README.md` says what is measured, how, and how to read it. The program is `main.rs`; `figures` are the
//! project's own numbers, `tunnel` is the whole product, `work` and `muxer` are the comparison with peers in memory, `transports` and
//! `idle` the one over real sockets, and `compare` the one with other products over the lines of `lab`.
//!
//! Counts (bytes, allocations, instructions) come out the same on every run, and are to be trusted before times.

pub mod alloc;
pub mod baseline;
pub mod clock;
pub mod compare;
pub mod figures;
pub mod idle;
pub mod instructions;
pub mod lab;
pub mod muxer;
pub mod muxers;
pub mod pair;
mod process;
pub mod report;
pub mod scale;
pub mod stats;
pub mod transports;
pub mod tunnel;
pub mod work;
