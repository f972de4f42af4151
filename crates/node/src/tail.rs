//! Rows of the tail: from memory, or from where the log keeps them.

use std::sync::Arc;

use bytes::Bytes;
use tandem_format::{Section, segment_path};
use tandem_log::Log;
use tandem_manifest::TailSection;
use tandem_segment::{DecodedSection, Limits, decode_section};
use tandem_types::{Error, Result, TableId};
use tandem_writer::Writer;

/// Reads sections. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct TailReader {
    pub log: Log,
    pub writer: Writer,
}

impl TailReader {
    /// A section's rows, checked against its checksum when they come from the store.
    pub async fn load(&self, table: TableId, tail: &TailSection) -> Result<Arc<DecodedSection>> {
        if let Some(rows) = self.writer.tail().get(table, tail.key) {
            return Ok(rows);
        }
        let section = &tail.section;
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
        metrics::counter!("tandem_tail_loads_total").increment(1);
        if let Some(segment) = section.segment {
            let path = segment_path(&segment);
            let bytes =
                self.log.env().store.get_range(&path, section.offset..section.offset + section.len).await?;
            let rows = decode(&bytes, section).map_err(|e| e.context(&path))?;
            self.writer.tail().insert(table, tail.key, rows.clone(), section.len);
            return Ok(rows);
        }
        let payload = self.log.read_payload(tail.key.seq).await?.0;
        let rows = slice(&payload, section)
            .and_then(|bytes| decode(&bytes, section))
            .map_err(|e| e.context(tandem_format::commit_path(tail.key.seq)))?;
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
