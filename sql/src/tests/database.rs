//! A database without a log: commits are applied in memory, one at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::Int64Type;
use arrow_schema::{DataType, SchemaRef};
use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tandem_datafile::{FooterCache, WriteSpec, cast_to_schema, sort_batches, write_file};
use tandem_format::{
    CommitHeader, DataFile, FileName, ForeignToken, ObjectName, Replace, Section, SectionKey, SectionPart,
    data_path, encode_header,
};
use tandem_manifest::{
    AppendIntent, AppendTarget, ColumnSpec, Intent, Manifest, Outcome, Rebased, Rejection, SectionDraft,
    Step, Table, TableSpec, TailSection, rebase,
};
use tandem_segment::column_stats;
use tandem_types::{CommitId, DatabaseId, Error, Partition, Result, Seq, TableId, TableName, WriterId};
use tokio::sync::watch;

use crate::as_of::AsOf;
use crate::database::{
    AppendRequest, Database, Dropped, NodeRow, NodeSetting, Receipt, RowStream, SectionRows, StagedAppend,
    StagedSection,
};
use crate::digest::AppendDigest;
use crate::options::{Ack, ClientToken, ReadOptions, WriteOptions};

mod folded;
pub(super) use folded::Looked;

#[derive(Debug)]
pub(super) struct TestDatabase {
    state: Mutex<State>,
    objects: Arc<InMemory>,
    footers: Arc<FooterCache>,
    /// How often a section was loaded.
    pub(super) loads: AtomicU64,
    /// What writes came with.
    pub(super) written: Mutex<Vec<WriteOptions>>,
    /// What others commit right before the next statement that changes rows.
    pub(super) others: Mutex<Vec<Vec<Step>>>,
    /// Somebody changes all tables right before every statement that changes rows.
    pub(super) always_changes: AtomicBool,
    /// What reads waited for.
    pub(super) settled: Mutex<Vec<ReadOptions>>,
    /// Rows that transactions uploaded.
    uploaded: Mutex<HashMap<ObjectName, Arc<SectionRows>>>,
}

/// What rides in a commit; the rest is uploaded.
const ROOM: u64 = 1024;

#[derive(Debug)]
struct State {
    manifest: Arc<Manifest>,
    /// All states that there were, by seq.
    past: Vec<Arc<Manifest>>,
    log: Vec<CommitHeader>,
    sections: HashMap<SectionKey, Arc<SectionRows>>,
    objects_made: u64,
    news: watch::Sender<Arc<Manifest>>,
}

impl Default for TestDatabase {
    fn default() -> Self {
        let manifest = Arc::new(Manifest::empty(DatabaseId(1)));
        Self {
            state: Mutex::new(State {
                past: vec![Arc::clone(&manifest)],
                news: watch::Sender::new(Arc::clone(&manifest)),
                manifest,
                log: Vec::new(),
                sections: HashMap::new(),
                objects_made: 0,
            }),
            objects: Arc::default(),
            footers: Arc::new(FooterCache::new(64 << 20)),
            loads: AtomicU64::new(0),
            written: Mutex::default(),
            others: Mutex::default(),
            always_changes: AtomicBool::new(false),
            settled: Mutex::default(),
            uploaded: Mutex::default(),
        }
    }
}

impl State {
    fn commit(&mut self, steps: Vec<Step>) -> Result<Receipt> {
        self.commit_once(steps, None)
    }

