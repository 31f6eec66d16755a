//! Services that wait to hear what becomes of their opens.
//!
//! In: tunnels that begin, what the core says of them, and their ends. Out: the same, to the task that serves the open.
//! Keeps: an entry for each tunnel from its first moment to its last, so that no word of the core's finds nobody.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::core::{Offered, TunnelId};
use crate::refusal::Refusal;

/// The tunnels that there are, and where their tasks listen.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    places: BTreeMap<TunnelId, Told>,
}

/// What a task can be told, each once.
#[derive(Debug)]
struct Told {
    offered: Option<oneshot::Sender<Offered>>,
    refused: oneshot::Sender<Refusal>,
}

/// What the task hears. A tunnel that waits for its device may be offered, and be refused after that.
#[derive(Debug)]
pub(super) struct News {
    /// The device has come, and is to be asked.
    pub(super) offered: oneshot::Receiver<Offered>,
    /// The tunnel will not come about.
    pub(super) refused: oneshot::Receiver<Refusal>,
}

impl Waiting {
    /// A tunnel has just got its number. To be called before the core is asked for actions, or let go of.
    pub(super) fn enter(&mut self, tunnel: TunnelId) -> News {
        let (offer, offered) = oneshot::channel();
        let (refuse, refused) = oneshot::channel();
        self.places.insert(tunnel, Told { offered: Some(offer), refused: refuse });
        News { offered, refused }
    }

    /// The device of a tunnel that waited for it has come.
    pub(super) fn offer(&mut self, offered: Offered) {
        let place = self.places.get_mut(&offered.tunnel);
        if let Some(offer) = place.and_then(|told| told.offered.take()) {
            // Whoever does not wait any more need not be told.
            let _ = offer.send(offered);
        }
    }

    /// A tunnel will not come about.
    pub(super) fn refuse(&mut self, tunnel: TunnelId, refusal: Refusal) {
        if let Some(told) = self.places.remove(&tunnel) {
            let _ = told.refused.send(refusal);
        }
    }

    /// A tunnel is over.
    pub(super) fn leave(&mut self, tunnel: TunnelId) {
        self.places.remove(&tunnel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::LinkId;
    use crate::message::Profile;
    use crate::refusal::RefusalCode;

    const TUNNEL: TunnelId = TunnelId(7);

    fn offered() -> Offered {
        Offered {
            tunnel: TUNNEL,
            link: LinkId(1),
            device: "press-7".parse().unwrap(),
            service: "ssh".parse().unwrap(),
            profile: Profile::Native,
            deadline: Duration::from_secs(5),
        }
    }

    /// As when the hub drains, or the deadline passes, before the task has had its turn.
    #[test]
    fn a_refusal_right_behind_the_offer_is_heard_as_well() {
        let mut waiting = Waiting::default();
        let mut news = waiting.enter(TUNNEL);
        waiting.offer(offered());
        waiting.refuse(TUNNEL, Refusal::new(RefusalCode::HubDraining, "it goes"));
        assert_eq!(news.offered.try_recv(), Ok(offered()));
        assert_eq!(news.refused.try_recv().unwrap().code, RefusalCode::HubDraining);
    }

    #[test]
    fn who_has_left_is_told_nothing_and_nobody_minds() {
        let mut waiting = Waiting::default();
        let mut news = waiting.enter(TUNNEL);
        waiting.leave(TUNNEL);
        waiting.offer(offered());
        waiting.refuse(TUNNEL, Refusal::new(RefusalCode::HubDraining, "it goes"));
        assert!(news.offered.try_recv().is_err() && news.refused.try_recv().is_err());
        assert!(waiting.places.is_empty());
    }
}
