//! What a parser is told before the first byte.

use arrow::datatypes::{SchemaRef, TimeUnit};
use tandem_types::{Error, Result};

/// The unit of row timestamps without a suffix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    Nanosecond,
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    /// Told by the number's size: below 5·10⁹ seconds, below 5·10¹² milliseconds, below 5·10¹⁵ microseconds, else
    /// nanoseconds.
    Auto,
}

impl Precision {
    /// Short and long names of both families.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for any other.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "n" | "ns" | "nanosecond" | "nanoseconds" => Ok(Self::Nanosecond),
            "u" | "us" | "µ" | "µs" | "microsecond" | "microseconds" => Ok(Self::Microsecond),
            "ms" | "millisecond" | "milliseconds" => Ok(Self::Millisecond),
            "s" | "second" | "seconds" => Ok(Self::Second),
            "m" | "minute" | "minutes" => Ok(Self::Minute),
            "h" | "hour" | "hours" => Ok(Self::Hour),
            "auto" => Ok(Self::Auto),
            other => Err(Error::invalid(format!(
                "precision {other:?} is not known; it is one of ns, us, ms, s, m, h and auto"
            ))),
        }
    }

    /// A number of this precision in a unit that Arrow has; `None` if it leaves the range.
    pub(crate) fn ticks(self, number: i64) -> Option<(i64, TimeUnit)> {
        let size = number.unsigned_abs();
        let unit = match self {
            Self::Nanosecond => TimeUnit::Nanosecond,
            Self::Microsecond => TimeUnit::Microsecond,
            Self::Millisecond => TimeUnit::Millisecond,
            Self::Second => TimeUnit::Second,
            Self::Minute => return Some((number.checked_mul(60)?, TimeUnit::Second)),
            Self::Hour => return Some((number.checked_mul(3600)?, TimeUnit::Second)),
            Self::Auto if size < 5_000_000_000 => TimeUnit::Second,
            Self::Auto if size < 5_000_000_000_000 => TimeUnit::Millisecond,
            Self::Auto if size < 5_000_000_000_000_000 => TimeUnit::Microsecond,
            Self::Auto => TimeUnit::Nanosecond,
        };
        Some((number, unit))
    }
}

/// How lines are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    pub precision: Precision,
    /// The row timestamp of lines without one, in nanoseconds since 1970.
    pub now: i64,
    /// How many bytes the body has, if that is known: columns are made room for.
    pub body_bytes: Option<u64>,
    pub limits: Limits,
}

/// Bounds of what one body may make the parser hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A line, in bytes, its binary values included.
    pub line_bytes: usize,
    /// Columns that lines name of one table.
    pub columns: usize,
    /// Tables that one body names.
    pub tables: usize,
    /// Names of columns that are remembered, of all tables together: a few bytes of a body become a column that takes a hundred
    /// times as many.
    pub names: usize,
    /// Rows are cut into a batch when they and their places take this much, in bytes; beside them, up to 4 MiB of series that came
    /// again are remembered.
    pub batch_bytes: usize,
    /// Errors that are listed; more are counted only.
    pub errors: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line_bytes: 16 << 20,
            columns: 4096,
            tables: 4096,
            names: 1 << 17,
            batch_bytes: 16 << 20,
            errors: 100,
        }
    }
}

/// A table that exists.
#[derive(Clone, Debug)]
pub struct KnownTable {
    /// The designated timestamp, if it has one.
    pub timestamp: Option<String>,
    /// All of its columns.
    pub columns: SchemaRef,
}

/// What a table asks of lines, beside their types.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Columns of which every line has a value.
    pub required: Vec<String>,
    /// Its only tags: another one would make two rows of what is one to the table. `None`: any.
    pub tags: Option<Vec<String>>,
    /// Lines name columns that are there, and no others, and have numbers in them that need no wider type.
    pub fixed: bool,
    /// Lines with a value that does not go into its column are not refused but kept aside
    /// ([`Parser::take_diverted`](crate::Parser::take_diverted)).
    pub divert: bool,
}

/// Tells what exists.
pub trait Catalog: Send + Sync {
    /// The table of that name, if there is one. Asked once a table and body.
    fn table(&self, name: &str) -> Option<KnownTable>;

    /// What that table asks of lines, or will ask once they have made it. Asked once a table and body.
    fn rules(&self, _name: &str) -> Rules {
        Rules::default()
    }
}
