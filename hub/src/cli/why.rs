//! `towline why`.

use clap::{Args, ValueEnum};
use serde::Serialize;
use towline::identity::Role;
use towline::{Attempt, Environment};

use super::EndpointArgs;
use super::failure::{Failure, UNAVAILABLE};
use super::output::print_line;

#[derive(Debug, Args)]
#[command(after_help = "\
Example, from a device that does not come online:
  towline why hub.example.com:443 --as device

Each way is tried to its end, one after the other, as far as the proof that it is the hub who answers. Whether the hub
takes this end's certificate is seen when it says hello: with `towline devices`, or in the device's log.")]
pub(crate) struct WhyArgs {
    /// The hub, instead of --hub
    #[arg(value_name = "HUB")]
    address: Option<String>,
    /// Whose identity to use
    #[arg(long = "as", value_enum, default_value_t = As::Service, value_name = "ROLE")]
    role: As,
    /// Print JSON: an array of objects, stable from version to version
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum As {
    Device,
    Service,
}

/// An attempt, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Row {
    hub: String,
    transport: String,
    proxied: bool,
    /// How far it got.
    reached: String,
    works: bool,
    milliseconds: u64,
    /// Why it got no further, and what to do.
    error: Option<String>,
}

impl Row {
    fn new(hub: &str, attempt: &Attempt) -> Self {
        Self {
            hub: hub.to_owned(),
            transport: attempt.way.transport.to_string(),
            proxied: attempt.way.proxied,
            reached: attempt.stage.to_string(),
            works: attempt.error.is_none(),
            milliseconds: u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX),
            error: attempt.error.as_ref().map(ToString::to_string),
        }
    }
}

pub(crate) async fn run(mut args: WhyArgs, environment: Environment) -> Result<(), Failure> {
    if let Some(hub) = args.address {
        args.endpoint.hub = vec![hub];
    }
    let role = match args.role {
        As::Device => Role::Device,
        As::Service => Role::Service,
    };
    let configs = args.endpoint.configs(role)?;
    let several = configs.len() > 1;
    let (mut rows, mut all_reached) = (Vec::new(), true);
    for config in configs {
        let hub = config.hub.clone();
        let attempts = towline::why(config, environment.clone()).await?;
        all_reached &= attempts.iter().any(|attempt| attempt.error.is_none());
        if args.json {
            rows.extend(attempts.iter().map(|attempt| Row::new(&hub, attempt)));
            continue;
        }
        if several {
            print_line(format_args!("{hub}:"))?;
        }
        for attempt in &attempts {
            print_line(line(attempt))?;
        }
    }
    if args.json {
        let json = serde_json::to_string_pretty(&rows);
        print_line(json.map_err(|error| Failure::internal(error.to_string()))?)?;
    }
    if all_reached {
        return Ok(());
    }
    // Each line has said why.
    Err(Failure::new(
        UNAVAILABLE,
        if several { "there is no way to one of the hubs" } else { "there is no way to the hub" },
    ))
}

fn line(attempt: &Attempt) -> String {
    let Attempt { way, stage, took, error } = attempt;
    let way = way.to_string();
    let took = took.as_millis();
    match error {
        None => format!("{way:<27} works: {stage} in {took} ms"),
        Some(error) => format!("{way:<27} fails: {stage}, after {took} ms: {error}"),
    }
}
