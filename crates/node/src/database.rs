//! The running engine as SQL sees it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use tandem_datafile::FooterCache;
use tandem_env::within;
use tandem_format::{CommitHeader, ForeignToken, TransactionToken};
use tandem_manifest::{Change, Manifest, Step, TailSection};
use tandem_sql::{
    ACK_TIMEOUT, Ack, AppendDigest, AppendRequest, AsOf, ClientToken, CollectRequest, Collected, Database,
    Dropped, NodeRow, NodeSetting, Promoted, Promotion, READ_DEADLINE, ReadOptions, Receipt, RowStream,
    SectionRows, StagedSection, StoredObject, WriteOptions,
};
use tandem_types::{Error, Result, Seq, TableId, TableName, parse_duration};
use tandem_writer::{Append, Committed, CreateTable, Prepared, Transacted, WriteToken};

use crate::Shared;

/// Commits of `system.log` that are read at once.
const LOG_READS: usize = 16;

#[async_trait]
impl Database for Shared {
    fn snapshot(&self) -> Arc<Manifest> {
        self.writer.state()
    }

    async fn settle(&self, read: &ReadOptions) -> Result<()> {
        let deadline = read.deadline.unwrap_or(READ_DEADLINE);
        let catching_up = async {
            let head = if read.latest { Some(self.writer.catch_up_now().await?) } else { None };
            let wanted = head.max(read.min_seq).unwrap_or_default();
            let mut states = self.writer.watch();
            loop {
                if states.borrow_and_update().seq() >= wanted {
                    return Ok(());
                }
                let gone =
                    || self.failure().unwrap_or_else(|| Error::unavailable("the node is shutting down"));
                states.changed().await.map_err(|_| gone())?;
            }
        };
        match within(&*self.env.clock, deadline, catching_up).await {
            Some(settled) => settled,
            None => Err(self.unsettled(read, deadline)),
        }
    }

    async fn state_as_of(&self, at: AsOf, deadline: Option<Duration>) -> Result<Arc<Manifest>> {
        self.past(at, deadline).await
    }

    async fn seq_at(&self, time: i64) -> Result<Seq> {
        self.past_seq(time).await
    }

    async fn before_drop(&self, name: &TableName) -> Result<Dropped> {
        self.find_drop(name).await
    }

    async fn submit(&self, base: Seq, steps: Vec<Step>, mut options: WriteOptions) -> Result<Receipt> {
        if options.ack.is_none() && steps.iter().all(is_setting) {
            // The level that it sets is for the writes that follow; and it must be possible to take back one that
            // cannot be reached.
            options.ack = Some(Ack::Store);
        }
        let table = steps.iter().find_map(table_of).cloned();
        let token = options.token.clone().map_or(WriteToken::Minted, client_token);
        let committed = self.submit_steps(base, steps, token).await?;
        self.acknowledged(committed, table.as_ref(), &options).await
    }

    async fn stage_lookup(&self, schema: SchemaRef, rows: Vec<RecordBatch>) -> Result<StagedSection> {
        let room = self.config.writer.inline_bytes / 2;
        let (draft, prepared) = self.writer.prepare_lookup(&schema, rows, room).await?;
        let rows = prepared.rows().next().flatten().cloned();
        Ok(StagedSection { draft, held: Arc::new(prepared), rows })
    }

    async fn submit_staged(
        &self,
        base: Seq,
        steps: Vec<Step>,
        sections: Vec<StagedSection>,
        options: WriteOptions,
    ) -> Result<Receipt> {
        let table = steps.iter().find_map(table_of).cloned();
        let mut prepared = Prepared::default();
        for section in &sections {
            let held = section.held.downcast_ref::<Prepared>();
            let held = held.ok_or_else(|| Error::internal("a section was staged elsewhere"))?;
            prepared.extend(held.clone());
        }
        prepared.steps = steps;
        let token = options.token.clone().map_or(WriteToken::Minted, client_token);
        match self.writer.transact(base, &prepared, &token).await? {
            Transacted::Committed(committed) => self.acknowledged(committed, table.as_ref(), &options).await,
            Transacted::Recast(error) => Err(error),
        }
    }

    async fn repeated(&self, options: &WriteOptions) -> Result<Option<Receipt>> {
        let Some(token) = options.token.clone() else { return Ok(None) };
        match self.writer.repeated(&client_token(token))? {
            Some(committed) => self.acknowledged(committed, None, options).await.map(Some),
            None => Ok(None),
        }
    }