    fn commit_once(&mut self, steps: Vec<Step>, token: Option<ClientToken>) -> Result<Receipt> {
        let manifest = Arc::clone(&self.manifest);
        let at = manifest.seq().next();
        let (token, digest) = match token {
            Some(ClientToken { text, digest }) => (Some(ForeignToken { text, base: None }.into()), digest),
            None => (None, Vec::new()),
        };
        let intent = Intent { token, digest, epoch: None, base: manifest.seq(), steps };
        let transaction = match rebase(&intent, &manifest, at, 0) {
            Ok(Rebased::Commit { transaction, .. }) => transaction,
            Ok(Rebased::Duplicate { seq, rows }) => {
                return Ok(Receipt { seq, rows, duplicate: true, acked: Ack::Store });
            }
            Ok(Rebased::NoOp) => return Ok(Receipt { seq: manifest.seq(), ..Receipt::default() }),
            Err(Rejection::Refused(error) | Rejection::Recast(error)) => return Err(error),
        };
        let header = CommitHeader {
            seq: at,
            commit_id: CommitId(at.0.into()),
            writer: WriterId(1),
            database: manifest.database(),
            previous: manifest.header_hash(),
            commit_time: manifest.commit_time() + 1,
            raw_clock: 0,
            transactions: vec![transaction],
        };
        let hash = encode_header(&header)?.hash;
        self.manifest = Arc::new(manifest.apply(&header, hash)?.manifest);
        self.past.push(Arc::clone(&self.manifest));
        self.log.push(header);
        self.news.send_replace(Arc::clone(&self.manifest));
        Ok(Receipt { seq: at, ..Receipt::default() })
    }

    fn append(&mut self, request: &AppendRequest, batches: Vec<RecordBatch>) -> Result<Receipt> {
        if let Some(create) = &request.create {
            self.commit(vec![Step::CreateTable {
                name: request.table.clone(),
                spec: create.spec.clone(),
                if_not_exists: create.if_not_exists,
                replace: create.replace,
            }])?;
        }
        let table = self.manifest.require(&request.table)?.clone();
        let (append, rows) = intent(&table, request, &batches)?;
        let mut token = request.options.token.clone();
        if let Some(token) = token.as_mut().filter(|token| token.digest.is_empty()) {
            let mut digest = AppendDigest::new(&request.table, &request.schema)?;
            batches.iter().try_for_each(|batch| digest.add(batch))?;
            token.digest = digest.finish();
        }
        let receipt = self.commit_once(vec![Step::Append(append)], token)?;
        if receipt.duplicate {
            return Ok(receipt);
        }
        for (section, batch) in (0..).zip(batches) {
            let rows = SectionRows { schema: batch.schema(), batches: vec![batch] };
            self.sections.insert(SectionKey { seq: receipt.seq, transaction: 0, section }, Arc::new(rows));
        }
        Ok(Receipt { rows, ..receipt })
    }
}

/// The append of these rows, and how many there are.
fn intent(table: &Table, request: &AppendRequest, batches: &[RecordBatch]) -> Result<(AppendIntent, u64)> {
    let timestamp = table.timestamp().and_then(|c| request.schema.index_of(&c.name).ok());
    let mut rows = 0;
    let mut sections = Vec::new();
    for batch in batches {
        let stats = column_stats(batch, timestamp)?;
        let mut partitions: BTreeMap<Partition, u64> = BTreeMap::new();
        for partition in partitions_of(table, batch, timestamp) {
            *partitions.entry(partition).or_default() += 1;
        }
        rows += stats.rows;
        sections.push(SectionDraft {
            segment: None,
            offset: rows * 64,
            len: 64 * stats.rows,
            crc32c: 0,
            rows: stats.rows,
            time: stats.time,
            partitions: partitions.into_iter().collect(),
            null_counts: stats.null_counts,
        });
    }
    let fields = request.schema.fields().iter().map(|f| ColumnSpec {
        name: f.name().clone(),
        data_type: f.data_type().clone(),
        nullable: f.is_nullable(),
    });
    let append = AppendIntent {
        name: request.table.clone(),
        target: AppendTarget::Existing { table: table.id(), schema_id: table.schema_id() },
        policy: request.policy,
        on_conflict: request.on_conflict.clone(),
        fields: fields.collect(),
        sections,
    };
    Ok((append, rows))
}

fn partitions_of(table: &Table, batch: &RecordBatch, timestamp: Option<usize>) -> Vec<Partition> {
    let Some(index) = timestamp else { return vec![Partition(0); batch.num_rows()] };
    let DataType::Timestamp(unit, _) = batch.column(index).data_type() else { panic!("no timestamp") };
    let ticks = cast(batch.column(index), &DataType::Int64).unwrap();
    ticks
        .as_primitive::<Int64Type>()
        .values()
        .iter()
        .map(|t| table.partition_by().partition(*t, *unit))
        .collect()
}

