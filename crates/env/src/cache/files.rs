//! The two files of a cache: pieces, and what they are.
//!
//! `blocks`: slots of [`PIECE_BYTES`], back to back. `index`: a header, then an entry per slot: key, length, checksum of key
//! and piece, checksum of the entry. Nothing is synced: what a crash tears is found by its checksum.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use super::PIECE_BYTES;
use super::slots::{Key, Place};

/// With the version of the format in its last byte.
const MAGIC: [u8; 32] = *b"TandemDB cache of object parts\n\x01";
const ENTRY_BYTES: usize = 28;

/// What the lock and the header take beside the slots.
const SPARE_BYTES: u64 = 4096;

#[derive(Debug)]
pub(super) struct Files {
    blocks: File,
    index: File,
    /// Locked as long as this lives.
    _lock: File,
}

pub(super) fn checksum(key: &Key, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), bytes)
}

impl Files {
    pub fn slots_within(bytes_max: u64) -> u32 {
        let slots = bytes_max.saturating_sub(SPARE_BYTES) / (PIECE_BYTES + ENTRY_BYTES as u64);
        u32::try_from(slots).unwrap_or(u32::MAX)
    }

    /// `None`: another process has the directory.
    pub fn open(dir: &Path, count: u32) -> Result<Option<Self>> {
        std::fs::create_dir_all(dir)?;
        let open = |name: &str| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(name))
        };
        let lock = open("lock")?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let files = Self { blocks: open("blocks")?, index: open("index")?, _lock: lock };
        let most = |file: &File, bytes: u64| match file.metadata()?.len() > bytes {
            true => file.set_len(bytes),
            false => Ok(()),
        };
        most(&files.blocks, u64::from(count) * PIECE_BYTES)?;
        most(&files.index, entry_offset(count))?;
        Ok(Some(files))
    }

    /// What the index says of each slot. One of another format is begun anew.
    pub fn load(&self, count: u32) -> Result<Vec<Option<(Key, Place)>>> {
        let mut bytes = Vec::new();
        let mut index = &self.index;
        index.seek(SeekFrom::Start(0))?;
        index.read_to_end(&mut bytes)?;
        let Some(entries) = bytes.strip_prefix(&MAGIC) else {
            self.index.set_len(0)?;
            self.blocks.set_len(0)?;
            self.index.write_all_at(&MAGIC, 0)?;
            return Ok(Vec::new());
        };
        let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
        Ok((0..count).zip(entries).map(|(slot, entry)| decode(slot, entry)).collect())
    }

    pub fn read(&self, place: &Place) -> Result<Bytes> {
        let length = usize::try_from(place.len).unwrap_or(usize::MAX);
        if place.len == 0 || u64::from(place.len) > PIECE_BYTES {
            return Err(Error::new(ErrorKind::InvalidData, "no length of a piece"));
        }
        let mut bytes = vec![0; length];
        self.blocks.read_exact_at(&mut bytes, block_offset(place.slot))?;
        Ok(bytes.into())
    }

    /// Writes the piece, then what it is. Until both are written its checksum is wrong.
    pub fn write(&self, key: &Key, place: &Place, bytes: &[u8]) -> Result<()> {
        self.blocks.write_all_at(bytes, block_offset(place.slot))?;
        self.index.write_all_at(&encode(key, place), entry_offset(place.slot))
    }

    /// Nothing is in this slot.
    pub fn clear(&self, slot: u32) -> Result<()> {
        self.index.write_all_at(&[0; ENTRY_BYTES], entry_offset(slot))
    }
}

fn block_offset(slot: u32) -> u64 {
    u64::from(slot) * PIECE_BYTES
}

fn entry_offset(slot: u32) -> u64 {
    MAGIC.len() as u64 + u64::from(slot) * ENTRY_BYTES as u64
}

fn encode(key: &Key, place: &Place) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    let fields = key.iter().copied().chain(place.len.to_le_bytes()).chain(place.crc.to_le_bytes());
    entry.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    let (front, sum) = entry.split_at_mut(ENTRY_BYTES - 4);
    sum.copy_from_slice(&crc32c::crc32c(front).to_le_bytes());
    entry
}

/// `None`: the slot is free, or what is said of it is damaged.
fn decode(slot: u32, entry: &[u8; ENTRY_BYTES]) -> Option<(Key, Place)> {
    let (front, sum) = entry.split_last_chunk::<4>()?;
    if entry == &[0; ENTRY_BYTES] || crc32c::crc32c(front) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (key, rest) = front.split_first_chunk::<16>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (crc, _) = rest.split_first_chunk::<4>()?;
    let place = Place { slot, len: u32::from_le_bytes(*len), crc: u32::from_le_bytes(*crc) };
    Some((*key, place))
}
