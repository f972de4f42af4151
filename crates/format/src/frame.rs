//! The frame around a protobuf header: magic, versions, length, checksum.
//!
//! ```text
//! 0   magic, 8 bytes
//! 8   u32 LE  version of the format that a reader needs
//! 12  u32 LE  length of the header
//! 16  u32 LE  CRC32C of the header
//! 20  header
//!     zeros up to the next multiple of 64
//!     payload
//! ```
//!
//! The payload begins on a multiple of 64 bytes, so that Arrow buffers in it are aligned within the object.

use bytes::Bytes;
use tandem_types::{Error, Result};

use crate::FORMAT_VERSION;

const FIXED: usize = 20;
const ALIGNMENT: usize = 64;

/// Length, checksum and version around `header`, padded so that a payload may follow.
pub(crate) fn wrap(magic: &[u8; 8], header: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(header.len())
        .map_err(|_| Error::invalid(format!("a header of {} bytes is too large", header.len())))?;
    let end = (FIXED + header.len()).next_multiple_of(ALIGNMENT);
    let mut out = Vec::with_capacity(end);
    out.extend_from_slice(magic);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(header).to_le_bytes());
    out.extend_from_slice(header);
    out.resize(end, 0);
    Ok(out)
}

/// Header and payload of an object, its magic, version, length and checksum verified.
pub(crate) fn unwrap(magic: &[u8; 8], object: &Bytes) -> Result<(Bytes, Bytes)> {
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(object.get(at..at + 4)?.try_into().ok()?)) };
    if object.get(..8) != Some(magic) {
        return Err(Error::damaged("the object does not begin with the magic of its kind"));
    }
    let (Some(version), Some(length), Some(crc)) = (word(8), word(12), word(16)) else {
        return Err(Error::damaged(format!("the object ends after {} bytes", object.len())));
    };
    if version == 0 {
        return Err(Error::damaged("the object claims format version 0, which never was"));
    }
    if version > FORMAT_VERSION {
        return Err(Error::newer_format(format!(
            "the object needs format version {version}, this program reads up to {FORMAT_VERSION}: upgrade it"
        )));
    }
    let end = FIXED + length as usize;
    if object.len() < end {
        return Err(Error::damaged(format!(
            "the object has {} bytes, its header alone needs {end}",
            object.len()
        )));
    }
    let header = object.slice(FIXED..end);
    let found = crc32c::crc32c(&header);
    if found != crc {
        return Err(Error::damaged(format!("header checksum {found:08x}, expected {crc:08x}")));
    }
    let payload = object.slice(end.next_multiple_of(ALIGNMENT).min(object.len())..);
    Ok((header, payload))
}