    async fn append(&self, request: AppendRequest, rows: RowStream) -> Result<Receipt> {
        let AppendRequest { table, schema, policy, create, on_conflict, queued, options } = request;
        let (token, rows) = match options.token.clone() {
            Some(token) if !token.digest.is_empty() => (client_token(token), rows),
            Some(token) => {
                let token = ForeignToken { text: token.text, base: None };
                digested(token.into(), AppendDigest::new(&table, &schema)?, rows)
            }
            None => match self.dedup_window(&table)? {
                Some(window) => {
                    let window = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
                    let token = TransactionToken::Content { window };
                    digested(token, AppendDigest::new(&table, &schema)?, rows)
                }
                None => (WriteToken::Minted, rows),
            },
        };
        let append = Append {
            table: table.clone(),
            schema,
            policy,
            on_conflict,
            create: create.map(|create| CreateTable {
                spec: create.spec,
                if_not_exists: create.if_not_exists,
                replace: create.replace,
            }),
            queued,
            token,
        };
        let committed = self.writer.append(append, rows).await?;
        self.acknowledged(committed, Some(&table), &options).await
    }

    async fn tail_rows(&self, table: TableId, section: &TailSection) -> Result<Arc<SectionRows>> {
        self.tail.load(table, section).await
    }

    async fn read_log(&self, from: Seq, to: Seq, limit: usize) -> Result<Vec<(CommitHeader, u64)>> {
        let mut found = self.headers(from, to, limit).await?;
        if found.is_empty() && from <= to {
            // What was trimmed is not there to be read; what follows it is.
            let floor = self.log.floor().await?;
            if floor >= from {
                found = self.headers(floor.next(), to, limit).await?;
            }
        }
        let sized = |commit: tandem_log::Commit| {
            let bytes = inline_bytes(&commit.header);
            (commit.header, bytes)
        };
        Ok(found.into_iter().map(sized).collect())
    }

    async fn optimize(&self, table: &TableName) -> Result<Receipt> {
        self.compact_all(table).await
    }

    async fn checkpoint(&self) -> Result<Seq> {
        self.write_checkpoint().await
    }

    async fn promote(&self, promotion: Promotion) -> Result<Promoted> {
        self.promote_as_asked(promotion).await
    }

    async fn collect(&self, request: CollectRequest) -> Result<Collected> {
        self.collect_on_request(request).await
    }

    async fn stored_objects(&self) -> Result<Vec<StoredObject>> {
        self.survey_objects().await
    }

    async fn explain_damage(&self, snapshot: Seq, error: Error) -> Error {
        self.gone_or_damaged(snapshot, error).await
    }

    fn objects(&self) -> Arc<dyn ObjectStore> {
        self.env.store.objects()
    }

    fn footers(&self) -> Arc<FooterCache> {
        self.footers.clone()
    }

    fn nodes(&self) -> Vec<NodeRow> {
        self.node_rows()
    }

    fn node_settings(&self) -> Vec<NodeSetting> {
        let (writer, engine) = (&self.config.writer, &self.config.engine);
        let defaults = crate::NodeConfig::default();
        let row = |name, value: String, default: String, description| NodeSetting {
            name,
            value,
            default,
            description,
        };
        vec![
            row(
                "commit.window",
                format!("{}ms", writer.window.as_millis()),
                format!("{}ms", defaults.writer.window.as_millis()),
                "how long a group of writes waits for company before it is committed",
            ),
            row(
                "commit.inline_bytes",
                writer.inline_bytes.to_string(),
                defaults.writer.inline_bytes.to_string(),
                "rows that ride in one commit object, in bytes; larger ones go to segments",
            ),
            row(
                "commit.queue_bytes",
                writer.queue_bytes.to_string(),
                defaults.writer.queue_bytes.to_string(),
                "bytes that may wait for their commit before senders are slowed down",
            ),
            row(
                "tail_cache_bytes",
                writer.tail_cache_bytes.to_string(),
                defaults.writer.tail_cache_bytes.to_string(),
                "rows that are not compacted yet kept in memory, in bytes",
            ),
            row(
                "footer_cache_bytes",
                self.config.footer_cache_bytes.to_string(),
                defaults.footer_cache_bytes.to_string(),
                "footers of data files kept in memory, in bytes",
            ),
            row(
                "cache_size",
                self.config.cache_dir.as_ref().map_or(0, |_| self.config.cache_bytes).to_string(),
                "0".to_owned(),
                "parts of data files and segments kept on the local disk, in bytes",
            ),
            row(
                "prefetch",
                self.config.prefetch.name().to_owned(),
                defaults.prefetch.name().to_owned(),
                "what is fetched to the local disk before a query wants it: none, recent or all",
            ),
            row(
                "memory_limit",
                engine.memory_limit.to_string(),
                defaults.engine.memory_limit.to_string(),
                "memory of running queries, in bytes; beyond it sorts and aggregates spill",
            ),
        ]
    }
}

