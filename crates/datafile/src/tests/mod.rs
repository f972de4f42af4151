//! What the crate promises, tested through its public surface.

mod damage;
mod deltas;
mod merging;
mod roundtrip;
mod size;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::DataType;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tandem_types::{Column, ColumnId, Result, TableSchema};

use crate::{FileMeta, FooterCache, VerifiedReader, read_batches};

/// A schema whose columns have the ids 1, 2, …
pub(crate) fn schema(columns: &[(&str, DataType)]) -> TableSchema {
    let column = |(i, (name, data_type)): (usize, &(&str, DataType))| Column {
        id: ColumnId(i as u32 + 1),
        name: (*name).to_owned(),
        data_type: data_type.clone(),
        nullable: true,
    };
    TableSchema { columns: columns.iter().enumerate().map(column).collect() }
}

pub(crate) async fn store(path: &str, pieces: Vec<Bytes>) -> Arc<dyn ObjectStore> {
    let objects = Arc::new(InMemory::new());
    objects.put(&Path::from(path), Bytes::from(pieces.concat()).into()).await.unwrap();
    objects
}

pub(crate) fn open(objects: &Arc<dyn ObjectStore>, path: &str, meta: &FileMeta) -> VerifiedReader {
    FooterCache::new(1 << 20).reader(Arc::clone(objects), path, meta.size, meta.body_end, meta.tail_crc32c)
}

pub(crate) async fn read_all(reader: VerifiedReader, rows: usize) -> Result<(TableSchema, Vec<RecordBatch>)> {
    let file = read_batches(reader, None, rows).await?;
    Ok((file.schema, file.stream.try_collect().await?))
}
