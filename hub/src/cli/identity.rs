//! `towline identity`: a development authority, and certificates of its making.

use std::fmt::Display;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use towline::Environment;
use towline::authority::{Authority, Issued};
use towline::identity::{Identity, Name, Role, is_trust_domain};

use super::failure::{CANNOT_CREATE, CONFIG, Failure};
use super::keys::{KeyFolder, with_suffix};
use super::output::print_line;

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make the authority, and the certificate of the hub
    Init(InitArgs),
    /// Make a device's certificate
    Device(NameArgs),
    /// Make a service's certificate
    Service(NameArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    files: FileArgs,
    /// The trust domain: whose devices and services these are
    #[arg(long, default_value = "towline.local", value_parser = trust_domain, value_name = "DOMAIN")]
    trust_domain: String,
    /// A name or address under which the hub is reached, besides localhost, 127.0.0.1 and ::1; may be repeated
    #[arg(long, value_parser = host, value_name = "HOST")]
    hub_name: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Its name: letters, digits, '.', '_' and '-'
    name: Name,
    #[command(flatten)]
    files: FileArgs,
}

#[derive(Debug, Args)]
struct FileArgs {
    #[command(flatten)]
    folder: KeyFolder,
    /// For how many days certificates are valid
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

fn trust_domain(text: &str) -> Result<String, &'static str> {
    if is_trust_domain(text) {
        return Ok(text.to_owned());
    }
    Err("use lower-case letters, digits, '.', '_' and '-'")
}

/// A host name, one with `*` for its first part, or an address.
fn host(text: &str) -> Result<String, &'static str> {
    match ServerName::try_from(text.strip_prefix("*.").unwrap_or(text)) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write a host name or an address, without a port"),
    }
}

impl FileArgs {
    fn lifetime(&self) -> Duration {
        Duration::from_secs(self.days * 24 * 60 * 60)
    }
}

pub(crate) fn run(command: IdentityCommand, environment: &Environment) -> Result<(), Failure> {
    let now = environment.tls.time.current_time();
    let now = now.ok_or_else(|| Failure::internal("the system does not know what day it is"))?;
    match command {
        IdentityCommand::Init(args) => init(&args, now),
        IdentityCommand::Device(args) => issue(&args, Role::Device, now),
        IdentityCommand::Service(args) => issue(&args, Role::Service, now),
    }
}

fn init(args: &InitArgs, now: UnixTime) -> Result<(), Failure> {
    let folder = args.files.folder.path()?;
    let (authority, certificate) = Authority::new(now).map_err(bad)?;
    let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let hosts: Vec<_> = hosts.into_iter().chain(args.hub_name.iter().cloned()).collect();
    let identity = identity_in(&args.trust_domain, Role::Hub, "hub".parse().expect("a name"));
    let hub = authority.issue(&identity, &hosts, now, args.files.lifetime()).map_err(bad)?;
    // Before anything is written: what is there stays, all or nothing.
    let places = [folder.join("ca"), folder.join("hub")];
    places.iter().try_for_each(|stem| check_free(stem, args.files.force))?;
    for (stem, issued) in places.iter().zip([&certificate, &hub]) {
        write(stem, issued, args.files.force)?;
    }
    print_line(format_args!("authority      {}", folder.join("ca.pem").display()))?;
    print_line(format_args!("hub            {} ({})", folder.join("hub.pem").display(), hosts.join(", ")))?;
    print_line("next           towline identity device NAME; towline identity service NAME")?;
    Ok(())
}

fn issue(args: &NameArgs, role: Role, now: UnixTime) -> Result<(), Failure> {
    let folder = args.files.folder.path()?;
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| {
            let message = format!(
                "cannot read the authority at {}: {error}; make one with `towline identity init`",
                path.display()
            );
            Failure::new(CONFIG, message)
        })
    };
    let authority = Authority::load(&Issued { certificate: read("ca.pem")?, key: read("ca.key")? });
    let authority = authority.map_err(|error| {
        let message = format!(
            "the authority in {} does not do: {error}; make a new one with `towline identity init --force`",
            folder.display()
        );
        Failure::new(CONFIG, message)
    })?;
    let trust_domain = trust_domain_of(&folder)?;
    let identity = identity_in(&trust_domain, role, args.name.clone());
    let issued = authority.issue(&identity, &[], now, args.files.lifetime()).map_err(bad)?;
    let stem = folder.join(role.to_string()).join(args.name.as_str());
    write(&stem, &issued, args.files.force)?;
    print_line(format_args!("{identity} {}", with_suffix(&stem, "pem").display()))?;
    Ok(())
}

/// The trust domain, as the hub's certificate has it.
fn trust_domain_of(folder: &Path) -> Result<String, Failure> {
    let path = folder.join("hub.pem");
    let unusable = |error: &dyn Display| {
        let path = path.display();
        let remedy = "it names the trust domain, so copy it here";
        Failure::new(CONFIG, format!("cannot read the hub's certificate at {path}: {error}; {remedy}"))
    };
    let contents = std::fs::read(&path).map_err(|error| unusable(&error))?;
    let certificate = CertificateDer::from_pem_slice(&contents).map_err(|error| unusable(&error))?;
    let identity = Identity::of_certificate(&certificate).map_err(|error| unusable(&error))?;
    Ok(identity.trust_domain)
}

fn identity_in(trust_domain: &str, role: Role, name: Name) -> Identity {
    Identity { trust_domain: trust_domain.to_owned(), role, name }
}

fn bad(error: towline::authority::IssueError) -> Failure {
    Failure::new(CONFIG, error.to_string())
}

fn check_free(stem: &Path, force: bool) -> Result<(), Failure> {
    let taken = ["pem", "key"].into_iter().map(|suffix| with_suffix(stem, suffix)).find(|path| path.exists());
    match taken {
        Some(path) if !force => Err(in_the_way(&path)),
        _ => Ok(()),
    }
}

fn in_the_way(path: &Path) -> Failure {
    let message = format!("{} exists; keep it, or replace it with --force", path.display());
    Failure::new(CANNOT_CREATE, message)
}

/// Writes a certificate and its key.
pub(crate) fn write(stem: &Path, issued: &Issued, force: bool) -> Result<(), Failure> {
    check_free(stem, force)?;
    let cannot = |path: &Path, error: &io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => in_the_way(path),
        _ => Failure::new(CANNOT_CREATE, format!("cannot write {}: {error}", path.display())),
    };
    if let Some(folder) = stem.parent() {
        make_folder(folder).map_err(|error| cannot(folder, &error))?;
    }
    // The key first: a certificate without its key would look like an identity.
    for (suffix, contents, mode) in [("key", &issued.key, 0o600), ("pem", &issued.certificate, 0o644)] {
        let path = with_suffix(stem, suffix);
        write_file(&path, contents, mode, force).map_err(|error| cannot(&path, &error))?;
    }
    Ok(())
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Writes a file that has its mode from the start, so that a key is at no time there for others to read. With
/// `force`, an old one is taken away first: writing into it would keep its mode, and whoever has it open.
fn write_file(path: &Path, contents: &str, mode: u32, force: bool) -> io::Result<()> {
    if force {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path)?.write_all(contents.as_bytes())
}
