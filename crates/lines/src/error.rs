//! What is wrong with a line.

use std::fmt;

use crate::scan::line_end;

/// Bytes of a refused line that its error repeats, at most.
const SHOWN_BYTES: usize = 512;

/// Why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineErrorKind {
    /// It is no line of the protocol.
    Malformed,
    /// A value does not go into the column that it names.
    Conflict,
    /// A bound was reached.
    Limit,
}

/// A line that is kept aside because of one value, where its table says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diverted {
    pub table: String,
    /// The column that the value does not go into.
    pub column: String,
    /// Its type.
    pub expected: String,
    /// What the line has.
    pub got: String,
    /// All of the line; bytes that are no text are replaced.
    pub line: String,
}

/// A line that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    pub kind: LineErrorKind,
    /// From 1 on; empty lines and comments count, line ends within values do not.
    pub line: u64,
    /// From 1 on, within the line.
    pub byte: usize,
    /// As far as it was read.
    pub table: Option<String>,
    /// That the error is about.
    pub column: Option<String>,
    /// What is wrong, without the place.
    pub message: String,
    /// The beginning of the line.
    pub original: String,
}

impl LineError {
    /// The error of the line at `line`, of which `text` is known.
    pub(crate) fn new(fault: Fault, line: u64, start: usize, text: &[u8]) -> Self {
        let end = memchr::memchr(b'\n', text).unwrap_or(text.len()).min(SHOWN_BYTES);
        let original = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned();
        Self {
            kind: fault.kind,
            line,
            byte: fault.at.saturating_sub(start) + 1,
            table: fault.table,
            column: fault.column,
            message: fault.message,
            original,
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, byte {}", self.line, self.byte)?;
        if let Some(table) = &self.table {
            write!(f, ", table {table:?}")?;
        }
        if let Some(column) = &self.column {
            write!(f, ", column {column:?}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why the line is not read to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The buffer ended first.
    Open,
    /// Boxed: almost no line has one.
    Bad(Box<Fault>),
}

/// What is wrong, and where in the buffer.
#[derive(Debug)]
pub(crate) struct Fault {
    pub kind: LineErrorKind,
    pub at: usize,
    /// Further behind, if the line is known to go on to there.
    pub until: usize,
    pub table: Option<String>,
    pub column: Option<String>,
    /// Where a value does not go into a column.
    pub types: Option<Types>,
    pub message: String,
}

/// Two that do not go together.
#[derive(Debug)]
pub(crate) struct Types {
    /// The column's.
    pub expected: String,
    /// The value's.
    pub got: String,
}

/// Why a column does not take a value.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub message: String,
    pub types: Option<Types>,
}

impl Stop {
    pub fn bad(kind: LineErrorKind, at: usize, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Bad(Box::new(Fault { kind, at, until: at, table: None, column: None, types: None, message }))
    }

    pub fn malformed(at: usize, message: impl Into<String>) -> Self {
        Self::bad(LineErrorKind::Malformed, at, message)
    }

    pub fn limit(at: usize, message: impl Into<String>) -> Self {
        Self::bad(LineErrorKind::Limit, at, message)
    }

    /// Where reading goes on behind a line that begins at `start` and is refused for this; `None` if that is not there yet.
    pub fn line_end(&self, buf: &[u8], start: usize) -> Option<usize> {
        match self {
            Self::Open => None,
            Self::Bad(fault) => line_end(buf, fault.until.clamp(start, buf.len())),
        }
    }

    /// Whether it is about what begins there.
    pub fn is_at(&self, at: usize) -> bool {
        matches!(self, Self::Bad(fault) if fault.at == at)
    }

    /// The same, of a line that goes on to there at least.
    pub fn until(mut self, at: usize) -> Self {
        if let Self::Bad(fault) = &mut self {
            fault.until = fault.until.max(at);
        }
        self
    }

    /// The same, because a value is of one type and its column of another.
    pub fn of_types(mut self, types: Option<Types>) -> Self {
        if let Self::Bad(fault) = &mut self {
            fault.types = types;
        }
        self
    }

    /// The same, about a column.
    pub fn of_column(mut self, column: &str) -> Self {
        if let Self::Bad(fault) = &mut self {
            fault.column.get_or_insert_with(|| column.to_owned());
        }
        self
    }

    /// The same, about a table.
    pub fn of_table(mut self, table: &str) -> Self {
        if let Self::Bad(fault) = &mut self {
            fault.table.get_or_insert_with(|| table.to_owned());
        }
        self
    }
}

pub(crate) type Step<T> = std::result::Result<T, Stop>;
