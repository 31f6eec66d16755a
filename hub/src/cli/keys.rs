//! Where certificates and keys are kept.
//!
//! A folder: `ca.pem` and `ca.key`, `hub.pem` and `hub.key`, `device/NAME.pem` and `device/NAME.key`, and the same
//! for `service/`. Only its owner can read the keys.

use std::path::{Path, PathBuf};

use clap::Args;
use etcetera::BaseStrategy;
use towline::CredentialFiles;
use towline::identity::{Name, Role};
use towline_transports::tls::Credentials;

use super::failure::{CONFIG, Failure};

/// Which folder.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Identity")]
pub(crate) struct KeyFolder {
    /// The folder of certificates and keys [default: towline in the user's configuration folder]
    #[arg(long, env = "TOWLINE_DIR", value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

impl KeyFolder {
    pub(crate) fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let base = etcetera::choose_base_strategy().map_err(|error| {
            Failure::new(CONFIG, format!("there is no home folder ({error}); name a folder with --dir"))
        })?;
        Ok(base.config_dir().join("towline"))
    }
}

/// Where this end's credentials are.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Identity")]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    folder: KeyFolder,
    /// A certificate elsewhere, as PEM
    #[arg(long, value_name = "FILE", requires_all = ["key", "ca"])]
    cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The certificates of the authorities to trust
    #[arg(long, value_name = "FILE", requires = "cert")]
    ca: Option<PathBuf>,
}

impl KeyArgs {
    /// The credentials of a `role`: those of `identity`, or the only ones in the folder.
    pub(crate) fn read(&self, role: Role, identity: Option<&Name>) -> Result<Credentials, Failure> {
        let files = if let (Some(certificate), Some(key), Some(authority)) = (&self.cert, &self.key, &self.ca)
        {
            CredentialFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                authority: authority.clone(),
            }
        } else {
            let folder = self.folder.path()?;
            let stem = match (role, identity) {
                (Role::Hub, _) => folder.join("hub"),
                (_, Some(name)) => folder.join(role.to_string()).join(name.as_str()),
                (_, None) => the_only_one(&folder, role)?,
            };
            files_of(&folder, &stem)
        };
        let CredentialFiles { certificate, authority, .. } = &files;
        tracing::debug!(certificate = %certificate.display(), authority = %authority.display(), "reading");
        Ok(files.read()?)
    }
}

/// The files of the identity whose files begin with `stem`.
pub(crate) fn files_of(folder: &Path, stem: &Path) -> CredentialFiles {
    CredentialFiles {
        certificate: with_suffix(stem, "pem"),
        key: with_suffix(stem, "key"),
        authority: folder.join("ca.pem"),
    }
}

/// `stem` and a suffix. Not `with_extension`, which would take away a part of the name `press.7`.
pub(crate) fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(".");
    path.push(suffix);
    path.into()
}

/// The one identity of that role in the folder.
fn the_only_one(folder: &Path, role: Role) -> Result<PathBuf, Failure> {
    let place = folder.join(role.to_string());
    let entries = std::fs::read_dir(&place).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".pem")?.to_owned()))
        .collect();
    names.sort_unstable();
    match &names[..] {
        [name] => Ok(place.join(name)),
        [] => {
            let message = format!(
                "there is no {role} identity in {}; make one with `towline identity {role} NAME`",
                place.display()
            );
            Err(Failure::new(CONFIG, message))
        }
        names => {
            let message = format!(
                "there are {} {role} identities in {}; choose one with --identity: {}",
                names.len(),
                place.display(),
                names.join(", ")
            );
            Err(Failure::new(CONFIG, message))
        }
    }
}
