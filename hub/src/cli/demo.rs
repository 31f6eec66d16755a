//! `towline demo`: all of it on this machine, over real TLS, with nothing to set up.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use rustls::pki_types::UnixTime;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use towline::agent::{self, Target};
use towline::authority::{Authority, Issued};
use towline::core::Limits;
use towline::identity::Identity;
use towline::policy::AllowAll;
use towline::{
    Connector, CredentialFiles, Device, EndpointConfig, Environment, Hub, HubConfig, Route, Service,
    SessionOptions, Status, forward,
};
use towline_transports::crypto::digest;

use super::diagnostics::{self, FILE_SIZE};
use super::failure::Failure;
use super::identity::write;
use super::keys::files_of;
use super::output::{OutputError, print_line};
use super::signals::Stops;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// End after the check, with status 0 if everything was as it should be, instead of waiting for Ctrl-C
    #[arg(long)]
    once: bool,
}

const DEVICE: &str = "press-7";
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn run(args: DemoArgs, environment: Environment) -> Result<(), Failure> {
    let mut stops = Stops::new();
    let outcome = tokio::select! {
        outcome = show(args, environment) => outcome,
        _ = stops.next() => Ok(()),
    };
    outcome.map_err(|error| match error.downcast::<OutputError>() {
        Ok(error) => error.into(),
        Err(error) => Failure::internal(format!("the demo failed: {error:#}")),
    })
}

async fn show(args: DemoArgs, environment: Environment) -> anyhow::Result<()> {
    let folder = TempDir::with_prefix("towline-demo-").context("cannot make a temporary folder")?;
    make_identities(folder.path(), &environment)?;
    print_line("authority   a throw-away one, with certificates for all three")?;

    let read = |stem: &str| read_keys(folder.path(), stem);
    let config = HubConfig {
        listen: "127.0.0.1:0".to_owned(),
        credentials: read("hub")?,
        limits: Limits::default(),
        policy: Box::new(AllowAll),
        quic: true,
    };
    let hub = Hub::start(config, environment.clone()).await?;
    print_line(format_args!("hub         listens on {}", hub.local_addr()))?;

    let address = hub.local_addr();
    let endpoint = |stem: &str| {
        anyhow::Ok(EndpointConfig {
            hub: address.to_string(),
            credentials: read(stem)?,
            route: Route::default(),
        })
    };
    start_device(endpoint("device/press-7")?, address, &environment).await?;

    let service = Service::new(endpoint("service/you")?, environment.clone())?;
    let listener = environment.network.listen("127.0.0.1:0").await.context("cannot listen")?;
    let local = listener.local_addr()?;
    let connector = Connector::new(service, DEVICE, "web", SessionOptions::default());
    tokio::spawn(forward(Arc::new(connector), listener));
    print_line(format_args!("service     {local} leads to the web page of {DEVICE}, through the hub"))?;

    check_page(local).await?;
    check_file(local).await?;
    if args.once {
        print_line("all as it should be")?;
        return Ok(());
    }
    explain(local, folder.path(), address)?;
    std::future::pending().await
}

/// The authority, and a certificate for everybody, as files: for the ssh line, too.
fn make_identities(folder: &Path, environment: &Environment) -> anyhow::Result<()> {
    let now: UnixTime = environment.tls.time.current_time().context("the system does not know the date")?;
    let (authority, certificate) = Authority::new(now)?;
    let save = |stem: &str, issued: &Issued| {
        write(&folder.join(stem), issued, false).map_err(|failure| anyhow::anyhow!(failure.message))
    };
    save("ca", &certificate)?;
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    for (who, stem, hosts) in [
        ("hub/hub", "hub", &hosts[..]),
        ("device/press-7", "device/press-7", &[]),
        ("service/you", "service/you", &[]),
    ] {
        let identity: Identity = format!("spiffe://demo.towline.local/{who}").parse()?;
        save(stem, &authority.issue(&identity, hosts, now, LIFETIME)?)?;
    }
    Ok(())
}

fn read_keys(folder: &Path, stem: &str) -> anyhow::Result<towline_transports::tls::Credentials> {
    let files: CredentialFiles = files_of(folder, &folder.join(stem));
    Ok(files.read()?)
}

