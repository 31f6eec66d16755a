//! Which devices are here, and which were.

use std::collections::BTreeMap;
use std::time::Duration;

use towline_engine::Instant;

use super::LinkId;
use crate::identity::Name;
use crate::message::{DeviceStatus, millis};

/// The devices that the hub knows. Keeps: an entry for each that is here, and for the last `remembered` that
/// left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    devices: BTreeMap<Name, Device>,
    /// The devices that are gone, by when they went; the number tells apart those that went together.
    gone: BTreeMap<(Instant, u64), Name>,
    next_departure: u64,
    remembered: usize,
}

#[derive(Clone, Debug)]
struct Device {
    presence: Presence,
    since: Instant,
    address: String,
    agent: String,
    instance: u64,
    takeovers: u32,
    last_takeover: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Presence {
    Here { link: LinkId, tunnels: u32 },
    Gone { departure: u64 },
}

/// What a device says of itself when it arrives.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) address: String,
    pub(crate) agent: String,
    pub(crate) instance: u64,
}

/// Why there is no link to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    Unknown,
    Offline(Duration),
}

/// A link that another one of the same device takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) link: LinkId,
    /// The newer link is of another process: somebody else has the same identity.
    pub(crate) by_another_holder: bool,
}

impl Registry {
    pub(crate) fn new(remembered: usize) -> Self {
        Self { remembered, ..Self::default() }
    }

    /// A device is here, on `link`. The newest link counts; the one that it takes the place of is returned.
    pub(crate) fn arrive(
        &mut self,
        now: Instant,
        name: &Name,
        link: LinkId,
        arrival: Arrival,
    ) -> Option<Replaced> {
        let Arrival { address, agent, instance } = arrival;
        let presence = Presence::Here { link, tunnels: 0 };
        let Some(device) = self.devices.get_mut(name) else {
            let device =
                Device { presence, since: now, address, agent, instance, takeovers: 0, last_takeover: None };
            self.devices.insert(name.clone(), device);
            return None;
        };
        let replaced = match device.presence {
            Presence::Here { link, .. } => {
                Some(Replaced { link, by_another_holder: device.instance != instance })
            }
            Presence::Gone { departure } => {
                self.gone.remove(&(device.since, departure));
                None
            }
        };
        if replaced.is_some_and(|replaced| replaced.by_another_holder) {
            device.takeovers += 1;
            device.last_takeover = Some(now);
        }
        (device.presence, device.since) = (presence, now);
        (device.address, device.agent, device.instance) = (address, agent, instance);
        replaced
    }

    /// The link of a device is over. Without effect if a newer one has taken its place.
    pub(crate) fn leave(&mut self, now: Instant, name: &Name, link: LinkId) {
        let Some(device) = self.devices.get_mut(name) else { return };
        match device.presence {
            Presence::Here { link: here, .. } if here == link => {}
            Presence::Here { .. } | Presence::Gone { .. } => return,
        }
        let departure = self.next_departure;
        self.next_departure += 1;
        (device.presence, device.since) = (Presence::Gone { departure }, now);
        self.gone.insert((now, departure), name.clone());
        if self.gone.len() > self.remembered
            && let Some((_, oldest)) = self.gone.pop_first()
        {
            self.devices.remove(&oldest);
        }
    }

    /// The link to the device, and how many tunnels it carries.
    pub(crate) fn find(&self, now: Instant, name: &Name) -> Result<(LinkId, u32), Absent> {
        let device = self.devices.get(name).ok_or(Absent::Unknown)?;
        match device.presence {
            Presence::Here { link, tunnels } => Ok((link, tunnels)),
            Presence::Gone { .. } => Err(Absent::Offline(now.saturating_duration_since(device.since))),
        }
    }

    /// A tunnel over `link` begins (`true`) or ends. Without effect if another link has taken its place.
    pub(crate) fn count_tunnel(&mut self, name: &Name, link: LinkId, begins: bool) {
        if let Some(Device { presence: Presence::Here { link: here, tunnels }, .. }) =
            self.devices.get_mut(name)
            && *here == link
        {
            *tunnels = if begins { *tunnels + 1 } else { *tunnels - 1 };
        }
    }

    /// All devices, in the order of their names.
    pub(crate) fn list(&self, now: Instant) -> impl Iterator<Item = DeviceStatus> {
        self.devices.iter().map(move |(name, device)| {
            let (online, tunnels) = match device.presence {
                Presence::Here { tunnels, .. } => (true, tunnels),
                Presence::Gone { .. } => (false, 0),
            };
            let ago = |then: Instant| millis(now.saturating_duration_since(then));
            DeviceStatus {
                device: name.to_string(),
                online,
                for_ms: ago(device.since),
                tunnels,
                address: device.address.clone(),
                agent: device.agent.clone(),
                takeovers: device.takeovers,
                last_takeover_ms: device.last_takeover.map(ago),
            }
        })
    }

    /// How many devices are here.
    pub(crate) fn online(&self) -> usize {
        self.devices.len() - self.gone.len()
    }

    pub(crate) fn invariants(&self) {
        assert!(self.gone.len() <= self.remembered);
        for ((since, departure), name) in &self.gone {
            let device = &self.devices[name];
            assert!(matches!(device.presence, Presence::Gone { departure: d } if d == *departure));
            assert_eq!(device.since, *since);
        }
        let gone = self.devices.values().filter(|d| matches!(d.presence, Presence::Gone { .. })).count();
        assert_eq!(gone, self.gone.len());
    }
}
