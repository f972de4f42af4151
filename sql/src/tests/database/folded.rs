//! Mutations without SQL, and compaction of what needs folding.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tandem_datafile::{WriteSpec, cast_to_schema, read_batches, sort_batches, write_file};
use tandem_fold::{Bound, KeyedFold, bind, columns_needed, mutate};
use tandem_format::{DataFile, Replace, SectionKey, SectionPart, data_path};
use tandem_manifest::{
    FileState, Manifest, MutateDraft, MutateIntent, MutateTarget, SectionDraft, Step, Table,
};
use tandem_segment::column_stats;
use tandem_types::{Column, ColumnId, Partition, Result, TableName, TableSchema};

use super::{TestDatabase, partitions_of};
use crate::database::{Database, Receipt, SectionRows};

/// What a mutation of a test looks up: the first `keys` columns are compared, the others assigned.
pub(in crate::tests) struct Looked {
    pub(in crate::tests) columns: Vec<ColumnId>,
    pub(in crate::tests) keys: u32,
    pub(in crate::tests) rows: RecordBatch,
}

impl TestDatabase {
    pub(in crate::tests) fn mutate(
        &self,
        table: &str,
        draft: MutateDraft,
        time: Option<(i64, i64)>,
    ) -> Result<Receipt> {
        let name = TableName::public(table);
        let mut state = self.state.lock().unwrap();
        let target = MutateTarget::Existing(state.manifest.require(&name)?.id());
        let statement = "by a test".to_owned();
        state.commit(vec![Step::Mutate(MutateIntent { name, target, draft, time, statement })])
    }

    pub(in crate::tests) fn mutate_by_lookup(&self, table: &str, looked: Looked) -> Result<Receipt> {
        let Looked { columns, keys, rows } = looked;
        let stats = column_stats(&rows, None)?;
        let section = SectionDraft {
            segment: None,
            offset: 0,
            len: 64 * stats.rows,
            crc32c: 0,
            rows: stats.rows,
            time: None,
            partitions: vec![(Partition(0), stats.rows)],
            null_counts: stats.null_counts,
        };
        let delete = columns.len() == keys as usize;
        let receipt = self.mutate(table, MutateDraft::Lookup { columns, keys, delete, section }, None)?;
        let rows = SectionRows { schema: rows.schema(), batches: vec![rows] };
        let key = SectionKey { seq: receipt.seq, transaction: 0, section: 0 };
        self.state.lock().unwrap().sections.insert(key, Arc::new(rows));
        Ok(receipt)
    }

    /// Writes partitions anew, each into as many files as `pieces`: their tail, with what acts on it, and their files, unless
    /// the table has no key and `tail_only`. All partitions if there are no labels.
    pub(in crate::tests) async fn fold(&self, table: &str, labels: &[&str], tail_only: bool, pieces: usize) {
        let manifest = self.snapshot();
        let table = manifest.require(&TableName::public(table)).unwrap().clone();
        let bounds: Vec<Arc<Bound>> = table
            .mutations()
            .map(|pending| {
                let key = pending.key;
                let key = SectionKey { seq: key.seq, transaction: key.transaction, section: key.section };
                let rows = pending.mutation.section().map(|_| self.stored(&key));
                bind(pending, rows.as_ref().map(|rows| rows.batches.as_slice())).unwrap()
            })
            .collect();
        let wide = widened(&table, &bounds);
        let mut work: BTreeMap<Partition, Work> = BTreeMap::new();
        for section in table.tail() {
            for partition in &section.live {
                work.entry(*partition).or_default().parts.push(section.key);
            }
        }
        for file in table.files().filter(|_| !tail_only || table.is_keyed()) {
            work.entry(file.file.name.partition).or_default().files.push(Arc::clone(file));
        }
        let by = table.partition_by();
        work.retain(|partition, _| labels.is_empty() || labels.contains(&by.label(*partition).as_str()));
        let base = manifest.seq();
        let mut replace =
            Replace { table: table.id(), base, files: Vec::new(), parts: Vec::new(), outputs: Vec::new() };
        for (partition, work) in work {
            let rows = self.rows_of(&table, &wide, &bounds, partition, &work).await;
            replace.files.extend(work.files.iter().map(|file| file.file.name));
            replace
                .parts
                .extend(work.parts.iter().map(|section| SectionPart { section: *section, partition }));
            for piece in 0..pieces {
                replace.outputs.extend(self.write(&manifest, &table, partition, &rows, piece, pieces).await);
            }
        }
        if !replace.files.is_empty() || !replace.parts.is_empty() {
            self.state.lock().unwrap().commit(vec![Step::Replace(replace)]).unwrap();
        }
    }

    fn stored(&self, key: &SectionKey) -> Arc<SectionRows> {
        Arc::clone(&self.state.lock().unwrap().sections[key])
    }

