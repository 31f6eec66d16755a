//! The command line.

mod connect;
mod demo;
mod device;
mod devices;
mod diagnostics;
mod failure;
mod forward;
mod hub;
mod identity;
mod keys;
mod output;
mod qlog;
mod signals;
mod span;
mod why;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use towline::identity::{Name, Role};
use towline::message::Profile;
use towline::{
    Connector, EndpointConfig, Environment, OpenOptions, Route, Service, SessionOptions, Transport,
};
use towline_transports::proxy::ProxySettings;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use failure::{Failure, table_of_statuses};
use keys::KeyArgs;
use output::OutputError;
use span::{SPAN, span};

/// Reach any device by its ID, through connections that the device and the caller both make outward.
#[derive(Debug, Parser)]
#[command(name = "towline", version, propagate_version = true, after_help = EXAMPLE)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Try it, with nothing to set up:
  towline demo

Reach a device's ssh server by its ID, on one machine:
  towline identity init
  towline identity device press-7
  towline identity service me
  towline hub
  towline device --service ssh=127.0.0.1:22
  ssh -o ProxyCommand='towline connect %h ssh' user@press-7";

#[derive(Debug, Args)]
#[command(next_help_heading = "Log")]
struct LogArgs {
    /// Say more; twice, say everything. RUST_LOG overrides it
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// How the log on the standard error looks
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
    #[command(flatten)]
    qlog: qlog::QlogArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object on each line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a development authority, and certificates for hubs, devices and services
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// Run a hub: the meeting point of devices and services
    Hub(hub::HubArgs),
    /// Run a device agent: register with a hub, and serve what is named here
    Device(device::DeviceArgs),
    /// Connect the standard input and output to a service of a device (for ssh's ProxyCommand)
    Connect(connect::ConnectArgs),
    /// Forward a local port to a service of a device
    Forward(forward::ForwardArgs),
    /// List the devices that a hub knows
    Devices(devices::DevicesArgs),
    /// Try every way to the hub, and tell how far each gets and what to do
    Why(why::WhyArgs),
    /// See it work: a hub, a device and a service on this machine, with a throw-away authority
    Demo(demo::DemoArgs),
}

/// What every command needs that goes to a hub: which, and as whom.
#[derive(Debug, Args)]
struct EndpointArgs {
    /// The hub's address; its certificate must be for this host. May be repeated, for several hubs: a device registers with
    /// each, and a service takes one that does
    #[arg(
        long,
        env = "TOWLINE_HUB",
        value_delimiter = ',',
        default_value = "127.0.0.1:4433",
        value_name = "HOST:PORT"
    )]
    hub: Vec<String>,
    /// The only way to try; without it, all are, and the first on which the hub answers is taken
    #[arg(long, value_enum, env = "TOWLINE_TRANSPORT", value_name = "TRANSPORT", help_heading = "Route")]
    transport: Option<TransportArg>,
    /// The HTTP proxy to go through if nothing else works, http://[USER:PASSWORD@]HOST:PORT; "none" for no proxy.
    /// Without it, HTTPS_PROXY, ALL_PROXY and NO_PROXY count
    #[arg(long, value_name = "URL", help_heading = "Route")]
    proxy: Option<String>,
    /// A PEM file of authorities that vouch for the web server or proxy in front of the hub, for WebSocket
    #[arg(long, value_name = "FILE", help_heading = "Route")]
    web_ca: Option<std::path::PathBuf>,
    #[command(flatten)]
    keys: KeyArgs,
    /// Which of the identities in the folder; may be left out if there is only one
    #[arg(long, value_name = "NAME", conflicts_with = "cert", help_heading = "Identity")]
    identity: Option<Name>,
}

