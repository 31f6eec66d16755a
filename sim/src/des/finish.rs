//! What a run leaves: figures, and who was waiting for what.

use super::world::{Near, World};
use crate::expect;
use crate::scenario::End;

/// What is written down whenever there is some of it.
const MEASURED: [&str; 8] = [
    expect::DONE,
    expect::FAILED,
    expect::STALL,
    expect::RESUMES,
    expect::RESUMES_OF_ONE,
    expect::MEMORY,
    expect::WINDOW,
    expect::RESIDUE,
];

impl World<'_> {
    /// Looks at what is left.
    pub(super) fn finish(&mut self) {
        self.collect_early();
        // What never happened was measured all the same.
        for name in MEASURED {
            self.sink.count(name, 0);
        }
        for (index, plan) in self.plan.streams.iter().enumerate() {
            let state = &self.streams[index];
            if !matches!(plan.end, End::Finish) || state.over != [true; 2] || state.has_failed {
                continue;
            }
            let (wanted, read) = ([plan.up.0 * plan.rounds, plan.down.0 * plan.rounds], state.read);
            self.sink.always("accepted_means_owed", read == wanted, self.now, &plan.name, || {
                format!("{read:?} bytes were read of {wanted:?}, and no error was told")
            });
        }
        for host in &self.hosts {
            if let Some(hub) = host.hub.as_ref().filter(|_| host.is_alive) {
                hub.core.check_invariants();
            }
        }
        self.sink.most(expect::ONLINE, self.online as u64);
        if let Some(at) = self.all_online_at.filter(|_| self.online == self.devices) {
            self.sink.most(expect::ONLINE_AFTER, at.saturating_sub(self.last_fault));
        }
        for state in &self.streams {
            for since in state.pending.into_iter().flatten().filter(|_| !state.is_counted) {
                self.sink.most(expect::STALL, self.now - since);
            }
        }
        if !self.rounds.is_empty() {
            self.rounds.sort_unstable();
            let last = self.rounds.len() - 1;
            self.sink.most(expect::INTERACTIVE, self.rounds[last * 99 / 100]);
        }
        let failed = self.streams.iter().any(|state| state.has_failed);
        if failed {
            self.sink.sometimes("stream_failed", true);
        }
        self.sink.count(expect::LINKS, self.conns.len() as u64);
        self.sink.count("tunnels", self.tunnels.len() as u64);
        self.sink.count("sessions", self.observers.len() as u64);
    }

    /// Who was waiting for what, the first of them.
    pub(super) fn waiting(&self) -> Vec<String> {
        let mut waiting = Vec::new();
        for (plan, state) in self.plan.streams.iter().zip(&self.streams) {
            if state.is_counted {
                continue;
            }
            for (way, reader, writer) in [(0, &plan.device, &plan.service), (1, &plan.service, &plan.device)]
            {
                if !state.ended[way] {
                    let (read, written) = (state.read[way], state.written[way]);
                    let end = if state.finished[way] { "the end was said" } else { "the end was not said" };
                    waiting.push(format!(
                        "{reader} waits for {writer} on {}: {read} of {written} bytes were read, {end}",
                        plan.name
                    ));
                }
            }
        }
        for (index, host) in self.hosts.iter().enumerate() {
            let conn = host.endpoint.as_ref().map(|endpoint| endpoint.conn);
            let is_up = |conn: usize| matches!(self.conns[conn].near, Near::Up(_));
            if conn.is_some_and(|conn| !conn.is_some_and(is_up)) {
                let hubs = self.plan.hosts[index].hubs.join(", ");
                waiting.push(format!("{} waits for a link to {hubs}", host.name));
            }
        }
        const SHOWN: usize = 12;
        let more = waiting.len().saturating_sub(SHOWN);
        waiting.truncate(SHOWN);
        if more > 0 {
            waiting.push(format!("and {more} more"));
        }
        waiting
    }
}
