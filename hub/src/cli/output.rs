//! The standard streams, which may be gone or full.

use std::fmt::Display;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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

/// A stream that keeps the error which ended it, for whoever lent it to a relay; its end comes after its last byte.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    stream: T,
    pub(crate) error: Option<io::Error>,
}

impl<T> Watched<T> {
    pub(crate) fn new(stream: T) -> Self {
        Self { stream, error: None }
    }

    /// Keeps the error of `outcome`, and passes its kind on.
    fn watch<O>(&mut self, outcome: Poll<io::Result<O>>) -> Poll<io::Result<O>> {
        outcome.map_err(|error| {
            let kind = error.kind();
            self.error = Some(error);
            kind.into()
        })
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A contract that tokio's standard output does not keep: its end leaves behind what was written last.
        ready!(self.as_mut().poll_flush(context))?;
        let finished = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(finished)
    }
}