impl TestDatabase {
    /// Moves the tail's rows of the partitions with these labels into data files, one for each; all
    /// partitions if there are no labels.
    pub(super) async fn compact(&self, table: &str, labels: &[&str]) {
        let manifest = self.snapshot();
        let state = manifest.require(&TableName::public(table)).unwrap();
        if state.is_keyed() || state.has_mutations() {
            return self.fold(table, labels, true, 1).await;
        }
        let (replace, files) = {
            let mut state = self.state.lock().unwrap();
            let table = state.manifest.require(&TableName::public(table)).unwrap().clone();
            self.merge(&mut state, &table, labels)
        };
        if replace.parts.is_empty() {
            return;
        }
        for (path, bytes) in files {
            self.objects.put(&Path::from(path), bytes).await.unwrap();
        }
        self.state.lock().unwrap().commit(vec![Step::Replace(replace)]).unwrap();
    }

    fn merge(
        &self,
        state: &mut State,
        table: &Table,
        labels: &[&str],
    ) -> (Replace, Vec<(String, PutPayload)>) {
        let by = table.partition_by();
        let mut rows: BTreeMap<Partition, Vec<RecordBatch>> = BTreeMap::new();
        let mut parts = Vec::new();
        for section in table.tail() {
            let stored = &state.sections[&section.key];
            let time = table.timestamp().map(|c| c.id);
            let timestamp = time.and_then(|id| section.section.columns.iter().position(|c| *c == id));
            for partition in section.live.iter().copied() {
                if !labels.is_empty() && !labels.contains(&by.label(partition).as_str()) {
                    continue;
                }
                parts.push(SectionPart { section: section.key, partition });
                for batch in &stored.batches {
                    let of = partitions_of(table, batch, timestamp);
                    let chosen = (0..).zip(of).filter(|(_, p)| *p == partition).map(|(i, _)| i);
                    let chosen = take_record_batch(batch, &chosen.collect::<UInt32Array>()).unwrap();
                    let fitted = cast_to_schema(&chosen, &section.section.columns, table.schema()).unwrap();
                    rows.entry(partition).or_default().push(fitted);
                }
            }
        }
        let mut outputs = Vec::new();
        let mut files = Vec::new();
        for (partition, batches) in rows {
            let sort: Vec<usize> =
                table.order_by().iter().filter_map(|id| table.schema().position(*id)).collect();
            let sorted = sort_batches(batches, &sort).unwrap();
            let spec = WriteSpec {
                schema: table.schema().clone(),
                timestamp: table.timestamp().map(|c| c.id),
                sort: table.order_by().to_vec(),
                ..WriteSpec::default()
            };
            let (bytes, meta) = write_file(&spec, sorted.into_iter().map(Ok)).unwrap();
            let name = state.file_name(partition);
            files.push((data_path(table.id(), by, &name), PutPayload::from_iter(bytes)));
            outputs.push(DataFile {
                name,
                rows: meta.rows,
                size: meta.size,
                body_end: meta.body_end,
                tail_crc32c: meta.tail_crc32c,
                time: meta.time,
                folded_through: state.manifest.seq(),
                level: 0,
            });
        }
        let base = state.manifest.seq();
        (Replace { table: table.id(), base, files: Vec::new(), parts, outputs }, files)
    }

