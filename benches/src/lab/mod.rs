//! The link laboratory: the kernel's own TCP and UDP over lines that look like people's.
//!
//! Two network namespaces with a TUN device each, and between them a thread that takes each packet from one and gives it to
//! the other when it would have arrived. What becomes of a packet is the simulator's arithmetic
//! ([`towline_sim::link`]), and so are the [profiles](towline_sim::profile). [`calibrate`] holds what comes of it against
//! theory.

pub mod calibrate;
mod line;
mod namespace;
pub mod over;
pub(crate) mod stage;
mod wire;

pub use namespace::{Namespace, become_root_of_own};
pub use wire::{Ends, Lab, Report};
pub(crate) use wire::{TRIES, in_time};
