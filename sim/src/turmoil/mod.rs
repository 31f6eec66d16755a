//! The real product in simulated time, over turmoil's sockets.
//!
//! turmoil gives each host a runtime whose clock stands still until all have done what there was to do, and sockets
//! between them. What it does not have is in [`air`]: rates, queues, losses, jitter, and faults that TCP heals. What it
//! draws from the system is drawn from the seed in [`crypto`](crate::crypto).

pub mod air;
mod app;
pub mod cast;
mod chaos;
mod fault;
mod firewall;
pub mod line;
mod look;
pub mod network;
mod play;
mod stage;
mod tcp;
mod udp;
mod world;

pub use world::run;