    /// Lists files that do not exist in place of the whole tail: one per hour from the epoch on.
    pub(super) fn pretend_files(&self, table: &str, count: i64) {
        let mut state = self.state.lock().unwrap();
        let table = state.manifest.require(&TableName::public(table)).unwrap().clone();
        let base = state.manifest.seq();
        let parts = table.tail().flat_map(|s| {
            s.live.iter().map(|partition| SectionPart { section: s.key, partition: *partition })
        });
        let parts = parts.collect();
        let outputs = (0..count).map(|hour| DataFile {
            name: state.file_name(Partition(hour)),
            rows: 1,
            size: 1000,
            body_end: 500,
            tail_crc32c: 0,
            time: Some((hour * 3_600_000_000_000, hour * 3_600_000_000_000 + 1)),
            folded_through: base,
            level: 0,
        });
        let outputs = outputs.collect();
        let replace = Replace { table: table.id(), base, files: Vec::new(), parts, outputs };
        state.commit(vec![Step::Replace(replace)]).unwrap();
    }

    /// Overwrites all data files with nothing.
    pub(super) async fn damage_files(&self) {
        let paths: Vec<Path> =
            self.objects.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
        for path in paths {
            self.objects.put(&path, PutPayload::new()).await.unwrap();
        }
    }

    /// As if the transactions of the last commits had come in one, in this order.
    pub(super) fn in_one_commit(&self, order: &[usize]) {
        let mut state = self.state.lock().unwrap();
        let start = state.log.len() - order.len();
        let commits = state.log.split_off(start);
        state.past.truncate(start + 1);
        let mut header = commits[0].clone();
        header.transactions = order.iter().map(|place| commits[*place].transactions[0].clone()).collect();
        let mut moved = Vec::new();
        for (transaction, place) in (0..).zip(order) {
            let from = commits[*place].seq;
            let keys: Vec<SectionKey> =
                state.sections.keys().filter(|key| key.seq == from).copied().collect();
            for key in keys {
                let rows = state.sections.remove(&key).unwrap();
                moved.push((SectionKey { seq: header.seq, transaction, ..key }, rows));
            }
        }
        state.sections.extend(moved);
        let hash = encode_header(&header).unwrap().hash;
        let applied = state.past[start].apply(&header, hash).unwrap();
        let void = |outcome: &&Outcome| matches!(outcome, Outcome::Void(_));
        assert_eq!(applied.outcomes.iter().find(void), None, "the transactions can be of one commit");
        state.manifest = Arc::new(applied.manifest);
        let manifest = Arc::clone(&state.manifest);
        state.past.push(Arc::clone(&manifest));
        state.log.push(header);
        state.news.send_replace(manifest);
    }

    pub(super) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }
}

impl State {
    fn file_name(&mut self, partition: Partition) -> FileName {
        self.objects_made += 1;
        let object = ObjectName { base: self.manifest.seq(), writer: WriterId(1), random: self.objects_made };
        FileName { partition, object }
    }
}

#[async_trait]
impl Database for TestDatabase {
    fn snapshot(&self) -> Arc<Manifest> {
        Arc::clone(&self.state.lock().unwrap().manifest)
    }

    async fn settle(&self, read: &ReadOptions) -> Result<()> {
        self.settled.lock().unwrap().push(read.clone());
        let applied = self.snapshot().seq();
        match read.min_seq.filter(|min| *min > applied) {
            Some(min) => Err(Error::behind(format!("{min} is asked for at {applied}")).with_seq(applied)),
            None => Ok(()),
        }
    }

    async fn state_as_of(&self, at: AsOf, _deadline: Option<Duration>) -> Result<Arc<Manifest>> {
        let state = self.state.lock().unwrap();
        let found = state.past.iter().rfind(|past| match at {
            AsOf::Seq(seq) => past.seq() == seq,
            AsOf::Time(time) => past.commit_time() <= time,
        });
        let present = state.manifest.seq();
        found
            .cloned()
            .ok_or_else(|| Error::behind(format!("{at} is asked for at {present}")).with_seq(present))
    }

    async fn state_within(&self, seq: Seq, transactions: usize) -> Result<Arc<Manifest>> {
        let before = self.state_as_of(AsOf::Seq(Seq(seq.0 - 1)), None).await?;
        let mut header = self.read_log(seq, seq, 1).await?.remove(0).0;
        header.transactions.truncate(transactions);
        let hash = encode_header(&header)?.hash;
        Ok(Arc::new(before.apply(&header, hash)?.manifest))
    }

