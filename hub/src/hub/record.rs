//! What the hub writes down of a tunnel: a line when it opens, and one when it is over, however that comes about.
//!
//! In: who asked for what, and how the splice ends. Out: the log. Keeps: the splice itself, which counts what passes
//! through it, so that the last line is true of a tunnel that was cut as well.

use std::fmt;

use tokio::time::Instant;

use crate::core::{Ended, LinkId, Splice, TunnelId, Way};
use crate::message::Open;

/// A tunnel that is open. Its end is on record when this is dropped.
#[derive(Debug)]
pub(super) struct Record {
    tunnel: TunnelId,
    /// Who has asked for it.
    from: String,
    open: Open,
    since: Instant,
    /// What joins its two legs.
    pub(super) splice: Splice,
    /// How it ended. Until that is said, it is cut if it ends.
    pub(super) end: End,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The hub has gone.
    Cut,
    /// The device has come back over another link.
    Replaced,
    /// Each way by itself: from the service to the device, and back.
    Ways([Ended; 2]),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("cut by the end of the hub"),
            Self::Replaced => f.write_str("cut: the device has come back over another link"),
            Self::Ways(ended) => write!(f, "{ended:?}"),
        }
    }
}

impl Record {
    /// A tunnel opens, for `from`, who asked on `link`.
    pub(super) fn begin(tunnel: TunnelId, link: LinkId, from: String, open: Open) -> Self {
        let Open { device, service, profile, .. } = &open;
        tracing::info!(%tunnel, link = link.0, from, device, service, ?profile, "tunnel open");
        let splice = Splice::new(*profile);
        Self { tunnel, from, open, since: Instant::now(), splice, end: End::Cut }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // From the service, and from the device.
        let [up, down] = [Way::Forth, Way::Back].map(|way| self.splice.flow(way).carried());
        let lasted = self.since.elapsed();
        let Self { tunnel, from, open: Open { device, service, profile, .. }, end, .. } = self;
        tracing::info!(
            %tunnel, from, device, service, ?profile, up, down, ?lasted, ended = %end, "tunnel closed"
        );
    }
}
