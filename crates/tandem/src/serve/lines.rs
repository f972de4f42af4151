//! Line protocol into the database: the rows of a request as one transaction.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use tandem_http::{LineOptions, LineReceipt, LineStore, LineTransaction};
use tandem_lines::{Catalog, KnownTable, TableBatch};
use tandem_manifest::{ColumnSpec, Manifest, SchemaPolicy, Step, Table, TableSpec};
use tandem_sql::{Ack, AppendRequest, ClientToken, CreateTable, Database, StagedSection, WriteOptions};
use tandem_types::{Error, ErrorKind, Result, TableName};

/// How often rows are prepared anew because their tables changed meanwhile.
const TRIES: u32 = 10;

/// Lines go into this database.
pub struct Lines(pub Arc<dyn Database>);

impl LineStore for Lines {
    fn begin(&self, options: LineOptions) -> Result<Box<dyn LineTransaction>> {
        self.check_writes()?;
        let wrong = |error: Error| error.context("header \"tandem-ack\"");
        let write = WriteOptions {
            token: options.token.as_deref().map(ClientToken::parse).transpose()?,
            ack: options.ack.as_deref().map(Ack::parse).transpose().map_err(wrong)?,
            ack_timeout: options.ack_timeout,
        };
        Ok(Box::new(Transaction {
            database: self.0.clone(),
            base: self.0.snapshot(),
            policy: options.schema.unwrap_or(SchemaPolicy::Create),
            write,
            prepared: Prepared::default(),
            rows: Some(Vec::new()),
        }))
    }

    fn check_writes(&self) -> Result<()> {
        self.0.check_writes()
    }
}

/// A request's rows on their way.
struct Transaction {
    database: Arc<dyn Database>,
    /// What they were prepared for.
    base: Arc<Manifest>,
    policy: SchemaPolicy,
    write: WriteOptions,
    prepared: Prepared,
    /// As they came, as long as all of them are in memory anyhow.
    rows: Option<Vec<TableBatch>>,
}

#[derive(Clone, Default)]
struct Prepared {
    steps: Vec<Step>,
    sections: Vec<StagedSection>,
    /// Bytes of rows that are to ride in the commit.
    held: u64,
}

#[async_trait]
impl LineTransaction for Transaction {
    fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::new(Tables(self.base.clone()))
    }

    async fn stage(&mut self, rows: TableBatch) -> Result<()> {
        self.prepare(&rows).await?;
        match &mut self.rows {
            Some(kept) if self.prepared.sections.iter().all(|section| section.draft.segment.is_none()) => {
                kept.push(rows);
            }
            // Uploaded, so that they are not held.
            _ => self.rows = None,
        }
        Ok(())
    }

    fn wants_digest(&self) -> bool {
        let dedup = |table: &Table| table.option("dedup_window").is_some_and(|window| window != "off");
        self.write.token.is_some() || self.base.tables().any(dedup)
    }

    async fn commit(mut self: Box<Self>, digest: Option<Vec<u8>>) -> Result<LineReceipt> {
        if let (Some(token), Some(digest)) = (&mut self.write.token, &digest) {
            token.digest.clone_from(digest);
        }
        for _ in 0..TRIES {
            let Prepared { steps, sections, .. } = self.prepared.clone();
            let (database, base, write) = (&self.database, self.base.seq(), self.write.clone());
            let submitted = match digest.clone() {
                Some(digest) => database.submit_content(base, steps, sections, write, digest),
                None => database.submit_staged(base, steps, sections, write),
            };
            let changed = match submitted.await {
                Ok(receipt) => {
                    return Ok(LineReceipt {
                        seq: receipt.seq,
                        duplicate: receipt.duplicate,
                        acked: receipt.acked.to_string(),
                    });
                }
                // The table is gone, and can be made again.
                Err(e) if e.kind() == ErrorKind::NotFound && self.policy == SchemaPolicy::Create => e,
                Err(e) if e.kind() == ErrorKind::Serialization => e,
                Err(e) => return Err(e),
            };
            let Some(rows) = self.rows.replace(Vec::new()) else { return Err(again(&changed)) };
            tracing::debug!(reason = %changed, "preparing lines again");
            self.base = self.database.snapshot();
            self.prepared = Prepared::default();
            for rows in rows {
                // Which lines are to blame is found out when they are read again, for the tables as they are now.
                self.stage(rows).await.map_err(|e| if is_final(&e) { again(&e) } else { e })?;
            }
        }
        Err(Error::serialization("the tables changed again and again while lines were prepared for them"))
    }
}

fn again(error: &Error) -> Error {
    Error::serialization(format!("tables changed while lines were read for them: {}", error.message()))
}

fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::SchemaConflict | ErrorKind::InvalidInput | ErrorKind::NotFound)
}

impl Transaction {
    async fn prepare(&mut self, rows: &TableBatch) -> Result<()> {
        let table = TableName::public(&*rows.table);
        let schema = rows.batch.schema();
        let append = AppendRequest {
            policy: self.policy,
            create: (self.policy == SchemaPolicy::Create).then(|| CreateTable {
                spec: spec(&schema, &rows.timestamp),
                if_not_exists: true,
                replace: false,
            }),
            table,
            schema,
            on_conflict: None,
            queued: None,
            options: WriteOptions::default(),
        };
        let batch = stream::iter([Ok(rows.batch.clone())]).boxed();
        let (base, held) = (self.base.clone(), self.prepared.held);
        let staged = self.database.stage_append(append, base.clone(), base, held, batch).await?;
        self.prepared.held +=
            staged.sections.iter().filter(|s| s.draft.segment.is_none()).map(|s| s.draft.len).sum::<u64>();
        self.prepared.steps.extend(staged.steps);
        self.prepared.sections.extend(staged.sections);
        Ok(())
    }
}

/// A table as lines make it: partitions by day of the row timestamp.
fn spec(schema: &SchemaRef, timestamp: &str) -> TableSpec {
    let column = |field: &arrow::datatypes::FieldRef| ColumnSpec {
        name: field.name().clone(),
        data_type: field.data_type().clone(),
        nullable: field.is_nullable(),
    };
    TableSpec {
        columns: schema.fields().iter().map(column).collect(),
        timestamp: Some(timestamp.to_owned()),
        ..TableSpec::default()
    }
}

/// The tables of a state.
struct Tables(Arc<Manifest>);

impl Catalog for Tables {
    fn table(&self, name: &str) -> Option<KnownTable> {
        let table = self.0.table_named(&TableName::public(name))?;
        Some(KnownTable {
            timestamp: table.timestamp().map(|column| column.name.clone()),
            columns: table.schema().arrow(),
        })
    }
}