    fn watch(&self) -> Option<watch::Receiver<Arc<Manifest>>> {
        Some(self.state.lock().unwrap().news.subscribe())
    }

    async fn seq_at(&self, time: i64) -> Result<Seq> {
        let state = self.state.lock().unwrap();
        Ok(state
            .past
            .iter()
            .rfind(|past| past.commit_time() <= time)
            .map(|past| past.seq())
            .unwrap_or_default())
    }

    async fn before_drop(&self, name: &TableName) -> Result<Dropped> {
        let state = self.state.lock().unwrap();
        let dropped = |pair: &&[Arc<Manifest>]| {
            let [before, after] = pair else { return false };
            before
                .table_named(name)
                .is_some_and(|t| after.table(t.id()).is_none() && state.manifest.table(t.id()).is_none())
        };
        match state.past.windows(2).rfind(dropped) {
            Some([before, after]) => Ok(Dropped {
                seq: after.seq(),
                table: before.require(name)?.id(),
                before: Arc::clone(before),
            }),
            _ => Err(Error::not_found(format!("no table {name} was dropped"))),
        }
    }

    async fn submit(&self, _base: Seq, steps: Vec<Step>, options: WriteOptions) -> Result<Receipt> {
        let receipt = self.state.lock().unwrap().commit_once(steps, options.token.clone());
        self.written.lock().unwrap().push(options);
        receipt
    }

    async fn stage_append(
        &self,
        request: AppendRequest,
        base: Arc<Manifest>,
        view: Arc<Manifest>,
        held: u64,
        rows: RowStream,
    ) -> Result<StagedAppend> {
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        let mut steps = Vec::new();
        if let Some(create) = &request.create {
            steps.push(Step::CreateTable {
                name: request.table.clone(),
                spec: create.spec.clone(),
                if_not_exists: create.if_not_exists,
                replace: create.replace,
            });
        }
        let created = match steps.is_empty() {
            true => view,
            false => {
                let intent = Intent {
                    token: None,
                    digest: Vec::new(),
                    epoch: None,
                    base: view.seq(),
                    steps: steps.clone(),
                };
                Arc::new(view.preview(&intent, 0).map_err(|rejection| match rejection {
                    Rejection::Refused(error) | Rejection::Recast(error) => error,
                })?)
            }
        };
        let table = created.require(&request.table)?;
        let (mut append, _) = intent(table, &request, &batches)?;
        if base.table(table.id()).is_none() {
            append.target = AppendTarget::New(TableSpec {
                columns: append.fields.clone(),
                partition_by: Some(table.partition_by()),
                timestamp: Some(table.timestamp().map_or("none".to_owned(), |c| c.name.clone())),
                ..TableSpec::default()
            });
        }
        let uploads = held > ROOM;
        for section in &mut append.sections {
            if uploads {
                let mut state = self.state.lock().unwrap();
                let name = state.file_name(Partition(0));
                section.segment = Some(name.object);
            }
        }
        let mut sections = Vec::new();
        for (draft, batch) in append.sections.iter().zip(batches) {
            let rows = Arc::new(SectionRows { schema: batch.schema(), batches: vec![batch] });
            if let Some(segment) = draft.segment {
                self.uploaded.lock().unwrap().insert(segment, Arc::clone(&rows));
            }
            let held = Arc::new(Arc::clone(&rows));
            sections.push(StagedSection { draft: draft.clone(), held, rows: (!uploads).then_some(rows) });
        }
        steps.push(Step::Append(append));
        Ok(StagedAppend { steps, sections })
    }

    async fn uncommitted_rows(&self, section: &Section) -> Result<Arc<SectionRows>> {
        let rows = section.segment.and_then(|name| self.uploaded.lock().unwrap().get(&name).cloned());
        rows.ok_or_else(|| Error::damaged("a segment is missing"))
    }

