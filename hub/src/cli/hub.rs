//! `towline hub`.

use std::time::Duration;

use clap::Args;
use towline::core::{Limits, TUNNELS_PER_DEVICE};
use towline::identity::Role;
use towline::policy::{AllowAll, Policy, Rule, Rules};
use towline::{Environment, Hub, HubConfig};

use super::failure::Failure;
use super::keys::KeyArgs;
use super::listen_address;
use super::output::print_line;
use super::signals::{Stop, Stops, Terminal};
use super::span::{SPAN, span};

#[derive(Debug, Args)]
#[command(after_help = "\
Example, for one rule more than nothing:
  towline hub --listen 0.0.0.0:443 --allow 'ops:press-*:ssh'

SIGHUP makes it read its certificate, key and authorities anew, for whoever connects from then on; links that are up
stay. Files that do not do change nothing, and the log says why. After closing a terminal it ends, as on SIGTERM.

A device that connects twice: the newer connection wins, the older is told so and stays away for 30 s or more.")]
pub(crate) struct HubArgs {
    /// Where to listen; 443 is what firewalls let through
    #[arg(long, env = "TOWLINE_LISTEN", default_value = "127.0.0.1:4433", value_parser = listen_address, value_name = "HOST:PORT")]
    listen: String,
    /// Allow a service to open something: SERVICE-ENDPOINT:DEVICE:SERVICE, '*' for anything; may be repeated.
    /// Without any, every service of the trust domain may open everything
    #[arg(long, value_name = "RULE")]
    allow: Vec<Rule>,
    /// How many tunnels a service may open, or lists it may ask for, in a second; twice as many at once, after a rest
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    opens_per_second: u32,
    /// How many tunnels to one device may be live at a time
    #[arg(long, default_value_t = TUNNELS_PER_DEVICE, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    tunnels_per_device: u32,
    /// How many connections may be in the handshake; one more waits while enough of them get through, or
    /// else the oldest of them is dropped
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    unauthenticated: u16,
    /// How long live tunnels have to end when the hub is stopped, such as 30s or 5m; at most a day
    #[arg(long, default_value = "5s", value_parser = span(0, 24 * 60 * 60), value_name = SPAN)]
    drain: Duration,
    /// Do not listen on UDP for QUIC links
    #[arg(long)]
    no_quic: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

/// When endpoints shall come back after the hub was stopped: soon, to another hub or to this one's successor.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: HubArgs, environment: Environment) -> Result<(), Failure> {
    raise_descriptor_limit();
    let limits = Limits::default()
        .opens(args.opens_per_second, args.opens_per_second.saturating_mul(2))
        .tunnels_per_device(args.tunnels_per_device)
        .unauthenticated(args.unauthenticated.into());
    let allows_all = args.allow.is_empty();
    let policy: Box<dyn Policy> = if allows_all { Box::new(AllowAll) } else { Box::new(Rules(args.allow)) };
    let credentials = args.keys.read(Role::Hub, None)?;
    let config = HubConfig { listen: args.listen, credentials, limits, policy, quic: !args.no_quic };
    let hub = Hub::start(config, environment).await?;
    let terminal = Terminal::of_this_program();
    let mut stops = Stops::of_a_hub();
    let transports = if hub.has_quic() { "TLS, WebSocket, QUIC" } else { "TLS, WebSocket" };
    print_line(format_args!("listening on {} as {} ({transports})", hub.local_addr(), hub.identity()))?;
    if allows_all {
        tracing::info!("every service of the trust domain may open everything; --allow makes rules");
    }
    while stops.next().await == Stop::Hangup && !terminal.was_closed() {
        reload(&hub, &args.keys);
    }
    let stats = hub.stats();
    tracing::info!(tunnels = stats.tunnels, links = stats.links, "stopping; once more to stop at once");
    tokio::select! {
        () = hub.drain(RETRY, args.drain) => {}
        () = once_more(&mut stops) => {}
    }
    Ok(())
}

/// Reads the files anew. If they do not do, the hub goes on with what it has.
fn reload(hub: &Hub, keys: &KeyArgs) {
    let why = match keys.read(Role::Hub, None) {
        Ok(credentials) => match hub.reload(credentials) {
            Ok(()) => return,
            Err(error) => error.to_string(),
        },
        Err(failure) => failure.message,
    };
    tracing::error!(
        "nothing was loaded: {why}; the hub goes on with what it has, and SIGHUP makes it try again"
    );
}

/// Waits until somebody is in a hurry. To load files is no matter any more.
async fn once_more(stops: &mut Stops) {
    while stops.next().await == Stop::Hangup {}
}

/// Each device takes a descriptor: as many as the system lets us have.
fn raise_descriptor_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "descriptors"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of descriptors"),
    }
}
