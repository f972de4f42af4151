//! Line protocol into the database: the rows of a request as one transaction.

mod aside;
mod making;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use tandem_env::{Clock, SystemClock};
use tandem_http::{LineOptions, LineReceipt, LineStore, LineTransaction};
use tandem_lines::{Catalog, Diverted, TableBatch};
use tandem_manifest::{Manifest, SchemaPolicy, Step, Table, TableSpec, rejected_spec, rejected_table};
use tandem_sql::{
    Ack, AppendRequest, ClientToken, CreateTable, Database, ReadOptions, StagedSection, WriteOptions,
};
use tandem_types::{Error, ErrorKind, Result, TableName};

use aside::{rejected, without_gaps};
use making::{Making, Tables, is_text};

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
        let base = self.0.snapshot();
        Ok(Box::new(Transaction {
            database: self.0.clone(),
            read_for: base.clone(),
            making: Arc::new(Making::new(&options, &base)),
            base,
            write,
            client: options.client,
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
    /// The state whose tables lines were read for.
    read_for: Arc<Manifest>,
    /// What they are prepared for.
    base: Arc<Manifest>,
    making: Arc<Making>,
    write: WriteOptions,
    client: String,
    prepared: Prepared,
    /// As they came, as long as all of them are in memory anyhow.
    rows: Option<Vec<Rows>>,
}

#[derive(Clone)]
enum Rows {
    OfLines(TableBatch),
    /// For `system.rejected`.
    Aside(RecordBatch),
}

#[derive(Clone, Default)]
struct Prepared {
    steps: Vec<Step>,
    sections: Vec<StagedSection>,
    /// Bytes of rows that are to ride in the commit.
    held: u64,
    /// The tags of tables that the request itself makes with a key.
    keys: BTreeMap<String, Vec<String>>,
}

#[async_trait]
impl LineTransaction for Transaction {
    fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::new(Tables { state: self.read_for.clone(), making: self.making.clone() })
    }

    async fn stage(&mut self, rows: TableBatch) -> Result<()> {
        self.stage_rows(Rows::OfLines(rows)).await
    }

    async fn divert(&mut self, lines: Vec<Diverted>) -> Result<()> {
        let now = SystemClock.now_micros();
        self.stage_rows(Rows::Aside(rejected(&lines, self.read_for.seq(), now, &self.client)?)).await
    }

    async fn confirm(&self, tables: &BTreeSet<String>) -> Result<()> {
        self.database.settle(&ReadOptions { latest: true, ..ReadOptions::default() }).await?;
        let now = self.database.snapshot();
        let looks = |state: &Manifest, name: &str| {
            let table = state.table_named(&TableName::public(name));
            table.map(|table| (table.id(), table.schema_id(), table.def().options.clone()))
        };
        match tables.iter().find(|name| looks(&self.read_for, name) != looks(&now, name)) {
            None => Ok(()),
            Some(name) => Err(Error::serialization(format!(
                "table {name} changed while lines were read for it: send them again"
            ))),
        }
    }

    fn wants_digest(&self) -> bool {
        let dedup = |table: &Table| {
            ["dedup_window", "line_dedup_window"].iter().any(|name| table.option(name).is_some())
        };
        self.write.token.is_some() || self.making.remembers() || self.base.tables().any(dedup)
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
                Err(e)
                    if e.kind() == ErrorKind::NotFound
                        && self.making.policy(None) == SchemaPolicy::Create =>
                {
                    e
                }
                Err(e) if e.kind() == ErrorKind::Serialization => e,
                Err(e) => return Err(e),
            };
            let Some(rows) = self.rows.replace(Vec::new()) else { return Err(again(&changed)) };
            tracing::debug!(reason = %changed, "preparing lines again");
            self.base = self.database.snapshot();
            self.prepared = Prepared::default();
            for rows in rows {
                // Which lines are to blame is found out when they are read again, for the tables as they are now.
                self.stage_rows(rows).await.map_err(|e| if is_final(&e) { again(&e) } else { e })?;
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
    async fn stage_rows(&mut self, rows: Rows) -> Result<()> {
        match &rows {
            Rows::OfLines(rows) => self.prepare_lines(rows).await?,
            Rows::Aside(batch) => {
                let create = Some(rejected_spec());
                self.prepare(rejected_table(), SchemaPolicy::Create, create, batch.clone()).await?;
            }
        }
        match &mut self.rows {
            Some(kept) if self.prepared.sections.iter().all(|section| section.draft.segment.is_none()) => {
                kept.push(rows);
            }
            // Uploaded, so that they are not held.
            _ => self.rows = None,
        }
        Ok(())
    }

    async fn prepare_lines(&mut self, rows: &TableBatch) -> Result<()> {
        let name = TableName::public(&*rows.table);
        let tags = match self.base.table_named(&name) {
            Some(table) => self.tags_there(table, rows)?,
            None => self.tags_made(&name, rows)?,
        };
        let batch = without_gaps(&rows.batch, tags.as_deref().unwrap_or_default())?;
        let policy = self.making.policy(self.base.table_named(&name));
        let create = (policy == SchemaPolicy::Create)
            .then(|| self.making.spec(&batch.schema(), &rows.timestamp, tags.as_deref()));
        self.prepare(name, policy, create, batch).await
    }

    /// The tags in the key of a table that is there.
    fn tags_there(&self, table: &Table, rows: &TableBatch) -> Result<Option<Vec<String>>> {
        let Some(tags) = self.making.key_tags(table) else { return Ok(None) };
        // Lines that were read for a table with another key, or none, are refused one by one when they come again.
        let other = tags_of(rows).find(|tag| !tags.contains(tag));
        match other {
            Some(tag) if self.read_for.table_named(table.name()).is_none() => Err(Error::serialization(
                format!("table {} was made meanwhile, and tag {tag:?} is not in its key", table.name()),
            )),
            _ => Ok(Some(tags)),
        }
    }

    /// The tags in the key of a table that this request makes: those of its first rows.
    fn tags_made(&mut self, name: &TableName, rows: &TableBatch) -> Result<Option<Vec<String>>> {
        if !self.making.keys {
            return Ok(None);
        }
        if let Some(tags) = self.prepared.keys.get(&rows.table) {
            return match tags_of(rows).find(|tag| !tags.contains(tag)) {
                None => Ok(Some(tags.clone())),
                Some(tag) => Err(Error::invalid(format!(
                    "table {name} is made by this request with the tags of its first lines as its key, and tag {tag:?} comes \
                     later: send a line with all tags first"
                ))),
            };
        }
        let tags: Vec<String> = tags_of(rows).collect();
        self.prepared.keys.insert(rows.table.clone(), tags.clone());
        // Whoever makes the table first decides on its key, and rows go by it.
        self.prepared.steps.push(Step::Bound { name: name.clone(), table: None, schema: None });
        Ok(Some(tags))
    }

    async fn prepare(
        &mut self,
        table: TableName,
        policy: SchemaPolicy,
        create: Option<TableSpec>,
        batch: RecordBatch,
    ) -> Result<()> {
        let append = AppendRequest {
            policy,
            create: create.map(|spec| CreateTable { spec, if_not_exists: true, replace: false }),
            table,
            schema: batch.schema(),
            on_conflict: None,
            queued: None,
            options: WriteOptions::default(),
        };
        let batch = stream::iter([Ok(batch)]).boxed();
        let (base, held) = (self.base.clone(), self.prepared.held);
        let staged = self.database.stage_append(append, base.clone(), base, held, batch).await?;
        self.prepared.held +=
            staged.sections.iter().filter(|s| s.draft.segment.is_none()).map(|s| s.draft.len).sum::<u64>();
        self.prepared.steps.extend(staged.steps);
        self.prepared.sections.extend(staged.sections);
        Ok(())
    }
}

/// The tags among the columns of rows for a table that was not there when they were read.
fn tags_of(rows: &TableBatch) -> impl Iterator<Item = String> {
    let schema = rows.batch.schema();
    let tags: Vec<String> = schema
        .fields()
        .iter()
        .filter(|field| matches!(field.data_type(), DataType::Dictionary(..)) && is_text(field.data_type()))
        .map(|field| field.name().clone())
        .collect();
    tags.into_iter()
}