impl EndpointArgs {
    /// What each hub needs.
    fn configs(&self, role: Role) -> Result<Vec<EndpointConfig>, Failure> {
        let credentials = self.keys.read(role, self.identity.as_ref())?;
        let route = self.route()?;
        let mut names = BTreeSet::new();
        if let Some(hub) = self.hub.iter().find(|hub| !names.insert(*hub)) {
            let message = format!("--hub {hub} is given twice; name each hub once");
            return Err(Failure::new(failure::USAGE, message));
        }
        tracing::debug!(hubs = self.hub.join(","), "going to");
        let config = |hub: &String| EndpointConfig {
            hub: hub.clone(),
            credentials: credentials.clone(),
            route: route.clone(),
        };
        Ok(self.hub.iter().map(config).collect())
    }

    fn service(&self, environment: Environment) -> Result<Service, Failure> {
        Ok(Service::of_hubs(self.configs(Role::Service)?, environment)?)
    }

    fn route(&self) -> Result<Route, Failure> {
        let proxy = match self.proxy.as_deref() {
            Some("none") => ProxySettings::direct(),
            Some(url) => url
                .parse()
                .map(ProxySettings::through)
                .map_err(|error| Failure::new(failure::USAGE, format!("--proxy: {error}")))?,
            None => proxy_of_environment(),
        };
        let web_roots = match &self.web_ca {
            None => Vec::new(),
            Some(path) => read_authorities(path).map_err(|error| {
                Failure::new(
                    failure::USAGE,
                    format!("--web-ca: no certificates in {}: {error}", path.display()),
                )
            })?,
        };
        Ok(Route { transport: self.transport.map(TransportArg::transport), proxy, web_roots })
    }
}

/// The proxy that the environment names. One that does not do is for other programs: the hub is tried without it anyway.
fn proxy_of_environment() -> ProxySettings {
    // What is not Unicode is no URL of a proxy.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    ProxySettings::from_environment(variables).unwrap_or_else(|error| {
        tracing::warn!(%error, "no proxy is tried");
        ProxySettings::direct()
    })
}

fn read_authorities(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    if certificates.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(certificates) }
}

/// The names of transports on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransportArg {
    /// TLS over TCP
    Tls,
    /// QUIC, over UDP
    Quic,
    /// TLS inside of WebSocket, for networks that let nothing but HTTP through
    #[value(name = "websocket")]
    WebSocket,
}

impl TransportArg {
    fn transport(self) -> Transport {
        match self {
            Self::Tls => Transport::Tls,
            Self::Quic => Transport::Quic,
            Self::WebSocket => Transport::WebSocket,
        }
    }
}

/// How connections to a device are opened.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
struct OpenArgs {
    /// How long it may take to open a connection, such as 10s; at most a minute. One that is opened while there is no way to the
    /// device has the time of --grace as well
    #[arg(long, default_value = "30s", value_parser = span(1, 60), value_name = SPAN)]
    deadline: Duration,
    /// How long to wait for the device if it is away, such as 30s or 5m; at most ten minutes
    #[arg(long, default_value = "0s", value_parser = span(0, 600), value_name = SPAN)]
    wait: Duration,
    /// For how long connections wait when there is no way to the device, such as 90s or 2h; then they are reset. The device
    /// may want less
    #[arg(long, default_value = GRACE, value_parser = grace_span(), value_name = SPAN)]
    grace: Duration,
    /// Do without encryption between the ends, and without going on after a loss; end the whole connection when either
    /// side closes, as the original device streams do
    #[arg(long, conflicts_with = "grace")]
    strict: bool,
}

/// For how long sessions are kept without a way, unless one says otherwise.
const GRACE: &str = "60s";

/// Reads for how long: at most a day, so that what is lost does not stay for ever.
fn grace_span() -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    span(1, 24 * 60 * 60)
}

impl OpenArgs {
    fn connector(&self, service: Service, device: &Name, name: &Name) -> Connector {
        if self.strict {
            let mut options = OpenOptions::default();
            (options.profile, options.deadline, options.wait) = (Profile::Strict, self.deadline, self.wait);
            return Connector::tunnels(service, device.as_str(), name.as_str(), options);
        }
        let mut options = SessionOptions::default();
        (options.deadline, options.wait, options.grace) = (self.deadline, self.wait, self.grace);
        Connector::new(service, device.as_str(), name.as_str(), options)
    }
}