impl Shared {
    async fn headers(&self, from: Seq, to: Seq, limit: usize) -> Result<Vec<tandem_log::Commit>> {
        let seqs = (from.0..=to.0).map(Seq).take(limit);
        let commits = stream::iter(seqs).map(|seq| self.log.read(seq)).buffered(LOG_READS);
        commits.try_filter_map(|c| async move { Ok(c) }).try_collect().await
    }

    /// Waits until as many other nodes have applied a commit as were asked for.
    async fn acknowledged(
        &self,
        committed: Committed,
        table: Option<&TableName>,
        options: &WriteOptions,
    ) -> Result<Receipt> {
        let Committed { seq, rows, duplicate } = committed;
        let ack = match options.ack {
            Some(ack) => ack,
            None => Ack::stored(&self.writer.state(), table)?,
        };
        if let Ack::Quorum(wanted) = ack {
            let timeout = options.ack_timeout.unwrap_or(ACK_TIMEOUT);
            let reached = self.progress.reached(seq, wanted, timeout).await;
            if reached < wanted {
                metrics::counter!("tandem_quorum_timeouts_total").increment(1);
                let message = format!(
                    "committed at {seq}, and applied by {reached} of {wanted} other nodes within {timeout:?}"
                );
                return Err(Error::quorum_timeout(message).with_seq(seq));
            }
        }
        Ok(Receipt { seq, rows, duplicate, acked: ack })
    }

    fn unsettled(&self, read: &ReadOptions, waited: Duration) -> Error {
        let applied = self.writer.state().seq();
        let wanted = match read.min_seq {
            Some(min) if min > applied => format!("seq {min} is asked for"),
            _ => "the newest commit is asked for".to_owned(),
        };
        let limit = self.config.writer.limit;
        let kept = if limit.is_none() { String::new() } else { format!("; it applies {limit}") };
        let message = format!("{wanted}, and this node has applied seq {applied} after {waited:?}{kept}");
        Error::behind(message).with_seq(applied)
    }

    /// The time within which a table takes equal writes for one, if it does.
    fn dedup_window(&self, table: &TableName) -> Result<Option<Duration>> {
        let state = self.writer.state();
        match state.table_named(table).and_then(|table| table.option("dedup_window")) {
            None | Some("off") => Ok(None),
            Some(window) => parse_duration(window).map(Some),
        }
    }
}

/// The token of a write whose digest is known.
fn client_token(token: ClientToken) -> WriteToken {
    WriteToken::Client { token: ForeignToken { text: token.text, base: None }, digest: token.digest }
}

/// The rows, and a token whose digest is set when they have all passed.
fn digested(token: TransactionToken, digest: AppendDigest, rows: RowStream) -> (WriteToken, RowStream) {
    let whole = Arc::new(OnceLock::new());
    let write = WriteToken::Streamed { token, digest: whole.clone() };
    let rows = stream::try_unfold((digest, rows), move |(mut digest, mut rows)| {
        let whole = whole.clone();
        async move {
            let Some(batch) = rows.try_next().await? else {
                let _ = whole.set(digest.finish());
                return Ok(None);
            };
            digest.add(&batch)?;
            Ok(Some((batch, (digest, rows))))
        }
    });
    (write, rows.boxed())
}

/// Whether a step changes settings and nothing else.
fn is_setting(step: &Step) -> bool {
    let is_option = |change: &Change| matches!(change, Change::SetOptions { .. });
    match step {
        Step::SetSettings { .. } => true,
        Step::AlterTable { change, .. } => is_option(change),
        _ => false,
    }
}

/// The table that a step is about.
fn table_of(step: &Step) -> Option<&TableName> {
    match step {
        Step::CreateTable { name, .. }
        | Step::RenameTable { name, .. }
        | Step::AlterTable { name, .. }
        | Step::DropPartitions { name, .. }
        | Step::Truncate { name } => Some(name),
        Step::Mutate(mutate) => Some(&mutate.name),
        Step::Append(append) => Some(&append.name),
        _ => None,
    }
}

fn inline_bytes(header: &CommitHeader) -> u64 {
    header.sections().filter(|s| s.segment.is_none()).map(|s| s.len).sum()
}

#[cfg(test)]
mod tests;