/// A device with a web page of its own, and whatever ssh server this machine has.
async fn start_device(
    config: EndpointConfig,
    hub: SocketAddr,
    environment: &Environment,
) -> anyhow::Result<()> {
    let page = diagnostics::serve(DEVICE.to_owned(), hub).await.context("cannot serve the page")?;
    let mut device = Device::register(config, environment.clone())?;
    let mut status = device.status();
    let online = status.wait_for(|status| matches!(status, Status::Online));
    timeout(PATIENCE, online).await.context("the device did not get online")??;
    print_line(format_args!("device      {DEVICE} is online; it offers a web page, and ssh"))?;
    let targets: Vec<Target> = vec![format!("web={page}").parse()?, "ssh=127.0.0.1:22".parse()?];
    let environment = environment.clone();
    tokio::spawn(async move { agent::serve(&mut device, targets, environment).await });
    Ok(())
}

async fn check_page(local: SocketAddr) -> anyhow::Result<()> {
    let start = Instant::now();
    let page = fetch(local, "/").await?.into_body().collect().await?.to_bytes();
    ensure!(page.starts_with(b"<!doctype html>"), "the page is not the device's");
    ensure!(std::str::from_utf8(&page)?.contains(DEVICE), "the page does not name the device");
    print_line(format_args!("page        {} bytes in {} ms", page.len(), start.elapsed().as_millis()))?;
    Ok(())
}

async fn check_file(local: SocketAddr) -> anyhow::Result<()> {
    // Ctrl-C ends it as well.
    let bar = ProgressBar::new(FILE_SIZE).with_finish(ProgressFinish::AndClear);
    let style = "file        {bar:30} {bytes:>10} of {total_bytes}  {binary_bytes_per_sec}";
    bar.set_style(ProgressStyle::with_template(style).context("the template is fixed")?);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let start = Instant::now();
    let mut body = fetch(local, "/file").await?.into_body();
    let mut context = digest::Context::new(&digest::SHA256);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bar.inc(data.len() as u64);
            context.update(&data);
        }
    }
    let elapsed = start.elapsed();
    let fetched = bar.position();
    bar.finish_and_clear();
    ensure!(fetched == FILE_SIZE, "{fetched} bytes came of {FILE_SIZE}");
    let (expected, got) = (diagnostics::file_digest(), context.finish());
    ensure!(expected.as_ref() == got.as_ref(), "the file's SHA-256 is not what it should be");
    print_line(format_args!(
        "file        {} MiB in {:.2} s, {:.0} MiB/s, encrypted from end to end; SHA-256 {} is right",
        FILE_SIZE >> 20,
        elapsed.as_secs_f64(),
        (FILE_SIZE >> 20) as f64 / elapsed.as_secs_f64(),
        got.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "...",
    ))?;
    Ok(())
}

/// Fetches something from the local port, as a browser would.
async fn fetch(local: SocketAddr, path: &str) -> anyhow::Result<Response<Incoming>> {
    #[expect(clippy::disallowed_methods, reason = "this is a local program, not a part of the network")]
    let socket = tokio::net::TcpStream::connect(local).await?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", local.to_string()).body(Empty::<Bytes>::new())?;
    let response = timeout(PATIENCE, client.send_request(request)).await.context("no answer")??;
    if response.status() != StatusCode::OK {
        bail!("{path} answered {}", response.status());
    }
    Ok(response)
}

fn explain(local: SocketAddr, folder: &Path, hub: SocketAddr) -> Result<(), OutputError> {
    let program = std::env::current_exe().map_or("towline".into(), |path| path.display().to_string());
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    print_line("")?;
    print_line(format_args!("Open        http://{local}/"))?;
    print_line("Or, if this machine has an ssh server, in another terminal:")?;
    print_line(format_args!(
        "  ssh -o ProxyCommand='{program} connect --dir {} --hub {hub} %h ssh' {user}@{DEVICE}",
        folder.display()
    ))?;
    print_line("Ctrl-C ends it and removes its files.")
}
