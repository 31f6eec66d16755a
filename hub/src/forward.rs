//! A local port that leads to a service of a device: each connection to it becomes one to that service.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use towline_transports::{Listener, Socket};

use crate::connector::Connector;
use crate::relay::{SocketLeg, relay};

/// How long to wait before accepting again, when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Forwards the connections to `listener` for as long as it is polled, each in a task of its own.
///
/// A connection that is refused is reset, and so is one whose session is lost; the reason is in the log.
pub async fn forward(connector: Arc<Connector>, mut listener: Box<dyn Listener>) {
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                let connector = connector.clone();
                tokio::spawn(async move {
                    tracing::debug!(%address, "accepted");
                    carry(&connector, socket).await;
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
async fn carry(connector: &Connector, mut socket: Box<dyn Socket>) {
    let (device, service) = (connector.device(), connector.name());
    let opening = match connector.begin().await {
        Ok(opening) => opening,
        Err(error) => {
            tracing::error!(%device, %service, "{error}");
            return socket.abort();
        }
    };
    let mut leg = opening.into_leg();
    let relayed = relay(&mut SocketLeg::new(socket), &mut leg, connector.profile()).await;
    if let Some(error) = leg.take_refusal() {
        tracing::error!(%device, %service, "{error}");
    } else if relayed.was_lost() {
        let why = connector.why_lost(&leg).await;
        tracing::error!(%device, %service, "{why}");
    } else {
        tracing::debug!(bytes = ?relayed.bytes, ended = ?relayed.ended, "closed");
    }
}
