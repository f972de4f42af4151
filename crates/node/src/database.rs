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
use tandem_format::{CommitHeader, ForeignToken, Section, TransactionToken};
use tandem_manifest::{AppendTarget, Change, Manifest, SectionDraft, Step, TailSection, rejected_table};
use tandem_sql::{
    ACK_TIMEOUT, Ack, AppendDigest, AppendRequest, AsOf, ClientToken, CollectRequest, Collected, Database,
    Dropped, NodeRow, NodeSetting, Promoted, Promotion, READ_DEADLINE, ReadOptions, Receipt, RowStream,
    SectionRows, StagedAppend, StagedSection, StoredObject, WriteOptions,
};
use tandem_types::{Error, ErrorKind, Result, Seq, TableId, TableName, parse_duration};
use tandem_writer::{Append, Committed, CreateTable, Prepared, Transacted, WriteToken};
use tokio::sync::watch;

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

    async fn state_within(&self, seq: Seq, transactions: usize) -> Result<Arc<Manifest>> {
        self.past_within(seq, transactions).await
    }

    fn watch(&self) -> Option<watch::Receiver<Arc<Manifest>>> {
        Some(self.writer.watch())
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

    fn check_writes(&self) -> Result<()> {
        self.writer.check_writes()
    }

    async fn stage_append(
        &self,
        request: AppendRequest,
        base: Arc<Manifest>,
        view: Arc<Manifest>,
        held: u64,
        rows: RowStream,
    ) -> Result<StagedAppend> {
        let append = append_of(request, WriteToken::Minted);
        let room = self.config.writer.inline_bytes.saturating_sub(held);
        let mut prepared = self.writer.prepare_append(&append, &base, view, room, rows).await?;
        let steps = std::mem::take(&mut prepared.steps);
        let drafts: Vec<_> = steps.iter().flat_map(Step::sections).cloned().collect();
        let sections = drafts.into_iter().zip(prepared.into_sections());
        Ok(StagedAppend { sections: sections.map(|(draft, one)| staged(draft, one)).collect(), steps })
    }

    async fn uncommitted_rows(&self, section: &Section) -> Result<Arc<SectionRows>> {
        self.tail.load_uploaded(section).await
    }

    async fn stage_lookup(
        &self,
        schema: SchemaRef,
        rows: Vec<RecordBatch>,
        held: u64,
    ) -> Result<StagedSection> {
        let inline = self.config.writer.inline_bytes;
        let room = (inline / 2).min(inline.saturating_sub(held));
        let (draft, prepared) = self.writer.prepare_lookup(&schema, rows, room).await?;
        Ok(staged(draft, prepared))
    }

    async fn submit_staged(
        &self,
        base: Seq,
        steps: Vec<Step>,
        sections: Vec<StagedSection>,
        options: WriteOptions,
    ) -> Result<Receipt> {
        let token = options.token.clone().map_or(WriteToken::Minted, client_token);
        self.submit_prepared(base, steps, sections, &options, token).await
    }

    async fn submit_content(
        &self,
        base: Seq,
        steps: Vec<Step>,
        sections: Vec<StagedSection>,
        options: WriteOptions,
        digest: Vec<u8>,
    ) -> Result<Receipt> {
        let token = match options.token.clone() {
            Some(token) => client_token(token),
            None => match self.content_window(&steps)? {
                Some(window) => WriteToken::Streamed {
                    token: content_token(window),
                    digest: Arc::new(OnceLock::from(digest)),
                },
                None => WriteToken::Minted,
            },
        };
        self.submit_prepared(base, steps, sections, &options, token).await
    }

    async fn repeated(&self, options: &WriteOptions) -> Result<Option<Receipt>> {
        let Some(token) = options.token.clone() else { return Ok(None) };
        match self.writer.repeated(&client_token(token))? {
            Some(committed) => self.acknowledged(committed, None, options).await.map(Some),
            None => Ok(None),
        }
    }

    async fn append(&self, request: AppendRequest, rows: RowStream) -> Result<Receipt> {
        let AppendRequest { table, schema, options, .. } = &request;
        let (token, rows) = match options.token.clone() {
            Some(token) if !token.digest.is_empty() => (client_token(token), rows),
            Some(token) => {
                let token = ForeignToken { text: token.text, base: None };
                digested(token.into(), AppendDigest::new(table, schema)?, rows)
            }
            None => match self.dedup_window(table)? {
                Some(window) => digested(content_token(window), AppendDigest::new(table, schema)?, rows),
                None => (WriteToken::Minted, rows),
            },
        };
        let options = options.clone();
        let append = append_of(request, token);
        let table = append.table.clone();
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
            row(
                "transaction_timeout",
                format!("{}s", engine.transaction_idle.as_secs_f64()),
                format!("{}s", defaults.engine.transaction_idle.as_secs_f64()),
                "how long a transaction that has written may be idle before it is rolled back",
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
                    "committed at {seq}, and applied by {reached} of {wanted} other nodes within {timeout:?}: what was \
                     written is there to stay, and must not be written again"
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

    async fn submit_prepared(
        &self,
        base: Seq,
        steps: Vec<Step>,
        sections: Vec<StagedSection>,
        options: &WriteOptions,
        token: WriteToken,
    ) -> Result<Receipt> {
        let table = steps.iter().find_map(table_of).cloned();
        let mut prepared = Prepared::default();
        for section in &sections {
            let held = section.held.downcast_ref::<Prepared>();
            let held = held.ok_or_else(|| Error::internal("a section was staged elsewhere"))?;
            prepared.extend(held.clone());
        }
        prepared.steps = steps;
        match self.writer.transact(base, &prepared, &token).await? {
            Transacted::Committed(committed) => self.acknowledged(committed, table.as_ref(), options).await,
            // What was staged is prepared anew by whoever said what it is made of.
            Transacted::Recast(error) if error.kind() == ErrorKind::Serialization => Err(error),
            Transacted::Recast(error) => {
                Err(Error::serialization(format!("{}: run the transaction again", error.message())))
            }
        }
    }

    /// The time within which all tables that are appended to take equal writes for one. A table with a primary key that
    /// says nothing agrees to any, for it has no row twice; and so does the database's own.
    fn content_window(&self, steps: &[Step]) -> Result<Option<Duration>> {
        let state = self.writer.state();
        let mut shortest = None;
        for step in steps {
            let Step::Append(append) = step else { continue };
            if append.name == rejected_table() {
                continue;
            }
            let windows = ["dedup_window", "line_dedup_window"];
            let (keyed, window) = match (state.table_named(&append.name), &append.target) {
                (Some(table), _) => (table.is_keyed(), windows.iter().find_map(|name| table.option(name))),
                (None, AppendTarget::New(spec)) => {
                    let said = |key: &&str| spec.options.iter().find(|(name, _)| name == key);
                    let window = windows.iter().find_map(said).map(|(_, value)| value.as_str());
                    (spec.primary_key.is_some(), window)
                }
                (None, AppendTarget::Existing { .. }) => (false, None),
            };
            let window = match window {
                None if keyed => continue,
                None | Some("off") => return Ok(None),
                Some(window) => parse_duration(window)?,
            };
            shortest = Some(shortest.map_or(window, |other: Duration| window.min(other)));
        }
        Ok(shortest)
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

/// Encoded rows that wait for their commit.
fn staged(draft: SectionDraft, prepared: Prepared) -> StagedSection {
    let rows = prepared.rows().next().flatten().cloned();
    StagedSection { draft, held: Arc::new(prepared), rows }
}

fn append_of(request: AppendRequest, token: WriteToken) -> Append {
    let AppendRequest { table, schema, policy, create, on_conflict, queued, options: _ } = request;
    let create = create.map(|create| CreateTable {
        spec: create.spec,
        if_not_exists: create.if_not_exists,
        replace: create.replace,
    });
    Append { table, schema, policy, on_conflict, create, queued, token }
}

/// The token of a write whose digest is known.
fn client_token(token: ClientToken) -> WriteToken {
    WriteToken::Client { token: ForeignToken { text: token.text, base: None }, digest: token.digest }
}

/// For a write without a token, of whose content another one is taken for the same within that time.
fn content_token(window: Duration) -> TransactionToken {
    TransactionToken::Content { window: i64::try_from(window.as_micros()).unwrap_or(i64::MAX) }
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
