//! Bulk ingest: a whole stream as one transaction.

use arrow_flight::FlightDescriptor;
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use prost::Message;
use tandem_types::Result;

use crate::address::table_path;

/// What an ingest does about a table that is there or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestMode {
    /// Make the table; fail if it exists.
    Create,
    /// Add to the table; fail if it does not exist.
    Append,
    /// Add to the table, making it if need be.
    CreateAppend,
    /// Drop the table if it exists, and make it anew.
    Replace,
}

impl IngestMode {
    fn options(self) -> TableDefinitionOptions {
        let (missing, present) = match self {
            Self::Create => (TableNotExistOption::Create, TableExistsOption::Fail),
            Self::Append => (TableNotExistOption::Fail, TableExistsOption::Append),
            Self::CreateAppend => (TableNotExistOption::Create, TableExistsOption::Append),
            Self::Replace => (TableNotExistOption::Create, TableExistsOption::Replace),
        };
        TableDefinitionOptions { if_not_exist: missing.into(), if_exists: present.into() }
    }
}

/// The descriptor of an ingest into `t` or `schema.t`.
pub(crate) fn descriptor(table: &str, mode: IngestMode) -> Result<FlightDescriptor> {
    let mut path = table_path(table)?;
    let name = path.pop().unwrap_or_default();
    let command = CommandStatementIngest {
        table_definition_options: Some(mode.options()),
        table: name,
        schema: path.pop(),
        ..Default::default()
    };
    Ok(FlightDescriptor::new_cmd(command.as_any().encode_to_vec()))
}
