//! The log, object by object: frames, the chain of hashes, payloads down to their padding, floors and identity.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_format::{CommitHeader, HeaderHash, Op, decode_commit, decode_floor, encode_header};
use tandem_segment::{DecodedSection, Limits, decode_section};
use tandem_types::{DatabaseId, Error, Result, Seq};

/// A commit that is what it says.
#[derive(Debug)]
pub(crate) struct Link {
    pub hash: HeaderHash,
    pub previous: HeaderHash,
    /// The checkpoints that it records: the hashes of their roots.
    pub roots: BTreeMap<Seq, [u8; 32]>,
}

/// Checks everything about one commit that can be seen in its object.
pub(crate) fn check_commit(object: &Bytes, seq: Seq, database: DatabaseId) -> Result<Link> {
    let commit = decode_commit(object)?;
    let header = &commit.header;
    if header.seq != seq || header.database != database {
        return Err(Error::damaged(format!(
            "it is commit {} of database {}, and lies where commit {seq} of database {database} belongs",
            header.seq, header.database
        )));
    }
    check_front(object, header, commit.payload.len())?;
    check_payload(header, &commit.payload)?;
    let mut roots = BTreeMap::new();
    for op in header.transactions.iter().flat_map(|t| &t.ops) {
        if let Op::Checkpoint { seq, root_hash } = op {
            roots.insert(*seq, *root_hash);
        }
    }
    Ok(Link { hash: commit.hash, previous: header.previous, roots })
}

/// Between a header and its payload there are zeros, and a commit has one form.
fn check_front(object: &Bytes, header: &CommitHeader, payload: usize) -> Result<()> {
    let front = object.get(..object.len().saturating_sub(payload)).unwrap_or_default();
    let length = front.get(12..16).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
    let padding = front.get(20 + length..).unwrap_or_default();
    if !front.len().is_multiple_of(64) || padding.iter().any(|byte| *byte != 0) {
        return Err(Error::damaged("what stands between its header and its payload is not zero"));
    }
    // Fields that this version does not know would be lost in another copy of it.
    let again = encode_header(header)?;
    let stored = front.get(20..20 + length).unwrap_or_default();
    if again.bytes.get(20..20 + length) != Some(stored) {
        return Err(Error::newer_format("its header says more than this version of the program understands"));
    }
    Ok(())
}

/// Sections stand back to back, with zeros up to the next multiple of 64, and nothing behind.
fn check_payload(header: &CommitHeader, payload: &Bytes) -> Result<()> {
    let mut end = 0;
    for section in header.sections().filter(|s| s.segment.is_none()) {
        let range = range_of(section.offset, section.len, payload.len())?;
        let between = payload.get(end..range.start).unwrap_or_default();
        if range.start < end || between.iter().any(|byte| *byte != 0) {
            return Err(Error::damaged(format!(
                "what stands before byte {} of its payload is not zero",
                range.start
            )));
        }
        end = range.end;
        check_section(&payload.slice(range), section.crc32c, section.rows)?;
    }
    if payload.get(end..).unwrap_or_default().iter().any(|byte| *byte != 0) {
        return Err(Error::damaged("something stands behind its last section"));
    }
    if payload.len() != end.next_multiple_of(64) {
        return Err(Error::damaged(format!(
            "its payload has {} bytes, {} belong there",
            payload.len(),
            end.next_multiple_of(64)
        )));
    }
    Ok(())
}

pub(crate) fn range_of(offset: u64, len: u64, within: usize) -> Result<std::ops::Range<usize>> {
    let outside =
        || Error::damaged(format!("a section at {offset} of {len} bytes lies outside of {within} bytes"));
    let start = usize::try_from(offset).map_err(|_| outside())?;
    let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len)).ok_or_else(outside)?;
    if end > within { Err(outside()) } else { Ok(start..end) }
}

/// The rows of a section, counted.
pub(crate) fn check_section(bytes: &Bytes, crc32c: u32, rows: u64) -> Result<DecodedSection> {
    let section = decode_section(bytes, Some(crc32c), &Limits::default())?;
    let found: u64 = section.batches.iter().map(|batch| batch.num_rows() as u64).sum();
    if found != rows {
        return Err(Error::damaged(format!("a section has {found} rows, the log says {rows}")));
    }
    Ok(section)
}

/// A floor, and that nothing stands behind it.
pub(crate) fn check_floor(object: &Bytes, database: DatabaseId) -> Result<tandem_format::Floor> {
    let floor = decode_floor(object)?;
    if floor.database != database {
        return Err(Error::damaged(format!("it belongs to database {}", floor.database)));
    }
    if tandem_format::encode_floor(&floor)? != *object {
        return Err(Error::damaged("it does not have the one form that a floor has"));
    }
    Ok(floor)
}
