//! Fetching ahead: what queries will want is on the local disk before they do.
//!
//! Files are fetched newest first, and no more of them than the cache holds: what is fetched now must not push out what was
//! fetched a moment ago. It is a convenience: whatever goes wrong is tried again later, and queries fetch for themselves
//! meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use tandem_format::data_path;
use tandem_manifest::{FileState, Manifest, TailSection};
use tandem_types::{ErrorKind, Result, Seq, TableId};

use crate::Shared;
use crate::config::Prefetch;

/// Commits of this time are looked at together.
const GATHER: Duration = Duration::from_millis(500);

/// After a failure it waits this long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Objects that are fetched at once: queries come first.
const AT_ONCE: usize = 4;

/// One thing to fetch.
enum Wanted {
    File { path: String, file: Arc<FileState> },
    Section { table: TableId, section: Arc<TailSection> },
}

impl Wanted {
    fn since(&self) -> Seq {
        match self {
            Self::File { file, .. } => file.created,
            Self::Section { section, .. } => section.key.seq,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::File { file, .. } => file.file.size,
            Self::Section { section, .. } => section.section.len,
        }
    }
}

/// Runs until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    let clock = shared.env.clock.clone();
    let mut states = shared.writer.watch();
    // Everything up to here is fetched, or need not be.
    let mut done = match shared.config.prefetch {
        Prefetch::All => Seq(0),
        Prefetch::Recent | Prefetch::None => states.borrow().seq(),
    };
    loop {
        let state = states.borrow_and_update().clone();
        if state.seq() > done {
            match shared.fetch_since(&state, done).await {
                Ok(()) => done = state.seq(),
                Err(error) => {
                    tracing::debug!(%error, "fetching ahead waits");
                    clock.sleep(RETRY_AFTER).await;
                    continue;
                }
            }
        }
        clock.sleep(GATHER).await;
        if states.changed().await.is_err() {
            return;
        }
    }
}

impl Shared {
    /// Fetches what the state has that came after `done`.
    async fn fetch_since(&self, state: &Manifest, done: Seq) -> Result<()> {
        let room = self.disk.as_ref().map_or(0, |disk| disk.bytes_max());
        let wanted = wanted(state, done, room);
        stream::iter(wanted).map(Ok).try_for_each_concurrent(AT_ONCE, |one| self.fetch(one)).await
    }

    async fn fetch(&self, wanted: Wanted) -> Result<()> {
        let fetched = match &wanted {
            Wanted::File { path, file } => {
                let objects: Arc<dyn ObjectStore> = self.env.store.objects();
                let file = &file.file;
                let reader = self.footers.reader(objects, path, file.size, file.body_end, file.tail_crc32c);
                reader.prefetch().await
            }
            Wanted::Section { table, section } => self.tail.prefetch(*table, section).await,
        };
        match fetched {
            Ok(bytes) => {
                metrics::counter!("tandem_prefetched_bytes_total").increment(bytes);
                Ok(())
            }
            // Queries will say so, and by name. Perhaps it was only replaced meanwhile.
            Err(error) if error.kind() == ErrorKind::Damaged => {
                tracing::debug!(%error, "not fetched ahead");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// What came after `done`, the newest first, as far as there is room.
fn wanted(state: &Manifest, done: Seq, room: u64) -> Vec<Wanted> {
    let mut all: Vec<Wanted> = Vec::new();
    for table in state.tables() {
        let files = table.files().filter(|file| file.created > done);
        all.extend(files.map(|file| {
            let path = data_path(table.id(), table.partition_by(), &file.file.name);
            Wanted::File { path, file: file.clone() }
        }));
        let sections = table.tail().filter(|section| section.key.seq > done);
        all.extend(sections.map(|s| Wanted::Section { table: table.id(), section: s.clone() }));
    }
    all.sort_by_key(|wanted| std::cmp::Reverse(wanted.since()));
    let mut total: u64 = 0;
    let fits = |wanted: &Wanted| {
        total = total.saturating_add(wanted.bytes());
        total <= room
    };
    all.into_iter().take_while(fits).collect()
}
