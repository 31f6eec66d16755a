//! Files that a command writes: each is there as a whole, or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Writes a file: under another name first, so that nobody ever sees a half of it. What is there and is no regular file,
/// such as a FIFO, is written into.
///
/// # Errors
///
/// It cannot be written; the error names it.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let context = || format!("cannot write {}", path.display());
    let path = &real(path);
    if is_special(path) {
        let mut file = std::fs::OpenOptions::new().write(true).open(path).with_context(context)?;
        return file.write_all(bytes).with_context(context);
    }
    let mut file = beside(path)?;
    file.write_all(bytes).map_err(without_name).with_context(context)?;
    file.persist(path).map_err(|error| without_name(error.error)).with_context(context)?;
    Ok(())
}

/// Makes sure that a file can be written, before the work that it is for.
///
/// # Errors
///
/// It cannot; the error names it.
pub fn check_writable(path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    if path.is_dir() {
        bail!("cannot write {}: it is a directory", path.display());
    }
    let path = real(path);
    if !is_special(&path) {
        beside(&path)?;
    }
    Ok(())
}

/// Makes sure that two files are not one, of which the later would replace the earlier. Each has its name on the command
/// line.
pub(crate) fn check_different(
    one: (&str, Option<&Path>),
    other: (&str, Option<&Path>),
) -> anyhow::Result<()> {
    if let (Some(first), Some(second)) = (one.1, other.1)
        && real(first) == real(second)
        && !is_special(first)
    {
        bail!("{} and {} are both {}: give them two files", one.0, other.0, first.display());
    }
    Ok(())
}

/// Where a file is, or will be: what a link leads to, and not the link.
fn real(path: &Path) -> PathBuf {
    let beside = || {
        let directory = directory(path).canonicalize().unwrap_or_else(|_| directory(path).to_owned());
        directory.join(path.file_name().unwrap_or_default())
    };
    path.canonicalize().unwrap_or_else(|_| beside())
}

/// Whether something is there that cannot be replaced by a file, such as `/dev/null`.
fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir())
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file next to another one, which it is to become, with the mode that any new file has.
fn beside(path: &Path) -> anyhow::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let made = builder.tempfile_in(directory(path));
    made.map_err(without_name).with_context(|| format!("cannot write {}", path.display()))
}

/// An error without the name of the file that was to become another one, which nobody has asked for.
fn without_name(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such directory")
        }
        kind => kind.into(),
    }
}
