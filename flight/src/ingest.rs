//! `CommandStatementIngest`: a whole stream of rows as one transaction, the creation of its table included.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_schema::Schema;
use futures::stream::{StreamExt, try_unfold};
use tandem_manifest::{ColumnSpec, SchemaPolicy, TableSpec};
use tandem_sql::{AppendRequest, CreateTable, RowStream, WriteOptions};
use tandem_types::{DEFAULT_CATALOG, Error, Result, TableName};

use crate::declared::{declared_schema, to_declared};
use crate::decode::BatchReader;
use crate::put::INGEST_ROWS;
use crate::query::{signed, written};
use crate::state::{Caller, Reply, State};

/// Runs an ingestion; the number of rows.
pub(crate) async fn ingest(
    state: &State,
    caller: &Caller,
    request: CommandStatementIngest,
    mut rows: BatchReader,
) -> Result<Reply<i64>> {
    let session = match request.transaction_id.as_deref() {
        None | Some([]) => state.session_told(caller)?,
        id => state.session_of(caller, id)?,
    };
    let within = session.is_in_transaction() || session.has_open_transaction();
    caller.in_the_present()?;
    if request.temporary {
        return Err(Error::unsupported("temporary tables are not supported"));
    }
    if let Some(catalog) = request.catalog.as_deref().filter(|c| !c.is_empty() && *c != DEFAULT_CATALOG) {
        return Err(Error::not_found(format!(
            "catalog {catalog:?} does not exist; the only one is {DEFAULT_CATALOG:?}"
        )));
    }
    let schema = match request.schema {
        Some(schema) if !schema.is_empty() => schema,
        _ => caller.session.default_schema(),
    };
    let table = TableName::new(schema, request.table);
    let mode = Mode::of(request.table_definition_options.as_ref())?;
    let Some(sent) = rows.schema().await? else {
        return Err(Error::invalid(format!("the rows for table {table} come without a schema")));
    };
    // Of a transaction, it is for the commit to say.
    let options =
        if within { WriteOptions::default() } else { caller.session.write_options(caller.writing()) };
    // What was committed under a token before is answered so, whatever became of its table since.
    if mode == Mode::ReplaceExisting && options.token.is_none() {
        match within {
            true => session.state_for(&caller.reading()).await?.require(&table).map(drop)?,
            false => caller.require_table(&table).await?,
        }
    }
    let schema = Arc::new(declared_schema(&sent));
    let append = AppendRequest {
        table,
        policy: caller.schema_policy(),
        create: mode.create(&schema, request.options)?,
        schema,
        on_conflict: None,
        queued: None,
        options,
    };
    let stream = row_stream(rows, &append);
    let receipt = if within {
        session.append(append, stream, &caller.reading()).await?
    } else {
        let receipt = state.engine.database().append(append, stream).await?;
        caller.session.wrote(receipt.seq);
        receipt
    };
    metrics::counter!(INGEST_ROWS, "via" => "ingest").increment(receipt.rows);
    Ok(written(signed(receipt.rows), &receipt.into()))
}

/// The batches, one by one as they arrive, in the declared types.
fn row_stream(rows: BatchReader, append: &AppendRequest) -> RowStream {
    let schema = append.schema.clone();
    try_unfold((rows, 0u64), move |(mut rows, index)| {
        let schema = schema.clone();
        async move {
            let batch = match rows.next().await? {
                Some(received) => {
                    to_declared(&received.batch, &schema).map_err(|e| e.context(format!("batch {index}")))?
                }
                None => return Ok(None),
            };
            Ok(Some((batch, (rows, index + 1))))
        }
    })
    .boxed()
}

/// What to do when the table exists and when it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Create,
    CreateOrAppend,
    CreateOrReplace,
    Append,
    ReplaceExisting,
}

impl Mode {
    fn of(options: Option<&TableDefinitionOptions>) -> Result<Self> {
        let unclear = || {
            Error::invalid(
                "the ingestion does not say what to do with a table that exists or does not: table_definition_options",
            )
        };
        let options = options.ok_or_else(unclear)?;
        match (options.if_not_exist(), options.if_exists()) {
            (TableNotExistOption::Create, TableExistsOption::Fail) => Ok(Self::Create),
            (TableNotExistOption::Create, TableExistsOption::Append) => Ok(Self::CreateOrAppend),
            (TableNotExistOption::Create, TableExistsOption::Replace) => Ok(Self::CreateOrReplace),
            (TableNotExistOption::Fail, TableExistsOption::Append) => Ok(Self::Append),
            (TableNotExistOption::Fail, TableExistsOption::Replace) => Ok(Self::ReplaceExisting),
            (TableNotExistOption::Fail, TableExistsOption::Fail) => {
                Err(Error::invalid("the ingestion is to fail whether the table exists or not"))
            }
            _ => Err(unclear()),
        }
    }

    fn create(self, schema: &Schema, options: HashMap<String, String>) -> Result<Option<CreateTable>> {
        if self == Self::Append {
            return match options.keys().min() {
                None => Ok(None),
                Some(option) => Err(Error::invalid(format!(
                    "option {option:?} is for creating a table, not for appending"
                ))),
            };
        }
        let column = |field: &Arc<arrow_schema::Field>| ColumnSpec {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
        };
        // A map has no order of its own, and what is stored must not depend on chance.
        let mut options: Vec<(String, String)> = options.into_iter().collect();
        options.sort();
        let spec = TableSpec {
            columns: schema.fields().iter().map(column).collect(),
            options,
            ..TableSpec::default()
        };
        Ok(Some(CreateTable {
            spec,
            if_not_exists: self == Self::CreateOrAppend,
            replace: matches!(self, Self::CreateOrReplace | Self::ReplaceExisting),
        }))
    }
}

impl Caller {
    /// What an append may do to its table: the request's header, else the session's option.
    pub fn schema_policy(&self) -> SchemaPolicy {
        self.options.schema.unwrap_or_else(|| self.session.schema_policy())
    }
}
