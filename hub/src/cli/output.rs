//! The standard streams, which may be gone or full.

use std::fmt::Display;
use std::io::{self, Write};

/// The standard output takes no more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to the standard output: {0}; what it has is incomplete")]
pub(crate) struct OutputError(#[from] io::Error);

impl OutputError {
    /// Whether whoever read has gone away, which is theirs to do: `towline devices | head -1`.
    pub(crate) fn nobody_reads(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Prints a line at once. The only way to print: `println!` panics where this fails.
pub(crate) fn print_line(line: impl Display) -> Result<(), OutputError> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// Prints a line on the standard error, where there is still somebody to read it.
pub(crate) fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
