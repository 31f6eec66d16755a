//! `towline forward`.

use std::sync::Arc;

use clap::Args;
use futures_util::FutureExt;
use towline::identity::Name;
use towline::{Environment, forward};

use super::failure::{Failure, cannot_listen};
use super::output::print_line;
use super::signals::{self, Stops};
use super::{EndpointArgs, OpenArgs, listen_address};

#[derive(Debug, Args)]
#[command(after_help = "\
Example, a device's remote desktop on a local port:
  towline forward press-7 rdp --listen 127.0.0.1:3389

Example, through whichever of two hubs works:
  towline forward press-7 rdp --hub north.example.com:443 --hub south.example.com:443")]
pub(crate) struct ForwardArgs {
    /// The device's ID
    device: Name,
    /// Which of the services that the device offers
    service: Name,
    /// Where to listen; port 0 takes one that is free, and says which
    #[arg(long, default_value = "127.0.0.1:0", value_parser = listen_address, value_name = "HOST:PORT")]
    listen: String,
    #[command(flatten)]
    open: OpenArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

pub(crate) async fn run(args: ForwardArgs, environment: Environment) -> Result<(), Failure> {
    let network = environment.network.clone();
    let service = args.endpoint.service(environment)?;
    let listener = network.listen(&args.listen).await;
    let listener = listener.map_err(|error| cannot_listen(&args.listen, &error))?;
    let address = listener.local_addr().map_err(|error| cannot_listen(&args.listen, &error))?;
    let mut stops = Stops::new();
    print_line(format_args!("{address} leads to {} of {}", args.service, args.device))?;
    let connector = Arc::new(args.open.connector(service, &args.device, &args.service));
    tokio::select! {
        () = forward(connector.clone(), listener) => {}
        _ = stops.next() => {}
    }
    signals::end(connector.close().map(drop), &mut stops).await;
    Ok(())
}
