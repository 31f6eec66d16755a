//! Prints what a command has found.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};

/// Prints a line, as `println!` does, which panics once nobody reads any more.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::say::line(format_args!($($text)*))
    };
}
pub(crate) use say;

/// Prints a line. Who stops reading, as `head` does, has had enough: the command still ends with its own exit status. With any
/// other error the program ends.
pub(crate) fn line(text: Arguments<'_>) {
    match writeln!(stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to the standard output: {error}");
            std::process::exit(crate::cli::USAGE.into());
        }
        _ => {}
    }
}