    /// What rows of a partition have come to, in the table's columns.
    async fn rows_of(
        &self,
        table: &Table,
        wide: &TableSchema,
        bounds: &[Arc<Bound>],
        partition: Partition,
        work: &Work,
    ) -> RecordBatch {
        let ids: Vec<ColumnId> = wide.columns.iter().map(|c| c.id).collect();
        let timestamp = table.timestamp().map(|c| c.id);
        let mut keyed = table
            .is_keyed()
            .then(|| KeyedFold::new(ids.clone(), wide.arrow(), table.primary_key(), timestamp).unwrap());
        let mut rows: Vec<RecordBatch> = Vec::new();
        for file in &work.files {
            for batch in self.file_rows(table, wide, file).await {
                let after = file.file.folded_through;
                match &mut keyed {
                    Some(fold) => fold.base(batch, after).unwrap(),
                    None => {
                        let later: Vec<_> = bounds.iter().filter(|b| b.key().seq > after).cloned().collect();
                        rows.push(mutate(&ids, batch, &later).unwrap());
                    }
                }
            }
        }
        let mut waiting = bounds.iter().peekable();
        for key in &work.parts {
            let section = table.tail_section(key).unwrap();
            let time = timestamp.and_then(|id| section.section.columns.iter().position(|c| *c == id));
            for batch in &self.stored(key).batches {
                let of = partitions_of(table, batch, time);
                let chosen = (0..).zip(of).filter(|(_, p)| *p == partition).map(|(i, _)| i);
                let chosen = take_record_batch(batch, &chosen.collect::<UInt32Array>()).unwrap();
                let batch = cast_to_schema(&chosen, &section.section.columns, wide).unwrap();
                match &mut keyed {
                    Some(fold) => {
                        while let Some(mutation) = waiting.next_if(|m| !m.key().follows(key)) {
                            fold.mutation(mutation).unwrap();
                        }
                        fold.section(&section.section.on_duplicate, batch).unwrap();
                    }
                    None => {
                        let later: Vec<_> = bounds.iter().filter(|b| b.key().follows(key)).cloned().collect();
                        rows.push(mutate(&ids, batch, &later).unwrap());
                    }
                }
            }
        }
        if let Some(mut fold) = keyed {
            waiting.for_each(|mutation| fold.mutation(mutation).unwrap());
            rows = fold.finish().unwrap();
        }
        let rows = concat_batches(&wide.arrow(), &rows).unwrap();
        cast_to_schema(&rows, &ids, table.schema()).unwrap()
    }

    async fn file_rows(&self, table: &Table, wide: &TableSchema, state: &FileState) -> Vec<RecordBatch> {
        let file = &state.file;
        let path = data_path(table.id(), table.partition_by(), &file.name);
        let objects = Arc::clone(&self.objects) as Arc<dyn ObjectStore>;
        let reader = self.footers.reader(objects, &path, file.size, file.body_end, file.tail_crc32c);
        let read = read_batches(reader, None, 1000).await.unwrap();
        let ids: Vec<ColumnId> = read.schema.columns.iter().map(|c| c.id).collect();
        let batches: Vec<RecordBatch> = read.stream.try_collect().await.unwrap();
        batches.iter().map(|batch| cast_to_schema(batch, &ids, wide).unwrap()).collect()
    }

    /// Every `of`th row as a file; nothing of no rows.
    async fn write(
        &self,
        manifest: &Manifest,
        table: &Table,
        partition: Partition,
        rows: &RecordBatch,
        piece: usize,
        of: usize,
    ) -> Option<DataFile> {
        let chosen = (0..u32::try_from(rows.num_rows()).unwrap()).skip(piece).step_by(of);
        let chosen = take_record_batch(rows, &chosen.collect::<UInt32Array>()).unwrap();
        if chosen.num_rows() == 0 {
            return None;
        }
        let sort: Vec<usize> =
            table.order_by().iter().filter_map(|id| table.schema().position(*id)).collect();
        let sorted = sort_batches(vec![chosen], &sort).unwrap();
        let spec = WriteSpec {
            schema: table.schema().clone(),
            timestamp: table.timestamp().map(|c| c.id),
            sort: table.order_by().to_vec(),
            ..WriteSpec::default()
        };
        let (bytes, meta) = write_file(&spec, sorted.into_iter().map(Ok)).unwrap();
        let name = self.state.lock().unwrap().file_name(partition);
        let path = Path::from(data_path(table.id(), table.partition_by(), &name));
        self.objects.put(&path, PutPayload::from_iter(bytes)).await.unwrap();
        Some(DataFile {
            name,
            rows: meta.rows,
            size: meta.size,
            body_end: meta.body_end,
            tail_crc32c: meta.tail_crc32c,
            time: meta.time,
            folded_through: manifest.seq(),
            level: 0,
        })
    }

    /// How many mutations of a table wait.
    pub(in crate::tests) fn pending(&self, table: &str) -> usize {
        self.snapshot().require(&TableName::public(table)).unwrap().mutations().count()
    }

    pub(in crate::tests) fn column(&self, table: &str, name: &str) -> Column {
        let manifest = self.snapshot();
        manifest.require(&TableName::public(table)).unwrap().schema().by_name(name).unwrap().clone()
    }
}

/// One partition's share of a compaction.
#[derive(Default)]
struct Work {
    files: Vec<Arc<FileState>>,
    /// In log order.
    parts: Vec<SectionKey>,
}

/// The table's columns, and those that mutations read of rows that still have them.
fn widened(table: &Table, bounds: &[Arc<Bound>]) -> TableSchema {
    let mut wide = table.schema().clone();
    let ids: Vec<ColumnId> = wide.columns.iter().map(|c| c.id).collect();
    for (id, data_type) in columns_needed(&ids, bounds) {
        if wide.column(id).is_none() {
            wide.columns.push(Column { id, name: format!("lost{id}"), data_type, nullable: true });
        }
    }
    wide
}
