//! Damage is found, by name, or does not matter.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use parquet::arrow::async_reader::AsyncFileReader;
use tandem_env::DiskCache;
use tandem_types::{ColumnId, ErrorKind};

use super::size::Chance;
use super::{open, read_all, schema, store};
use crate::{FileMeta, FooterCache, WriteSpec, write_file};

/// A file of some blocks, with strings varied enough to get a Bloom filter.
fn file() -> (Vec<u8>, FileMeta, Vec<RecordBatch>) {
    let spec = WriteSpec {
        schema: schema(&[("n", DataType::Int64), ("x", DataType::Float64), ("id", DataType::Utf8)]),
        sort: vec![ColumnId(1)],
        ..WriteSpec::default()
    };
    let mut chance = Chance(3);
    let rows = 9_000;
    let batch = RecordBatch::try_new(
        spec.schema.arrow(),
        vec![
            Arc::new(Int64Array::from_iter_values(0..rows)),
            Arc::new((0..rows).map(|_| Some(chance.next() as f64)).collect::<Float64Array>()),
            Arc::new((0..rows).map(|_| Some(format!("{:016x}", chance.next()))).collect::<StringArray>()),
        ],
    )
    .unwrap();
    let (pieces, meta) = write_file(&spec, std::iter::once(Ok(batch.clone()))).unwrap();
    (pieces.concat(), meta, vec![batch])
}

#[tokio::test]
async fn a_flipped_byte_is_an_error_or_changes_nothing() {
    let (bytes, meta, rows) = file();
    assert!(meta.body_end > 2 * 65_536, "several blocks: {}", meta.body_end);
    let tail = meta.body_end as usize..bytes.len();
    // Every 997th byte of the body and every 13th of the tail, and the borders.
    let mut places: Vec<usize> = (0..tail.start).step_by(997).chain(tail.clone().step_by(13)).collect();
    places.extend([3, 65_535, 65_536, tail.start - 1, tail.start, bytes.len() - 1]);
    let (mut found, mut harmless) = (0, 0);
    for place in places {
        let mut bytes = bytes.clone();
        bytes[place] ^= 0x10;
        let objects = store("data/7/x.parquet", vec![Bytes::from(bytes)]).await;
        match read_all(open(&objects, "data/7/x.parquet", &meta), 100_000).await {
            Ok((_, read)) => {
                assert_eq!(read, rows, "byte {place}");
                harmless += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "byte {place}: {error}");
                assert!(error.message().contains("data/7/x.parquet"), "{error}");
                found += 1;
            }
        }
    }
    // Only bytes of blocks that a scan does not touch (the Bloom filter's) can be harmless.
    assert!(found > harmless, "{found} found, {harmless} harmless");
}

#[tokio::test]
async fn a_file_cut_short_grown_or_gone_is_named() {
    let (bytes, meta, _) = file();
    let name = "data/7/x.parquet";
    for length in [0, 1, 65_536, meta.body_end as usize, bytes.len() - 1] {
        let objects = store(name, vec![Bytes::copy_from_slice(&bytes[..length])]).await;
        let error = read_all(open(&objects, name, &meta), 1000).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{length}: {error}");
        assert!(error.message().contains(name), "{error}");
    }
    let objects = store("other", vec![]).await;
    let error = read_all(open(&objects, name, &meta), 1000).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Damaged, "data file \"data/7/x.parquet\" is missing")
    );

    let objects = store(name, vec![bytes.into()]).await;
    let wrong = FileMeta { body_end: meta.body_end - 1, ..meta.clone() };
    assert!(read_all(open(&objects, name, &wrong), 1000).await.is_err());
    let wrong = FileMeta { tail_crc32c: !meta.tail_crc32c, ..meta };
    assert!(read_all(open(&objects, name, &wrong), 1000).await.is_err());
}

#[tokio::test]
async fn ranges_are_exactly_what_was_asked_for() {
    let (bytes, meta, _) = file();
    let objects = store("f", vec![Bytes::from(bytes.clone())]).await;
    let mut reader = open(&objects, "f", &meta);
    let (end, size) = (meta.body_end, meta.size);
    let mut chance = Chance(11);
    for _ in 0..50 {
        let mut ranges =
            vec![0..0, 5..5, 0..1, 65_535..65_537, end - 1..end, end..size, end - 3..end + 3, 0..size];
        for _ in 0..5 {
            let start = chance.next() % size;
            ranges.push(start..start + chance.next() % (size - start + 1));
        }
        let keep = chance.next();
        let ranges: Vec<_> =
            ranges.into_iter().enumerate().filter(|(i, _)| keep >> i & 1 == 1).map(|(_, r)| r).collect();
        let read = reader.get_byte_ranges(ranges.clone()).await.unwrap();
        assert_eq!(read.len(), ranges.len());
        for (range, read) in ranges.iter().zip(read) {
            assert_eq!(read, bytes[range.start as usize..range.end as usize], "{range:?}");
        }
    }
    assert!(reader.get_bytes(size - 1..size + 1).await.is_err());
}

