//! Reading certificates and keys from files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use towline_transports::tls::Credentials;

/// Where a certificate, its key, and the authority's certificate are. All are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key; nobody but its owner may be able to read the file.
    pub key: PathBuf,
    /// The certificates of the authorities that are trusted.
    pub authority: PathBuf,
}

/// Why credentials could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// There is no such file.
    #[error("there is no {what} at {}; make it with `towline identity`, or name another", .path.display())]
    Missing {
        /// What it should hold.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the {what} at {}: {error}; check the file's owner and mode", .path.display())]
    Unreadable {
        /// What it should hold.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{} holds no {what}: {why}; make a new one with `towline identity ... --force`", .path.display())]
    Malformed {
        /// What it should hold.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Others can read the key.
    #[error("others can read the private key at {} (mode {mode:04o}); run `chmod 600` on it", .path.display())]
    Exposed {
        /// Where it is.
        path: PathBuf,
        /// The file's mode.
        mode: u32,
    },
}

impl CredentialFiles {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// One of them is missing, cannot be read, or does not hold what it should; or others can read the key.
    pub fn read(&self) -> Result<Credentials, CredentialError> {
        let chain = certificates(&self.certificate, "certificate")?;
        check_mode(&self.key)?;
        let what = "private key";
        let key = PrivateKeyDer::from_pem_slice(&contents(&self.key, what)?)
            .map_err(|error| malformed(what, &self.key, &error))?;
        let mut roots = RootCertStore::empty();
        let what = "authority's certificate";
        for certificate in certificates(&self.authority, what)? {
            roots.add(certificate).map_err(|error| CredentialError::Malformed {
                what,
                path: self.authority.clone(),
                why: error.to_string(),
            })?;
        }
        Ok(Credentials { chain, key, roots: Arc::new(roots) })
    }
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let contents = contents(path, what)?;
    let certificates = CertificateDer::pem_slice_iter(&contents).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| malformed(what, path, &error))?;
    if certificates.is_empty() {
        return Err(malformed(what, path, &pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn contents(path: &Path, what: &'static str) -> Result<Vec<u8>, CredentialError> {
    std::fs::read(path).map_err(|error| unreadable(path, what, error))
}

fn unreadable(path: &Path, what: &'static str, error: io::Error) -> CredentialError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => CredentialError::Missing { what, path },
        _ => CredentialError::Unreadable { what, path, error },
    }
}

fn malformed(what: &'static str, path: &Path, error: &pem::Error) -> CredentialError {
    let why = match error {
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        error => error.to_string(),
    };
    CredentialError::Malformed { what, path: path.to_owned(), why }
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), CredentialError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, "private key", error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(CredentialError::Exposed { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), CredentialError> {
    Ok(())
}
