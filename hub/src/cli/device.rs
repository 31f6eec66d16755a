//! `towline device`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use towline::agent::{self, Target};
use towline::identity::Role;
use towline::{Device, Environment};

use super::failure::{Failure, USAGE};
use super::signals::{self, Stops};
use super::span::SPAN;
use super::{EndpointArgs, GRACE, grace_span};

#[derive(Debug, Args)]
#[command(after_help = "\
Example, a device whose ssh server and web page can be reached, and nothing else:
  towline device --hub hub.example.com:443 --service ssh=127.0.0.1:22 --service web=192.168.0.5:80

Example, a device that is on two hubs at a time, so that one may fail:
  towline device --hub north.example.com:443 --hub south.example.com:443 --service ssh=127.0.0.1:22")]
pub(crate) struct DeviceArgs {
    /// A service that can be reached, and its address as seen from here; may be repeated
    #[arg(long, required = true, value_name = "NAME=HOST:PORT")]
    service: Vec<Target>,
    /// For how long sessions with services are kept when there is no way to them, such as 90s or 2h; a service may want less
    #[arg(long, default_value = GRACE, value_parser = grace_span(), value_name = SPAN)]
    grace: Duration,
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
    let configs = args.endpoint.configs(Role::Device)?;
    let mut stops = Stops::new();
    let mut device = Device::register_with(configs, environment.clone())?;
    device.keep_sessions_for(args.grace);
    let names: Vec<_> = args.service.iter().map(|target| target.name.as_str()).collect();
    tracing::info!(device = %device.identity(), services = names.join(","), "starting");
    tokio::select! {
        () = agent::serve(&mut device, args.service, environment) => {}
        _ = stops.next() => {}
    }
    signals::end(device.close(), &mut stops).await;
    Ok(())
}