#[tokio::test]
async fn footers_are_kept_up_to_a_bound() {
    let (bytes, meta, _) = file();
    let cache = FooterCache::new(20_000);
    for i in 0..40 {
        let path = format!("f{i}");
        let objects = store(&path, vec![Bytes::from(bytes.clone())]).await;
        let reader = cache.reader(objects, &path, meta.size, meta.body_end, meta.tail_crc32c);
        let first = reader.footer().await.unwrap();
        assert!(Arc::ptr_eq(&first, &reader.footer().await.unwrap()), "one that was just used is kept");
        assert!(cache.bytes() <= 20_000 && cache.bytes() > 0, "{}", cache.bytes());
    }
    // A failure is not kept.
    let empty = store("x", vec![]).await;
    let reader = |objects| cache.reader(objects, "f99", meta.size, meta.body_end, meta.tail_crc32c);
    assert!(reader(empty).footer().await.is_err());
    let objects = store("f99", vec![Bytes::from(bytes)]).await;
    assert!(reader(objects).footer().await.is_ok());
}

/// A store that counts what is read of it.
#[derive(Debug)]
struct Counting(Arc<dyn ObjectStore>, std::sync::atomic::AtomicU64);

impl std::fmt::Display for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Counting {
    fn taken(&self) -> u64 {
        self.1.swap(0, std::sync::atomic::Ordering::Relaxed)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.0.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let result = self.0.get_opts(path, options).await?;
        let bytes = result.range.end - result.range.start;
        self.1.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        Ok(result)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn what_is_on_disk_is_not_fetched_again_unless_it_is_damaged() {
    let (bytes, meta, rows) = file();
    let name = "data/7/x.parquet";
    let counting = Arc::new(Counting(store(name, vec![bytes.into()]).await, Default::default()));
    let objects: Arc<dyn ObjectStore> = counting.clone();
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let disk = DiskCache::open(dir.path(), 4 << 20).unwrap();
        FooterCache::new(1 << 20).with_disk(Some(disk))
    };
    let reader =
        |cache: &FooterCache| cache.reader(objects.clone(), name, meta.size, meta.body_end, meta.tail_crc32c);
    let read = async |cache: &FooterCache| {
        assert_eq!(read_all(reader(cache), 100_000).await.unwrap().1, rows);
        counting.taken()
    };
    let cache = open();
    let first = read(&cache).await;
    assert!(first > 2 * 65_536, "{first} bytes came from the store");
    assert_eq!(read(&cache).await, 0);
    drop(cache);
    let cache = open();
    assert_eq!(read(&cache).await, 0, "nor after a restart");
    drop(cache);

    // Every piece damaged, each at another place.
    let blocks = dir.path().join("blocks");
    let mut cached = std::fs::read(&blocks).unwrap();
    for start in (0..cached.len()).step_by(65_536) {
        let at = (start + start / 97 % 60_000).min(cached.len() - 1);
        cached[at] ^= 4;
    }
    std::fs::write(&blocks, cached).unwrap();
    let cache = open();
    assert_eq!(read(&cache).await, first, "all of it is read again, and right");
    assert_eq!(read(&cache).await, 0);

    // A part asked for: whole blocks of it are fetched, and the whole file ahead only what is missing then.
    drop(cache);
    std::fs::remove_file(dir.path().join("index")).unwrap();
    let cache = open();
    let part = reader(&cache).read_ranges(&[7_000..7_010, 0..0]).await.unwrap();
    assert_eq!(part[0].len(), 10);
    let tail = meta.size - meta.body_end;
    assert_eq!(counting.taken(), 65_536 + tail);
    assert_eq!(reader(&cache).prefetch().await.unwrap(), meta.body_end - 65_536);
    assert_eq!(counting.taken(), meta.body_end - 65_536);
    assert_eq!((reader(&cache).prefetch().await.unwrap(), read(&cache).await), (0, 0));
}
