//! Tables with a key: rows of the tail and the rows of files that they have their keys in common with, folded.
//!
//! The tail's keys are in memory, files stream by. A file whose rows the tail touches is read up to three times: its keys
//! to see whether there are any in common, the rows that are, and the rest on its way out.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::row::{RowConverter, SortField};
use arrow_schema::ArrowError;
use futures::{StreamExt, TryStreamExt};
use tandem_fold::KeySet;
use tandem_format::DataFile;
use tandem_types::{Error, Result, Seq};

use super::lens::{Lens, View};
use super::tail::TailRows;
use super::{Opened, Reader, Selection, Share, blocking};

impl Reader<'_> {
    /// Opens the files of a selection and answers with what is made of its tail.
    pub(super) async fn open_keyed(
        &self,
        selection: &Selection,
        tail: TailRows,
        share: Share,
        batch_rows: usize,
        opened: &mut Opened,
    ) -> Result<Vec<RecordBatch>> {
        let lens = self.lens.clone();
        let (tail, keys) = blocking(move || {
            let keys = keys_of(&lens, &tail)?;
            Ok((tail, Arc::new(keys)))
        })
        .await?;
        let mut base: Vec<(Seq, Vec<RecordBatch>)> = Vec::new();
        for name in &selection.files {
            let file = self.file(name)?;
            let shared = self.touches(file, &tail) && self.has_keys(file, &keys, batch_rows).await?;
            if shared {
                base.push((file.folded_through, self.rows_of_keys(file, &keys, batch_rows).await?));
            }
            let mut rows = self.file_rows(file, View::Wide, batch_rows).await?;
            if shared || !share.is_all() {
                let (lens, keys) = (self.lens.clone(), keys.clone());
                rows = rows
                    .map(move |batch| {
                        let batch = only_share(batch?, &lens, share)?;
                        if !shared {
                            return Ok(batch);
                        }
                        let others = not(&keys.contains(&lens.key_columns(&batch)?)?).map_err(failed)?;
                        filter_record_batch(&batch, &others).map_err(failed)
                    })
                    .boxed();
            }
            self.add_file(opened, file, rows)?;
        }
        let lens = self.lens.clone();
        // Nothing is equal to anything: the usual case where rows come in the order of time.
        let alone = base.is_empty() && keys.len() == tail.rows();
        blocking(move || if alone { tail.mutated(&lens) } else { fold(&lens, base, tail) }).await
    }

    /// Whether a file may have rows at times that the tail has.
    fn touches(&self, file: &DataFile, tail: &TailRows) -> bool {
        let table = self.table;
        let timed = table.timestamp().is_some_and(|column| table.primary_key().contains(&column.id));
        tail.sections.iter().filter(|section| !section.batches.is_empty()).any(|section| {
            let state = table.tail_section(&section.key);
            let times = state.and_then(|state| table.part_time(state, file.name.partition));
            match (times, file.time) {
                (Some((first, last)), Some((from, to))) if timed => first <= to && from <= last,
                _ => true,
            }
        })
    }

    /// Whether a file has rows of any of the keys.
    async fn has_keys(&self, file: &DataFile, keys: &KeySet, batch_rows: usize) -> Result<bool> {
        let mut rows = self.file_rows(file, View::Key, batch_rows).await?;
        while let Some(batch) = rows.try_next().await? {
            if keys.contains(batch.columns())?.true_count() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn rows_of_keys(
        &self,
        file: &DataFile,
        keys: &KeySet,
        batch_rows: usize,
    ) -> Result<Vec<RecordBatch>> {
        let mut found = Vec::new();
        let mut rows = self.file_rows(file, View::Wide, batch_rows).await?;
        while let Some(batch) = rows.try_next().await? {
            let shared = keys.contains(&self.lens.key_columns(&batch)?)?;
            if shared.true_count() > 0 {
                found.push(filter_record_batch(&batch, &shared).map_err(failed)?);
            }
        }
        Ok(found)
    }
}

/// The keys of all rows of a tail.
fn keys_of(lens: &Lens, tail: &TailRows) -> Result<KeySet> {
    let mut keys = KeySet::new(&lens.key_types())?;
    for batch in tail.sections.iter().flat_map(|section| &section.batches) {
        keys.insert(&lens.key_columns(batch)?)?;
    }
    Ok(keys)
}

/// Rows of files, each folded through some seq, and what came after them in log order: rows of the tail and mutations.
fn fold(lens: &Lens, base: Vec<(Seq, Vec<RecordBatch>)>, tail: TailRows) -> Result<Vec<RecordBatch>> {
    let mut fold = lens.fold()?;
    for (folded_through, batches) in base {
        for batch in batches {
            fold.base(batch, folded_through)?;
        }
    }
    let mut next = 0;
    for section in tail.sections {
        let following = lens.following(&section.key);
        for mutation in lens.between(next, following) {
            fold.mutation(mutation)?;
        }
        next = next.max(following);
        for batch in section.batches {
            fold.section(&section.on_duplicate, batch)?;
        }
    }
    for mutation in lens.between(next, lens.mutations()) {
        fold.mutation(mutation)?;
    }
    let narrowed = fold.finish()?.into_iter().map(|batch| lens.narrowed(batch));
    narrowed.filter(|batch| batch.as_ref().map_or(true, |batch| batch.num_rows() > 0)).collect()
}

/// The rows whose keys are in a share of all.
pub(super) fn only_share(batch: RecordBatch, lens: &Lens, share: Share) -> Result<RecordBatch> {
    if share.is_all() {
        return Ok(batch);
    }
    let columns: Vec<ArrayRef> = lens.key_columns(&batch)?;
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(failed)?;
    let rows = converter.convert_columns(&columns).map_err(failed)?;
    let ours = |row: arrow::row::Row<'_>| hash(row.as_ref()) % u64::from(share.of) == u64::from(share.index);
    let within: BooleanArray = rows.iter().map(|row| Some(ours(row))).collect();
    filter_record_batch(&batch, &within).map_err(failed)
}

/// FNV-1a, finished: it decides what is read in which turn, and nothing that is stored.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 16
}

fn failed(error: ArrowError) -> Error {
    Error::internal(format!("folding rows of equal keys: {error}"))
}
