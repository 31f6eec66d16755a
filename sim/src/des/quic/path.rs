//! The watch over the path: whether anything comes back over UDP.
//!
//! In: looks, now and then. Out: wishes for a sign of life, and the verdict. The rule is the product's own.

use std::time::Duration;

use towline::link_config;
use towline_engine::Side::Client;
use towline_transports::quic::{self, Pace, Silence, Verdict};

use super::super::endpoint::nanos;
use super::super::world::{Near, Task, World};
use super::side::Side;

impl World<'_> {
    /// Whether the endpoint is still reached over UDP. A link in use is watched more closely, as in the product.
    pub(in super::super) fn look_at_path(&mut self, conn: usize, look: u64) {
        if self.conns[conn].quic.as_ref().is_none_or(|quic| quic.look != look) {
            return;
        }
        let keep_alive = link_config(Client).keep_alive;
        let is_up = matches!(self.conns[conn].near, Near::Up(_));
        let quic = self.quic_of(conn);
        let Some(side) = quic.sides[0].as_mut().filter(|_| is_up) else { return };
        let pace = pace(side, keep_alive);
        let received = side.connection.stats().udp_rx.datagrams;
        match quic.silence.look(received, pace, quic::patience(side.connection.rtt())) {
            Verdict::Fine => {}
            Verdict::Ask => {
                side.ask_for_a_sign_of_life(link_config(Client).session_window);
                self.quic.dirty.insert((conn, 0));
            }
            Verdict::Dark => {
                self.sink.sometimes("path_went_dark", true);
                return self.link_lost(conn, "nothing comes back over UDP", None);
            }
        }
        self.look_later(conn);
    }

    fn look_later(&mut self, conn: usize) {
        let keep_alive = link_config(Client).keep_alive;
        let quic = self.quic_of(conn);
        let Some(side) = &quic.sides[0] else { return };
        let pace = pace(side, keep_alive);
        quic.look += 1;
        let task = Task::Path(conn, quic.look);
        self.queue.push(self.now + nanos(pace.look), task);
    }

    /// The link is up, or has come into use: from now on it is watched, or watched more closely.
    pub(in super::super) fn watch_path(&mut self, conn: usize) {
        let is_up = matches!(self.conns[conn].near, Near::Up(_));
        let Some(quic) = self.conns[conn].quic.as_mut().filter(|_| is_up) else { return };
        let Some(side) = &quic.sides[0] else { return };
        quic.silence = Silence::since(side.connection.stats().udp_rx.datagrams);
        self.look_later(conn);
    }
}

/// How closely an endpoint looks at its link: it has no other way, so at rest it waits for the keep-alive's answer.
fn pace(side: &Side, keep_alive: Option<Duration>) -> Pace {
    if side.is_in_use() { Pace::IN_USE } else { Pace::at_rest(keep_alive) }
}
