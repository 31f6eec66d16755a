//! `towline connect`: a tunnel on the standard input and output.

use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;
use towline::core::Ended;
use towline::identity::Name;
use towline::relay::{PairLeg, relay};
use towline::{Connector, Environment, codes};

use super::failure::{Failure, IO, UNAVAILABLE};
use super::output::{OutputError, Watched};
use super::signals::{self, Stop, Stops};
use super::{EndpointArgs, OpenArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Example, for ~/.ssh/config:
  Host press-*
    ProxyCommand towline connect %h ssh

Example, through whichever of two hubs works, and waiting half a minute for a device that is away:
  towline connect press-7 ssh --hub north.example.com:443 --hub south.example.com:443 --wait 30s")]
pub(crate) struct ConnectArgs {
    /// The device's ID
    device: Name,
    /// Which of the services that the device offers
    service: Name,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// How long a connection has to end by itself when this program is asked to.
const GRACE: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: ConnectArgs, environment: Environment) -> Result<(), Failure> {
    let mut stops = Stops::new();
    let service = args.endpoint.service(environment)?;
    let connector = args.open.connector(service, &args.device, &args.service);
    let stop = {
        let mut carrying = pin!(carry(&args, &connector));
        let stop = tokio::select! {
            outcome = &mut carrying => return outcome,
            stop = stops.next() => stop,
        };
        // ssh closes the input before it sends SIGHUP, so the end of file and its answer may be on their way. Ctrl-C
        // means that they are not wanted.
        if stop != Stop::Interrupt {
            tokio::select! {
                outcome = &mut carrying => return outcome,
                () = sleep(GRACE) => {}
                _ = stops.next() => {}
            }
        }
        stop
    };
    // The connection was dropped, and so is reset: half of something must not look like all of it.
    signals::end(connector.close().map(drop), &mut stops).await;
    Err(Failure::new(stop.status(), ""))
}

/// Carries bytes until the connection is over and the other end has heard it. Cancelling it resets the connection.
async fn carry(args: &ConnectArgs, connector: &Connector) -> Result<(), Failure> {
    let mut leg = connector.begin().await?.into_leg();
    let (mut input, mut output) = (Watched::new(tokio::io::stdin()), Watched::new(tokio::io::stdout()));
    let mut local = PairLeg::new(&mut input, &mut output);
    let relayed = relay(&mut local, &mut leg, connector.profile()).await;
    tracing::debug!(bytes = ?relayed.bytes, ended = ?relayed.ended, "closed");
    // However the connection ended, what came before is for the reader. An error is kept.
    let _ = output.flush().await;
    let refusal = leg.take_refusal();
    let lost = if relayed.was_lost() { Some(connector.why_lost(&leg).await) } else { None };
    // What was said last, a FIN for one, is still on its way.
    let all = connector.close().await;
    if let Some(error) = refusal {
        return Err(error.into());
    }
    if let Some(error) = output.error {
        return Err(OutputError::from(error).into());
    }
    if let Some(error) = input.error {
        return Err(Failure::new(
            IO,
            format!("cannot read the standard input: {error}; the connection was reset"),
        ));
    }
    if let Some(lost) = lost {
        return Err(Failure::new(UNAVAILABLE, lost));
    }
    if !all {
        return Err(Failure::new(UNAVAILABLE, connector.why_lost(&leg).await));
    }
    let [_, back] = relayed.ended;
    match back {
        Ended::Reset(code) if code != codes::STRICT => {
            let message = format!("{} of {} reset the connection", args.service, args.device);
            Err(Failure::new(IO, message))
        }
        Ended::Finished | Ended::Stopped(_) | Ended::Reset(_) => Ok(()),
    }
}
