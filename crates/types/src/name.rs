//! Names that users give. They live in the log only and never become paths.

use std::fmt;

use crate::{Error, Result};

/// The one catalog of a database, as clients see it.
pub const DEFAULT_CATALOG: &str = "tandem";
/// The schema that exists in every database and that unqualified names mean.
pub const DEFAULT_SCHEMA: &str = "public";
/// The longest name of a schema, table or column, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// A table's name within its schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    pub schema: String,
    pub table: String,
}

impl TableName {
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { schema: schema.into(), table: table.into() }
    }

    /// A table of the default schema.
    pub fn public(table: impl Into<String>) -> Self {
        Self::new(DEFAULT_SCHEMA, table)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema == DEFAULT_SCHEMA {
            f.write_str(&self.table)
        } else {
            write!(f, "{}.{}", self.schema, self.table)
        }
    }
}

/// Refuses a name that is empty, too long, or holds control characters; `what` says what it names.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("the name of a {what} must not be empty")));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::invalid(format!(
            "the name of a {what} has {} bytes, at most {MAX_NAME_BYTES} are allowed",
            name.len()
        )));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::invalid(format!("the name of a {what} holds a control character: {name:?}")));
    }
    Ok(())
}