    async fn stage_lookup(
        &self,
        schema: SchemaRef,
        rows: Vec<RecordBatch>,
        _held: u64,
    ) -> Result<StagedSection> {
        let mut null_counts = vec![0; schema.fields().len()];
        for batch in &rows {
            let nulls = batch.columns().iter().map(|column| column.logical_null_count() as u64);
            null_counts.iter_mut().zip(nulls).for_each(|(sum, nulls)| *sum += nulls);
        }
        let count: u64 = rows.iter().map(|batch| batch.num_rows() as u64).sum();
        let draft = SectionDraft {
            segment: None,
            offset: 0,
            len: 64 * count,
            crc32c: 0,
            rows: count,
            time: None,
            partitions: vec![(Partition(0), count)],
            null_counts,
        };
        let rows = Arc::new(SectionRows { schema, batches: rows });
        Ok(StagedSection { draft, held: Arc::new(()), rows: Some(rows) })
    }

    async fn submit_staged(
        &self,
        _base: Seq,
        steps: Vec<Step>,
        sections: Vec<StagedSection>,
        options: WriteOptions,
    ) -> Result<Receipt> {
        let mut state = self.state.lock().unwrap();
        for steps in std::mem::take(&mut *self.others.lock().unwrap()) {
            state.commit(steps).unwrap();
        }
        if self.always_changes.load(Ordering::Relaxed) {
            let names: Vec<TableName> = state.manifest.named_tables().map(|t| t.name().clone()).collect();
            state.commit(names.into_iter().map(|name| Step::Truncate { name }).collect()).unwrap();
        }
        let receipt = state.commit_once(steps, options.token.clone())?;
        for (section, staged) in (0..).zip(sections) {
            let key = SectionKey { seq: receipt.seq, transaction: 0, section };
            let held = staged.held.downcast_ref::<Arc<SectionRows>>().cloned();
            state.sections.insert(key, held.or(staged.rows).unwrap());
        }
        drop(state);
        self.written.lock().unwrap().push(options);
        Ok(receipt)
    }

    async fn repeated(&self, options: &WriteOptions) -> Result<Option<Receipt>> {
        let Some(ClientToken { text, digest }) = options.token.clone() else { return Ok(None) };
        let known = self.snapshot().committed(&ForeignToken { text, base: None }.into(), &digest)?;
        Ok(known.map(|(seq, rows)| Receipt { seq, rows, duplicate: true, acked: Ack::Store }))
    }

    async fn append(&self, request: AppendRequest, rows: RowStream) -> Result<Receipt> {
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        let receipt = self.state.lock().unwrap().append(&request, batches);
        self.written.lock().unwrap().push(request.options);
        receipt
    }

    async fn tail_rows(&self, _table: TableId, section: &TailSection) -> Result<Arc<SectionRows>> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let rows = self.state.lock().unwrap().sections.get(&section.key).cloned();
        rows.ok_or_else(|| Error::damaged("a section is missing"))
    }

    async fn read_log(&self, from: Seq, to: Seq, limit: usize) -> Result<Vec<(CommitHeader, u64)>> {
        let state = self.state.lock().unwrap();
        let asked = state.log.iter().filter(|header| (from..=to).contains(&header.seq)).take(limit);
        Ok(asked.map(|header| (header.clone(), 100)).collect())
    }

    async fn optimize(&self, table: &TableName) -> Result<Receipt> {
        self.compact(&table.table, &[]).await;
        Ok(Receipt { seq: self.snapshot().seq(), ..Receipt::default() })
    }

    async fn checkpoint(&self) -> Result<Seq> {
        Ok(self.snapshot().seq())
    }

    fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects) as Arc<dyn ObjectStore>
    }

    fn footers(&self) -> Arc<FooterCache> {
        Arc::clone(&self.footers)
    }

    fn node_settings(&self) -> Vec<NodeSetting> {
        Vec::new()
    }

    fn nodes(&self) -> Vec<NodeRow> {
        let near = NodeRow { node_id: "a".into(), role: "writer".into(), epoch: 2, ..NodeRow::default() };
        let far =
            NodeRow { node_id: "b".into(), lag_commits: Some(3), lag_seconds: Some(0.5), ..near.clone() };
        vec![near, far]
    }
}
