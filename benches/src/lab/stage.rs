//! A line with everything at its ends that the ways over it share: the target, and the hub and the device of the product.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use towline::{Environment, Transport};
use towline_sim::profile::{self, Profile};

use super::namespace::Namespace;
use super::wire::{FASTEST, Lab, Report};
use crate::tunnel::bare_quic;
use crate::tunnel::product::{FarEnd, NearEnd};
use crate::tunnel::target::{self, Meters};

/// The line, and what stands at its far end.
pub(crate) struct Stage {
    /// The line.
    pub(crate) lab: Lab,
    /// Where the target is, without a tunnel.
    pub(crate) target: SocketAddr,
    /// What has arrived there.
    pub(crate) meters: Meters,
    far_end: FarEnd,
    environment: Environment,
    runtimes: Runtimes,
}

/// QUIC without a hub. When it is dropped it takes no more connections, and ends with those that it has.
pub(crate) struct BareQuic {
    pub(crate) near: bare_quic::NearEnd,
    _far: bare_quic::FarEnd,
}

impl BareQuic {
    /// What it is called.
    pub(crate) const NAME: &'static str = "bare QUIC";
}

/// Runtimes whose threads are in the networks at the ends.
struct Runtimes {
    near: Runtime,
    far: Runtime,
}

impl Stage {
    /// A line of this profile, from which nothing has been heard yet but that the device has come online.
    ///
    /// # Errors
    ///
    /// The system lacks something, which the error names.
    pub(crate) fn start(profile: &Profile, seed: u64) -> anyhow::Result<Self> {
        let lab = Lab::start(profile, seed)?;
        let ends = lab.ends().clone();
        let runtimes = Runtimes { near: runtime_in(&ends.near)?, far: runtime_in(&ends.far)? };
        let (environment, meters) = (Environment::system(), Meters::default());
        let target = ends.far.run(|| Ok(target::start(Lab::FAR, &meters)?))?;
        let far_end = FarEnd::start(Lab::FAR.into(), target, environment.clone());
        let far_end = ends.far.run(|| runtimes.far.block_on(far_end))?;
        Ok(Self { lab, target, meters, far_end, environment, runtimes })
    }

    /// The product at the near end. It makes its link to the hub, over this transport, when it is first used.
    ///
    /// # Errors
    ///
    /// It has no ports.
    pub(crate) fn near_end(&self, transport: Transport) -> anyhow::Result<NearEnd> {
        let start = NearEnd::start(self.far_end.endpoint(Some(transport)), self.environment.clone());
        self.near(|| self.runtimes.near.block_on(start))
    }

    /// Ends what [`near_end`](Self::near_end) has given.
    pub(crate) fn end(&self, near: NearEnd) {
        let _entered = self.runtimes.near.enter();
        drop(near);
    }

    /// Both ends of one QUIC connection without a hub. It connects when it is first used.
    ///
    /// # Errors
    ///
    /// There are no ports.
    pub(crate) fn bare_quic(&self) -> anyhow::Result<BareQuic> {
        let far = bare_quic::FarEnd::start(Lab::FAR.into(), self.target);
        let far = self.lab.ends().far.run(|| self.runtimes.far.block_on(far))?;
        let near = self.near(|| self.runtimes.near.block_on(bare_quic::NearEnd::start(&far)))?;
        Ok(BareQuic { near, _far: far })
    }

    /// Does `work` at the near end.
    ///
    /// # Errors
    ///
    /// That of `work`.
    pub(crate) fn near<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        self.lab.ends().near.run(work)
    }

    /// Ends it. Returns how the line has done.
    ///
    /// # Errors
    ///
    /// A device has failed.
    pub(crate) fn stop(self) -> anyhow::Result<Report> {
        let Self { lab, target, meters, far_end, runtimes, .. } = self;
        lab.ends().far.run(|| {
            meters.end(target);
            Ok(())
        })?;
        {
            let _entered = runtimes.far.enter();
            drop(far_end);
        }
        runtimes.near.shutdown_background();
        runtimes.far.shutdown_background();
        lab.stop()
    }
}

/// The profile with this name.
///
/// # Errors
///
/// There is none; the error has those that there are.
pub(crate) fn find(name: &str) -> anyhow::Result<Profile> {
    profile::named(name).with_context(|| {
        let known: Vec<_> = profile::names().collect();
        format!("there is no profile {name:?}: there are {}", known.join(", "))
    })
}

/// How long a line takes there and back, without what it has to wait for.
pub(crate) fn round_trip(profile: &Profile) -> Duration {
    Duration::from_nanos(profile.up.delay.0 + profile.down.delay.0)
}

/// The rates of a line, in bits a second: up and down.
pub(crate) fn rates(profile: &Profile) -> [u64; 2] {
    [&profile.up, &profile.down].map(|link| link.rate.map_or(FASTEST, |rate| rate.0))
}

fn runtime_in(network: &Namespace) -> anyhow::Result<Runtime> {
    network.run(|| Ok(Builder::new_multi_thread().worker_threads(1).enable_all().build()?))
}
