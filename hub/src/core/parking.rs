//! Tunnels whose device is away for the moment, and whose service would rather wait than ask again.
//!
//! In: those that wait, devices that come, ends, and the time. Out: whose device has come, and whose time is up. Keeps: an
//! entry for each, of which there is a limit.

use std::collections::{BTreeMap, BTreeSet};

use towline_engine::Instant;

use super::TunnelId;
use crate::identity::Name;

/// The tunnels that wait.
#[derive(Clone, Debug)]
pub(crate) struct Parking<T> {
    places: BTreeMap<TunnelId, Parked<T>>,
    of_device: BTreeSet<(Name, TunnelId)>,
    by_time: BTreeSet<(Instant, TunnelId)>,
    /// How many wait for each asker, of whom any do.
    of_asker: BTreeMap<Name, usize>,
}

#[derive(Clone, Debug)]
struct Parked<T> {
    asker: Name,
    device: Name,
    until: Instant,
    what: T,
}

impl<T> Default for Parking<T> {
    fn default() -> Self {
        Self {
            places: BTreeMap::new(),
            of_device: BTreeSet::new(),
            by_time: BTreeSet::new(),
            of_asker: BTreeMap::new(),
        }
    }
}

impl<T> Parking<T> {
    /// Lets a tunnel of `asker`'s wait for `device`.
    pub(crate) fn park(&mut self, tunnel: TunnelId, asker: Name, device: Name, until: Instant, what: T) {
        *self.of_asker.entry(asker.clone()).or_default() += 1;
        self.of_device.insert((device.clone(), tunnel));
        self.by_time.insert((until, tunnel));
        self.places.insert(tunnel, Parked { asker, device, until, what });
    }

    /// Takes out one that waits for `device`: the one that came first.
    pub(crate) fn take_for(&mut self, device: &Name) -> Option<(TunnelId, T)> {
        let (whose, tunnel) = self.of_device.range((device.clone(), TunnelId(0))..).next()?;
        if whose != device {
            return None;
        }
        let tunnel = *tunnel;
        Some((tunnel, self.leave(tunnel)?))
    }

    /// Takes out one whose time was up at `now`.
    pub(crate) fn take_late(&mut self, now: Instant) -> Option<(TunnelId, Name)> {
        let &(until, tunnel) = self.by_time.first()?;
        if until > now {
            return None;
        }
        let device = self.places.get(&tunnel)?.device.clone();
        self.leave(tunnel)?;
        Some((tunnel, device))
    }

    /// Takes out whichever is the next.
    pub(crate) fn take_any(&mut self) -> Option<TunnelId> {
        let (&tunnel, _) = self.places.first_key_value()?;
        self.leave(tunnel)?;
        Some(tunnel)
    }

    /// A tunnel does not wait any more. `None` if it did not.
    pub(crate) fn leave(&mut self, tunnel: TunnelId) -> Option<T> {
        let Parked { asker, device, until, what } = self.places.remove(&tunnel)?;
        let of_asker = self.of_asker.get_mut(&asker)?;
        *of_asker -= 1;
        if *of_asker == 0 {
            self.of_asker.remove(&asker);
        }
        self.of_device.remove(&(device, tunnel));
        self.by_time.remove(&(until, tunnel));
        Some(what)
    }

    /// When the next one's time is up.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        self.by_time.first().map(|&(until, _)| until)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// How many wait for `asker`.
    pub(crate) fn len_of(&self, asker: &Name) -> usize {
        self.of_asker.get(asker).copied().unwrap_or(0)
    }

    /// Panics if the indexes do not fit.
    pub(crate) fn check_invariants(&self) {
        assert_eq!((self.of_device.len(), self.by_time.len()), (self.places.len(), self.places.len()));
        assert_eq!(self.of_asker.values().sum::<usize>(), self.places.len());
        for (tunnel, Parked { asker, device, until, .. }) in &self.places {
            assert!(self.of_asker.contains_key(asker));
            assert!(self.of_device.contains(&(device.clone(), *tunnel)));
            assert!(self.by_time.contains(&(*until, *tunnel)));
        }
    }
}
