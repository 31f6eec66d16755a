//! The fast backend: sans-IO sessions and the hub's sans-IO core on a queue of events.
//!
//! In: a plan. Out: events, properties and figures. `world.rs` is what there is and the loop; `network.rs` brings packets
//! from host to host; `quic.rs` is what they carry for links of QUIC; `endpoint.rs` and `hub.rs` are the two ends of links; `session.rs` is sessions and the tunnels that
//! carry them, `app.rs` what applications do with streams; `faults.rs`, `intruder.rs` and `drain.rs` what goes wrong.
//! `watch.rs` sees what goes out and arrives, `look.rs` looks at what must hold, by the rules in `judge.rs`, and `finish.rs`
//! at what is left.
//!
//! Real are the engine's `Session` and `Acceptor`, the hub's `Core`, `Lobby` and `Backoff`, and for links of QUIC quinn's
//! connections and their TLS. Modelled are the network, the hub's other links (their handshakes take two round trips and the
//! hub's processor, their messages and the tunnels' bytes go straight onto the network) and the applications. There is no
//! TLS on those, and none end to end.

mod app;
mod app_state;
mod drain;
mod endpoint;
mod faults;
mod finish;
mod hub;
mod intruder;
mod judge;
mod look;
mod network;
mod queue;
mod quic;
mod session;
mod watch;
mod world;

use crate::explore::catch;
use crate::run::{Rest, Sink};
use crate::scenario::Plan;
use world::World;

/// Runs a plan. A panic of the engine, of the core, or of the observer on the wire is a broken property.
pub(crate) fn run(plan: &Plan, sink: &mut Sink) -> anyhow::Result<Rest> {
    let mut world = World::new(plan, sink)?;
    let outcome = catch(|| world.run());
    let (now, waiting) = (world.now, world.waiting());
    drop(world);
    match outcome {
        Ok(rest) => Ok(rest),
        Err(broken) => {
            sink.always(broken.property, false, now, "engine", || broken.detail());
            Ok(Rest { ended: crate::run::Ended::Panicked, simulated: now, waiting })
        }
    }
}
