//! Rows of data files.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tandem_datafile::read_batches;
use tandem_format::{DataFile, FileName, data_path};
use tandem_types::{ColumnId, Error, Result};

use super::lens::View;
use super::{Opened, Reader, Rows, file_gone};

impl Reader<'_> {
    pub(super) fn file(&self, name: &FileName) -> Result<&DataFile> {
        self.table.file(name).map(|state| &state.file).ok_or_else(|| file_gone(&name.object))
    }

    /// A file's rows as they are stored, in view.
    pub(super) async fn file_rows(&self, file: &DataFile, view: View, batch_rows: usize) -> Result<Rows> {
        let path = data_path(self.table.id(), self.table.partition_by(), &file.name);
        let objects = self.source.objects.clone();
        let reader = self.source.footers.reader(objects, &path, file.size, file.body_end, file.tail_crc32c);
        let read = read_batches(reader, Some(self.lens.ids(view)), batch_rows).await?;
        let ids: Vec<ColumnId> = read.schema.columns.iter().map(|c| c.id).collect();
        let known = (file.rows, path, Arc::clone(&self.lens), ids);
        Ok(stream::try_unfold((read.stream, 0u64, known), move |(mut rows, found, known)| async move {
            let (expected, path, lens, ids) = &known;
            match rows.try_next().await? {
                Some(batch) => {
                    let found = found + batch.num_rows() as u64;
                    let batch = lens.seen(view, &batch, ids)?;
                    Ok(Some((batch, (rows, found, known))))
                }
                None if found == *expected => Ok(None),
                None => Err(Error::damaged(format!(
                    "data file {path:?} has {found} rows, and its entry says {expected}"
                ))),
            }
        })
        .boxed())
    }

    /// Takes a file's widened rows through its mutations, as one of the streams.
    pub(super) fn add_file(&self, opened: &mut Opened, file: &DataFile, rows: Rows) -> Result<()> {
        let from = self.lens.after(file.folded_through);
        opened.sorted &= !self.lens.unsorts(from);
        let lens = Arc::clone(&self.lens);
        let rows = rows.map(move |batch| lens.narrowed(lens.mutated(batch?, from)?)).boxed();
        let counted = opened.tally.count(rows, self.ids());
        opened.streams.push(counted);
        Ok(())
    }
}
