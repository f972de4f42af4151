//! Rows of the tail: from memory, from the disk, or from where the log keeps them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tandem_env::{DiskCache, cut};
use tandem_format::{Section, commit_path, segment_path};
use tandem_log::Log;
use tandem_manifest::TailSection;
use tandem_segment::{DecodedSection, Limits, decode_section};
use tandem_types::{Error, Result, Seq, TableId};
use tandem_writer::Writer;
use tokio::sync::{Mutex, MutexGuard};

/// Sections smaller than this are not kept on disk: each would take the room of a whole piece.
const ON_DISK_MIN: u64 = 8 << 10;

/// Reads sections. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct TailReader {
    pub log: Log,
    pub writer: Writer,
    pub disk: Option<DiskCache>,
    pub turns: Turns,
}

/// Whose turn it is to read a commit's payload: many want its sections at once, and one request brings them all. Each
/// reading it for itself would also keep a copy of the whole payload in memory for every section.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<[Mutex<()>]>);

impl Turns {
    /// Commits that share a lock wait for each other for no reason, which is harmless and, with so many, rare.
    const LOCKS: usize = 256;

    pub fn new() -> Self {
        Self((0..Self::LOCKS).map(|_| Mutex::new(())).collect())
    }

    async fn wait(&self, seq: Seq) -> Option<MutexGuard<'_, ()>> {
        let place = usize::try_from(seq.0 % Self::LOCKS as u64).unwrap_or(0);
        match self.0.get(place) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }
}

impl TailReader {
    /// A section's rows, checked against its checksum when they come from the store.
    pub async fn load(&self, table: TableId, tail: &TailSection) -> Result<Arc<DecodedSection>> {
        if let Some(rows) = self.writer.tail().get(table, tail.key) {
            return Ok(rows);
        }
        let section = &tail.section;
        let _turn = match section.segment {
            None => self.turns.wait(tail.key.seq).await,
            Some(_) => None,
        };
        // Whoever had the turn before has perhaps brought it.
        if let Some(rows) = self.writer.tail().get(table, tail.key) {
            return Ok(rows);
        }
        if section.segment.is_none()
            && let Some(payload) = self.writer.recent().get(tail.key.seq).and_then(|recent| recent.payload())
        {
            match slice(&payload, section).and_then(|bytes| decode(&bytes, section)) {
                Ok(rows) => {
                    self.writer.tail().insert(table, tail.key, rows.clone(), section.len);
                    return Ok(rows);
                }
                // As a peer pushed them; the store has them as they were committed.
                Err(e) => tracing::warn!(seq = %tail.key.seq, error = %e, "pushed rows are damaged"),
            }
        }
        if let Some(rows) = self.load_from_disk(tail).await {
            self.writer.tail().insert(table, tail.key, rows.clone(), section.len);
            return Ok(rows);
        }
        metrics::counter!("tandem_tail_loads_total").increment(1);
        if let Some(segment) = section.segment {
            let path = segment_path(&segment);
            let bytes =
                self.log.env().store.get_range(&path, section.offset..section.offset + section.len).await?;
            let rows = decode(&bytes, section).map_err(|e| e.context(&path))?;
            self.keep_on_disk(tail, &bytes).await;
            self.writer.tail().insert(table, tail.key, rows.clone(), section.len);
            return Ok(rows);
        }
        let payload = self.log.read_payload(tail.key.seq).await?.0;
        let named = |e: Error| e.context(commit_path(tail.key.seq));
        let bytes = slice(&payload, section).map_err(named)?;
        let rows = decode(&bytes, section).map_err(named)?;
        self.keep_on_disk(tail, &bytes).await;
        self.writer.tail().insert(table, tail.key, rows.clone(), section.len);
        // One request brought the rows of the whole commit: its other sections will be asked for next.
        let state = self.writer.state();
        for other in state.tables() {
            let siblings = other.tail().filter(|t| t.key.seq == tail.key.seq && t.section.segment.is_none());
            for sibling in siblings.filter(|t| t.key != tail.key || other.id() != table) {
                // A damaged one is reported when it is asked for.
                if let Ok(rows) = slice(&payload, &sibling.section).and_then(|b| decode(&b, &sibling.section))
                {
                    self.writer.tail().insert(other.id(), sibling.key, rows, sibling.section.len);
                }
            }
        }
        Ok(rows)
    }

    /// A section in a segment that no commit names yet: it has no place in the log under which it could be kept.
    pub async fn load_uploaded(&self, section: &Section) -> Result<Arc<DecodedSection>> {
        let segment = section.segment;
        let segment = segment.ok_or_else(|| Error::internal("rows of a transaction are not in memory"))?;
        let path = segment_path(&segment);
        let range = section.offset..section.offset.saturating_add(section.len);
        let bytes = self.log.env().store.get_range(&path, range).await?;
        decode(&bytes, section).map_err(|e| e.context(&path))
    }

    async fn load_from_disk(&self, tail: &TailSection) -> Option<Arc<DecodedSection>> {
        let disk = self.disk.as_ref()?;
        let (name, range) = place(tail);
        let bytes = disk.get_whole(&name, range.clone()).await?;
        match decode(&bytes, &tail.section) {
            Ok(rows) => Some(rows),
            Err(error) => {
                tracing::warn!(%name, %error, "rows on disk are damaged");
                disk.drop_whole(&name, range);
                None
            }
        }
    }

    /// Of a section that was decoded, and so checked.
    async fn keep_on_disk(&self, tail: &TailSection, bytes: &Bytes) {
        if let Some(disk) = self.disk.as_ref().filter(|_| tail.section.len >= ON_DISK_MIN) {
            let (name, range) = place(tail);
            disk.put_whole(&name, range, bytes).await;
        }
    }

    /// Sees to it that the rows of a section can be read without the store; how many bytes were fetched.
    pub async fn prefetch(&self, table: TableId, tail: &TailSection) -> Result<u64> {
        let (name, range) = place(tail);
        let small = tail.section.len < ON_DISK_MIN;
        let here = self.disk.as_ref().is_none_or(|disk| cut(range).all(|piece| disk.has(&name, &piece)));
        if small || here {
            return Ok(0);
        }
        match self.writer.tail().get(table, tail.key) {
            // In memory for now; what falls out of it was never asked for.
            Some(_) => Ok(0),
            None => self.load(table, tail).await.map(|_| tail.section.len),
        }
    }
}

/// The object that holds a section, and where in it; of a commit, in its payload.
fn place(tail: &TailSection) -> (String, Range<u64>) {
    let section = &tail.section;
    let name = match &section.segment {
        Some(segment) => segment_path(segment),
        None => format!("{}#payload", commit_path(tail.key.seq)),
    };
    (name, section.offset..section.offset.saturating_add(section.len))
}

fn slice(payload: &Bytes, section: &Section) -> Result<Bytes> {
    let bounds = usize::try_from(section.offset).ok().zip(usize::try_from(section.len).ok());
    let range = bounds.and_then(|(start, len)| Some(start..start.checked_add(len)?));
    match range {
        Some(range) if range.end <= payload.len() => Ok(payload.slice(range)),
        _ => Err(Error::damaged(format!(
            "a section at {} of {} bytes lies beyond the {} bytes of its commit's payload",
            section.offset,
            section.len,
            payload.len()
        ))),
    }
}

fn decode(bytes: &Bytes, section: &Section) -> Result<Arc<DecodedSection>> {
    decode_section(bytes, Some(section.crc32c), &Limits::default()).map(Arc::new)
}
