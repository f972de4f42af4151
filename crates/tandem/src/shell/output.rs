//! Where rows go: standard output or a file of `\o`.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use tandem_types::{Error, Result};

/// A writer that takes a reader's leaving (`tandem sql … | head`) as an end, not as a failure.
pub struct Output {
    writer: Box<dyn Write + Send>,
    name: String,
    closed: bool,
}

impl Output {
    pub fn stdout() -> Self {
        Self::to("standard output", Box::new(BufWriter::new(io::stdout())))
    }

    pub fn file(path: &str) -> Result<Self> {
        let file = File::create(path).map_err(|e| Error::invalid(format!("cannot write {path:?}: {e}")))?;
        Ok(Self::to(path, Box::new(BufWriter::new(file))))
    }

    pub fn to(name: &str, writer: Box<dyn Write + Send>) -> Self {
        Self { writer, name: name.to_owned(), closed: false }
    }

    /// Whether the reader has gone, so that more rows would be made for nobody.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// `e` as an error that names this output.
    pub fn error(&self, e: impl std::fmt::Display) -> Error {
        Error::unavailable(format!("cannot write to {}: {e}", self.name))
    }

    pub fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self, "{text}").map_err(|e| self.error(e))
    }

    pub fn finish(&mut self) -> Result<()> {
        self.flush().map_err(|e| self.error(e))
    }

    fn settle<T>(&mut self, outcome: io::Result<T>, instead: T) -> io::Result<T> {
        match outcome {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(instead)
            }
            other => other,
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        let outcome = self.writer.write(bytes);
        self.settle(outcome, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let outcome = self.writer.flush();
        self.settle(outcome, ())
    }
}
