//! Line protocol, all dialects, into record batches.
//!
//! One parser reads the text protocol of QuestDB (versions 1 to 3 with binary doubles, arrays and decimals) and of
//! InfluxDB (versions 1 to 3): they differ in what they allow, not in what a line means.
//!
//! ```text
//! table[,tag=text …] column=value[,column=value …] [timestamp]\n
//! ```
//!
//! What this crate promises:
//!
//! - A body may come in pieces cut anywhere ([`Parser::feed`]); what is parsed does not depend on the cuts.
//! - Binary values are skipped by their length: no byte of theirs is ever taken for the end of a line.
//! - A line that is refused leaves no trace: no value, no column, no table. Its error names line, byte, table, column
//!   and what is wrong, and the lines behind it are read as if it were not there; but a line that is not over where the body
//!   or the bound of a line is, such as one with a quote too few, takes what is before that with it.
//! - No body, however made, makes it panic or hold more than its [`Limits`] allow.
//! - Values go into the columns of tables that exist ([`Catalog`]) only without loss; a timestamp alone is cut to the
//!   unit of its column.
//!
//! Words: a *tag* is a text of the first part of a line and becomes a dictionary-encoded column; the *row timestamp* is
//! the number at the end of a line and goes into the table's designated timestamp.
//!
//! It refuses to know HTTP, transactions, who writes, and what time it is.

mod array;
mod column;
mod decimal;
mod error;
mod line;
mod number;
mod parser;
mod scan;
mod series;
mod settings;
mod table;
mod tags;
mod value;

#[cfg(test)]
mod tests;

pub use error::{Diverted, LineError, LineErrorKind};
pub use parser::{Parser, TableBatch};
pub use settings::{Catalog, KnownTable, Limits, Precision, Rules, Settings};
