//! `towline device`.

use std::collections::BTreeSet;

use clap::Args;
use towline::agent::{self, Target};
use towline::identity::Role;
use towline::{Device, Environment, Status};

use super::EndpointArgs;
use super::failure::{Failure, USAGE};
use super::signals::{self, Stops};

#[derive(Debug, Args)]
#[command(after_help = "\
Example, a device whose ssh server and web page can be reached, and nothing else:
  towline device --hub hub.example.com:443 --service ssh=127.0.0.1:22 --service web=192.168.0.5:80")]
pub(crate) struct DeviceArgs {
    /// A service that can be reached, and its address as seen from here; may be repeated
    #[arg(long, required = true, value_name = "NAME=HOST:PORT")]
    service: Vec<Target>,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

pub(crate) async fn run(args: DeviceArgs, environment: Environment) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    if let Some(target) = args.service.iter().find(|target| !names.insert(&target.name)) {
        let message =
            format!("--service {} is given twice; give each address a name of its own", target.name);
        return Err(Failure::new(USAGE, message));
    }
    let config = args.endpoint.config(Role::Device)?;
    let mut stops = Stops::new();
    let mut device = Device::register(config, environment.clone())?;
    let names: Vec<_> = args.service.iter().map(|target| target.name.as_str()).collect();
    tracing::info!(device = %device.identity(), services = names.join(","), "starting");
    let mut status = device.status();
    let report = async {
        loop {
            // What goes wrong is in the log already.
            if matches!(*status.borrow_and_update(), Status::Online) {
                tracing::info!(hub = args.endpoint.hub, "online");
            }
            if status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = agent::serve(&mut device, args.service, environment) => {}
        () = report => {}
        _ = stops.next() => {}
    }
    signals::end(device.close(), &mut stops).await;
    Ok(())
}
