//! A local port that leads to a service of a device: each connection to it becomes a tunnel.

use std::time::Duration;

use tokio::time::sleep;
use towline_transports::{Listener, Socket};

use crate::relay::{SocketLeg, relay};
use crate::service::{OpenOptions, Service};

/// How long to wait before accepting again, when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a local port leads.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Who asks.
    pub service: Service,
    /// The device's ID.
    pub device: String,
    /// Which of its services.
    pub name: String,
    /// How tunnels are opened.
    pub options: OpenOptions,
}

impl Forward {
    /// Forwards the connections to `listener` for as long as it is polled, each in a task of its own.
    ///
    /// A connection whose tunnel is refused is reset, and the reason is in the log.
    pub async fn run(self, mut listener: Box<dyn Listener>) {
        loop {
            match listener.accept().await {
                Ok((socket, address)) => {
                    let forward = self.clone();
                    tokio::spawn(async move {
                        tracing::debug!(%address, "accepted");
                        forward.carry(socket).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Carries one connection.
    async fn carry(self, mut socket: Box<dyn Socket>) {
        let Self { service, device, name, options } = self;
        let opening = match service.begin(&device, &name, options).await {
            Ok(opening) => opening,
            Err(error) => {
                tracing::error!(%device, service = %name, "{error}");
                return socket.abort();
            }
        };
        let mut tunnel = opening.into_leg();
        let relayed = relay(&mut SocketLeg::new(socket), &mut tunnel, options.profile).await;
        match tunnel.refusal() {
            Some(error) => tracing::error!(%device, service = %name, "{error}"),
            None => tracing::debug!(bytes = ?relayed.bytes, ended = ?relayed.ended, "closed"),
        }
    }
}
