//! Why a tunnel was not opened, and what several hubs that say so come to.

use std::sync::Arc;

use towline_transports::LinkClosed;

use crate::end_to_end::PeerError;
use crate::endpoint::ConnectError;
use crate::message::MessageError;
use crate::refusal::{Refusal, RefusalCode};

/// Why a tunnel was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The hub cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The hub or the device refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The device is not at the other end of the tunnel.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The link was lost, or made no sense, before the answer came.
    #[error("the answer did not come: {0}; try again")]
    Lost(#[from] MessageError),
    /// Somebody else has asked for the same link or session at that moment, and this is what came of it.
    #[error(transparent)]
    Shared(Arc<OpenError>),
}

impl From<LinkClosed> for OpenError {
    fn from(closed: LinkClosed) -> Self {
        Self::Lost(closed.into())
    }
}

/// Why a tunnel was not opened, for somebody who would try again.
#[derive(Debug)]
pub(crate) struct Unopened {
    pub(crate) error: OpenError,
    /// Every hub says so, or the device, and will say so again.
    pub(crate) is_final: bool,
}

impl From<OpenError> for Unopened {
    fn from(error: OpenError) -> Self {
        Self { is_final: error.is_final(), error }
    }
}

impl From<Unopened> for OpenError {
    fn from(unopened: Unopened) -> Self {
        unopened.error
    }
}

/// What several hubs have said.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// That of the one that got furthest, and whether all are final.
    best: Option<Unopened>,
}

impl Refusals {
    /// What this outcome settles: it is good, or the device itself says no, so that no other hub knows better. Otherwise it
    /// is noted, and another hub may do.
    pub(crate) fn settle<T>(
        &mut self,
        outcome: Result<T, impl Into<Unopened>>,
    ) -> Option<Result<T, Unopened>> {
        match outcome.map_err(Into::into) {
            Err(unopened) if !unopened.error.is_of_the_device() => {
                self.add(unopened);
                None
            }
            settled => Some(settled),
        }
    }

    fn add(&mut self, new: Unopened) {
        self.best = Some(match self.best.take() {
            None => new,
            Some(best) => {
                let is_final = best.is_final && new.is_final;
                let further = if new.error.distance() > best.error.distance() { new } else { best };
                Unopened { is_final, ..further }
            }
        });
    }

    /// What they come to, if any of them has said anything.
    pub(crate) fn outcome(self) -> Option<Unopened> {
        self.best
    }
}

impl OpenError {
    /// What has happened, whoever has asked.
    pub fn root(&self) -> &Self {
        match self {
            Self::Shared(error) => error.root(),
            error => error,
        }
    }

    /// One that others may have got as well.
    pub(crate) fn shared(error: Arc<Self>) -> Self {
        Arc::try_unwrap(error).unwrap_or_else(Self::Shared)
    }

    /// Whether whoever says so will say so again: that it may not be, that there is no such service, or that somebody is not
    /// who they should be. A device that is away, a hub that goes and a network that does not work may be there later.
    fn is_final(&self) -> bool {
        match self.root() {
            Self::Refused(refusal) | Self::Connect(ConnectError::Refused(refusal)) => {
                matches!(refusal.code, RefusalCode::Forbidden | RefusalCode::ServiceUnknown)
            }
            Self::Connect(error) => matches!(error, ConnectError::CertificateRefused { .. }),
            Self::Peer(error) => error.is_final(),
            Self::Lost(_) | Self::Shared(_) => false,
        }
    }

    /// Whether the device itself has answered, so that no other hub knows better.
    fn is_of_the_device(&self) -> bool {
        use RefusalCode::{
            BadRequest, Rejected, ServiceUnknown, TargetRefused, TargetTimedOut, TargetUnreachable,
        };
        let Self::Refused(refusal) = self.root() else { return false };
        matches!(
            refusal.code,
            BadRequest | Rejected | ServiceUnknown | TargetRefused | TargetUnreachable | TargetTimedOut
        )
    }

    /// How far it got. Among refusals, that of a hub which has not seen the device says least.
    fn distance(&self) -> u8 {
        use RefusalCode::{DeviceOffline, DeviceUnknown, HubDraining, RateLimited};
        match self.root() {
            Self::Connect(_) | Self::Shared(_) => 0,
            Self::Lost(_) => 1,
            Self::Refused(refusal) => match refusal.code {
                DeviceUnknown => 2,
                DeviceOffline => 3,
                HubDraining => 4,
                RateLimited => 5,
                _ => 6,
            },
            Self::Peer(_) => 7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hubs come to of which one after the other says this.
    fn come_to(errors: impl IntoIterator<Item = OpenError>) -> Unopened {
        let mut refusals = Refusals::default();
        errors.into_iter().for_each(|error| refusals.add(error.into()));
        refusals.outcome().expect("one hub at least has said something")
    }

    fn refused(code: RefusalCode) -> OpenError {
        Refusal::new(code, "").into()
    }

    /// Of two hubs, the one that was just restarted has not seen the device; the other one knows what is wrong.
    #[test]
    fn a_hub_that_knows_more_is_the_one_that_is_reported() {
        use RefusalCode::{
            DeadlinePassed, DeviceOffline, DeviceUnknown, Forbidden, HubDraining, RateLimited, TooManyTunnels,
        };
        let far = |code| refused(code).distance();
        let ranks = [DeviceUnknown, DeviceOffline, HubDraining, RateLimited, Forbidden].map(far);
        assert!(ranks.is_sorted_by(|near, far| near < far), "{ranks:?}");
        assert_eq!([TooManyTunnels, DeadlinePassed].map(far), [far(Forbidden); 2]);
        let lost = OpenError::from(LinkClosed::TimedOut).distance();
        assert!(lost < far(DeviceUnknown), "a hub that has answered says more than one that has not");
    }

    /// The other hub may be the one where the device is.
    #[test]
    fn what_hubs_say_is_final_if_all_say_something_final() {
        use RefusalCode::{DeviceOffline, DeviceUnknown, Forbidden, ServiceUnknown};
        let of = |codes: &[RefusalCode]| {
            let Unopened { error, is_final } = come_to(codes.iter().copied().map(refused));
            let OpenError::Refused(refusal) = error else { panic!("{error}") };
            (refusal.code, is_final)
        };
        assert_eq!(of(&[Forbidden]), (Forbidden, true));
        assert_eq!(of(&[Forbidden, Forbidden]), (Forbidden, true));
        for other in [DeviceOffline, DeviceUnknown] {
            assert_eq!(of(&[Forbidden, other]), (Forbidden, false));
            assert_eq!(of(&[other, Forbidden]), (Forbidden, false));
        }
        let of_one_that_is_away = come_to([refused(Forbidden), LinkClosed::TimedOut.into()]);
        assert!(!of_one_that_is_away.is_final, "it may allow it");
        let final_ones = RefusalCode::ALL.into_iter().filter(|&code| of(&[code]).1);
        assert_eq!(final_ones.collect::<Vec<_>>(), [Forbidden, ServiceUnknown]);
    }
}