/// Reads where to listen.
fn listen_address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        None => Err("there is no port: write HOST:PORT, such as 127.0.0.1:4433".to_owned()),
        Some((_, port)) if port.parse::<u16>().is_err() => {
            Err("the port is no number from 0 to 65535".to_owned())
        }
        // Whether all addresses are those of IPv4 or of both differs from program to program.
        Some(("", port)) => {
            Err(format!("there is no host: write 0.0.0.0:{port}, or [::]:{port} for IPv6 as well"))
        }
        Some(_) => Ok(text.to_owned()),
    }
}

/// Runs the command that was given, and returns the exit status.
pub(crate) fn run() -> u8 {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for; everything else is a mistake.
            let printed = error.print();
            return match printed {
                _ if error.use_stderr() => failure::USAGE,
                Ok(()) => 0,
                Err(error) => Failure::from(OutputError::from(error)).tell(),
            };
        }
    };
    let environment = Environment::system();
    if let Err(failure) = start_log(&cli, &environment) {
        return failure.tell();
    }
    let log_format = cli.log.log_format;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run_command(cli.command, environment));
            // To drop it is to wait for its threads, and one may be in a read of the standard input.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::internal(format!("cannot start: {error}"))),
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) if matches!(log_format, LogFormat::Json) && !failure.message.is_empty() => {
            tracing::error!(status = failure.status, "{}", failure.message);
            failure.status
        }
        Err(failure) => failure.tell(),
    }
}

fn parse() -> Result<Cli, clap::Error> {
    let mut command = with_statuses(Cli::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The command and those beneath it, with their exit statuses in `--help`.
fn with_statuses(command: clap::Command) -> clap::Command {
    let example = command.get_after_help().map(|example| format!("{example}\n\n"));
    let statuses = table_of_statuses(matches!(command.get_name(), "towline" | "connect" | "devices"));
    command.after_long_help(example.unwrap_or_default() + &statuses).mut_subcommands(with_statuses)
}

async fn run_command(command: Command, environment: Environment) -> Result<(), Failure> {
    match command {
        Command::Identity(command) => identity::run(command, &environment),
        Command::Hub(args) => hub::run(args, environment).await,
        Command::Device(args) => device::run(args, environment).await,
        Command::Connect(args) => connect::run(args, environment).await,
        Command::Forward(args) => forward::run(args, environment).await,
        Command::Devices(args) => devices::run(args, environment).await,
        Command::Why(args) => why::run(args, environment).await,
        Command::Demo(args) => demo::run(args, environment).await,
    }
}

/// The log goes to the standard error: the standard output carries bytes only. Event logs of sessions go to files.
fn start_log(cli: &Cli, environment: &Environment) -> Result<(), Failure> {
    let LogArgs { verbose, quiet, log_format, ref qlog } = cli.log;
    let event_logs = qlog.layer(environment.tls.time.clone())?;
    // Commands that run for long tell what happens; those that one waits for tell only what goes wrong.
    let usual = match cli.command {
        Command::Hub(_) | Command::Device(_) => LevelFilter::INFO,
        Command::Forward(_)
        | Command::Connect(_)
        | Command::Devices(_)
        | Command::Identity(_)
        | Command::Why(_)
        | Command::Demo(_) => LevelFilter::WARN,
    };
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => usual,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    // What the libraries beneath have to say belongs to the last step.
    let ours = format!("{},towline={level}", if verbose < 2 { LevelFilter::WARN } else { level });
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A line that cannot be written is lost. To complain about it would be to panic, on the same standard error.
    let log = tracing_subscriber::fmt::layer().log_internal_errors(false);
    let log = log.with_writer(std::io::stderr).with_ansi(colours);
    let log = match log_format {
        LogFormat::Text => log.with_target(false).boxed(),
        LogFormat::Json => log.json().boxed(),
    };
    tracing_subscriber::registry()
        .with(log.with_filter(qlog::without_logs(filter)))
        .with(event_logs.map(|layer| layer.with_filter(qlog::only_logs())))
        .init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        with_statuses(Cli::command()).debug_assert();
    }
}
