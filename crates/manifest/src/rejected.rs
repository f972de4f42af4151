//! The one table that the database makes for itself: values that did not fit their columns, as lines sent them.

use arrow_schema::{DataType, TimeUnit};
use tandem_types::{Error, PartitionUnit, Result, TableName};

use crate::intent::{ColumnSpec, TableSpec};
use crate::ops::is_reserved_schema;

const NAME: &str = "rejected";
const TIME: &str = "time";

/// Partitions of it that are older are dropped: it must not grow for ever.
const TTL: &str = "30d";

/// Its columns.
const COLUMNS: [(&str, DataType); 8] = [
    ("seq", DataType::UInt64),
    (TIME, DataType::Timestamp(TimeUnit::Microsecond, None)),
    ("table_name", DataType::Utf8),
    ("column_name", DataType::Utf8),
    ("expected", DataType::Utf8),
    ("got", DataType::Utf8),
    ("line", DataType::Utf8),
    ("client", DataType::Utf8),
];

/// `system.rejected`: kept like every other table, and written by nobody but the database.
pub fn rejected_table() -> TableName {
    TableName::new("system", NAME)
}

/// How it is made: with the first rows for it.
pub fn rejected_spec() -> TableSpec {
    let column = |(name, data_type): (&str, DataType)| ColumnSpec {
        name: name.to_owned(),
        data_type,
        nullable: name != TIME,
    };
    TableSpec {
        columns: COLUMNS.into_iter().map(column).collect(),
        timestamp: Some(TIME.to_owned()),
        partition_by: Some(PartitionUnit::Day),
        options: vec![("ttl".to_owned(), TTL.to_owned())],
        ..TableSpec::default()
    }
}

/// Whether somebody may write to a table of that name, who would create it like that.
///
/// # Errors
///
/// `InvalidInput` for tables that the database itself fills.
pub fn check_writable(name: &TableName, create: Option<&TableSpec>) -> Result<()> {
    let own = || *name == rejected_table() && create.is_some_and(|spec| *spec == rejected_spec());
    if is_reserved_schema(&name.schema) && !own() {
        return Err(read_only(&name.schema));
    }
    Ok(())
}

pub(crate) fn read_only(schema: &str) -> Error {
    Error::invalid(format!("schema {schema:?} is read-only"))
}

#[cfg(test)]
mod tests {
    use tandem_types::DatabaseId;

    use super::*;
    use crate::{Intent, Manifest, Rebased, Rejection, Step, rebase};

    fn create(name: TableName, spec: TableSpec) -> Result<Manifest, Rejection> {
        let steps = vec![Step::CreateTable { name, spec, if_not_exists: true, replace: false }];
        let state = Manifest::empty(DatabaseId(1));
        let intent = Intent { token: None, digest: Vec::new(), epoch: None, base: state.seq(), steps };
        match rebase(&intent, &state, state.seq().next(), 0)? {
            Rebased::Commit { state, .. } => Ok(*state),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_made_as_it_is_and_nothing_else_is_made_beside_it() {
        let made = create(rejected_table(), rejected_spec()).unwrap();
        let table = made.table_named(&rejected_table()).unwrap();
        assert_eq!((table.option("ttl"), table.timestamp().unwrap().name.as_str()), (Some(TTL), TIME));
        let other = TableSpec { partition_by: Some(PartitionUnit::Hour), ..rejected_spec() };
        let beside = TableName::new("system", "others");
        for (name, spec) in [(rejected_table(), other.clone()), (beside, rejected_spec())] {
            let Err(Rejection::Refused(error)) = create(name.clone(), spec.clone()) else { panic!("{name}") };
            assert!(error.message().contains("read-only"), "{error}");
            assert!(check_writable(&name, Some(&spec)).is_err());
        }
        assert!(check_writable(&rejected_table(), None).is_err());
        assert!(check_writable(&rejected_table(), Some(&rejected_spec())).is_ok());
        assert!(check_writable(&TableName::public("t"), None).is_ok());
    }
}
