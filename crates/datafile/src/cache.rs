//! Footers, parsed once and shared by all readers of a file; and the way to blocks on the local disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::ObjectStore;
use parquet::file::metadata::ParquetMetaData;
use tandem_env::DiskCache;
use tandem_types::{Result, TableSchema};
use tokio::sync::OnceCell;

use crate::blocks::BlockSums;
use crate::read::{DataFile, VerifiedReader, load_footer};

/// What the tail of a data file says.
#[derive(Debug)]
pub struct Footer {
    /// Row groups, statistics, page indexes.
    pub metadata: Arc<ParquetMetaData>,
    /// The columns with their ids and stored types, as of the time of writing.
    pub schema: TableSchema,
    pub(crate) blocks: BlockSums,
}

impl Footer {
    /// About how many bytes of memory this takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.metadata.memory_size() + self.blocks.len() * 4 + self.schema.columns.len() * 64 + 256
    }
}

/// Keeps footers up to a number of bytes; the least recently used go first. Clones share one cache.
#[derive(Clone, Debug)]
pub struct FooterCache {
    state: Arc<Mutex<State>>,
    bytes_max: usize,
    disk: Option<DiskCache>,
}

#[derive(Debug, Default)]
struct State {
    /// Grows by one per use; orders entries by their last one.
    clock: u64,
    bytes: usize,
    entries: HashMap<DataFile, Entry>,
    by_use: BTreeMap<u64, DataFile>,
}

#[derive(Debug)]
struct Entry {
    footer: Arc<OnceCell<Arc<Footer>>>,
    used: u64,
    /// Counted in [`State::bytes`]; zero until the footer is there.
    bytes: usize,
}

impl FooterCache {
    pub fn new(bytes_max: usize) -> Self {
        Self { state: Arc::default(), bytes_max, disk: None }
    }

    /// With blocks and tails of files kept on the local disk too.
    #[must_use]
    pub fn with_disk(self, disk: Option<DiskCache>) -> Self {
        Self { disk, ..self }
    }

    pub(crate) fn disk(&self) -> Option<&DiskCache> {
        self.disk.as_ref()
    }

    /// A reader of the file at `path`; the other arguments are what [`FileMeta`](crate::FileMeta) said of
    /// it when it was written. Reads nothing yet.
    pub fn reader(
        &self,
        objects: Arc<dyn ObjectStore>,
        path: &str,
        size: u64,
        body_end: u64,
        tail_crc32c: u32,
    ) -> VerifiedReader {
        let file = DataFile { path: path.to_owned(), size, body_end, tail_crc32c };
        VerifiedReader::new(objects, file, self.clone())
    }

    /// The footer of a file: from memory, or by one read that all who ask meanwhile wait for.
    pub async fn footer(&self, objects: &Arc<dyn ObjectStore>, file: &DataFile) -> Result<Arc<Footer>> {
        let cell = self.state().touch(file);
        let footer = cell
            .get_or_try_init(|| async { load_footer(objects, file, self.disk()).await.map(Arc::new) })
            .await;
        match footer {
            Ok(footer) => {
                self.state().account(file, &cell, footer.memory_bytes(), self.bytes_max);
                Ok(Arc::clone(footer))
            }
            Err(error) => {
                self.state().forget(file, &cell);
                Err(error)
            }
        }
    }

    /// Bytes of memory that the kept footers take.
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; if something did, the entries are still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn touch(&mut self, file: &DataFile) -> Arc<OnceCell<Arc<Footer>>> {
        self.clock += 1;
        let used = self.clock;
        let entry = self.entries.entry(file.clone()).or_insert_with(|| Entry {
            footer: Arc::default(),
            used,
            bytes: 0,
        });
        self.by_use.remove(&entry.used);
        entry.used = used;
        self.by_use.insert(used, file.clone());
        Arc::clone(&entry.footer)
    }

    /// Counts an entry that was just filled, and drops old ones if there are too many bytes now.
    fn account(
        &mut self,
        file: &DataFile,
        cell: &Arc<OnceCell<Arc<Footer>>>,
        bytes: usize,
        bytes_max: usize,
    ) {
        if let Some(entry) =
            self.entries.get_mut(file).filter(|e| Arc::ptr_eq(&e.footer, cell) && e.bytes == 0)
        {
            entry.bytes = bytes;
            self.bytes += bytes;
        }
        while self.bytes > bytes_max
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= entry.bytes;
            }
        }
    }

    fn forget(&mut self, file: &DataFile, cell: &Arc<OnceCell<Arc<Footer>>>) {
        // Only an entry that nobody filled in the meantime.
        if self.entries.get(file).is_some_and(|e| Arc::ptr_eq(&e.footer, cell) && e.bytes == 0)
            && let Some(entry) = self.entries.remove(file)
        {
            self.by_use.remove(&entry.used);
        }
    }
}
