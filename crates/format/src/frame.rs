//! The frame around a protobuf header: magic, versions, length, checksum.
//!
//! ```text
//! 0   magic, 8 bytes
//! 8   u32 LE  version of the format that a reader needs
//! 12  u32 LE  length of the header
//! 16  u32 LE  CRC32C: from version 3 on of bytes 0 to 15 and the header, before of the header alone
//! 20  header
//!     zeros up to the next multiple of 64
//!     payload
//! ```
//!
//! The payload begins on a multiple of 64 bytes, so that Arrow buffers in it are aligned within the object.
//!
//! The first 20 bytes, and what the checksum is of, stay as they are in all versions to come: so a reader tells an object
//! that needs a newer program from one whose version is damaged, and does not ask for an upgrade that would not help.

use bytes::Bytes;
use tandem_types::{Error, Result};

use crate::FORMAT_VERSION;

const FIXED: usize = 20;
/// Where the checksum stands; everything before it is covered from [`COVERS_LEAD`] on.
const LEAD: usize = 16;
const ALIGNMENT: usize = 64;

/// The first version whose checksum covers the magic, the version and the length, too.
const COVERS_LEAD: u32 = 3;

/// Length, checksum and version around `header`, padded so that a payload may follow.
pub(crate) fn wrap(magic: &[u8; 8], header: &[u8]) -> Result<Vec<u8>> {
    wrap_as(FORMAT_VERSION, magic, header)
}

pub(crate) fn wrap_as(version: u32, magic: &[u8; 8], header: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(header.len())
        .map_err(|_| Error::invalid(format!("a header of {} bytes is too large", header.len())))?;
    let end = (FIXED + header.len()).next_multiple_of(ALIGNMENT);
    let mut out = Vec::with_capacity(end);
    out.extend_from_slice(magic);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    let crc = checksum(version, &out, header);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(header);
    out.resize(end, 0);
    Ok(out)
}

fn checksum(version: u32, lead: &[u8], header: &[u8]) -> u32 {
    match version {
        COVERS_LEAD.. => crc32c::crc32c_append(crc32c::crc32c(lead), header),
        _ => crc32c::crc32c(header),
    }
}

/// Header and payload of an object, its magic, version, length and checksum verified.
pub(crate) fn unwrap(magic: &[u8; 8], object: &Bytes) -> Result<(Bytes, Bytes)> {
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(object.get(at..at + 4)?.try_into().ok()?)) };
    if object.get(..8) != Some(magic) {
        return Err(Error::damaged("the object does not begin with the magic of its kind"));
    }
    let (Some(lead), Some(version), Some(length), Some(crc)) =
        (object.get(..LEAD), word(8), word(12), word(16))
    else {
        return Err(Error::damaged(format!("the object ends after {} bytes", object.len())));
    };
    if version == 0 {
        return Err(Error::damaged("the object claims format version 0, which never was"));
    }
    let end = FIXED + length as usize;
    if object.len() < end {
        return Err(Error::damaged(format!(
            "the object has {} bytes, its header alone needs {end}",
            object.len()
        )));
    }
    let header = object.slice(FIXED..end);
    let found = checksum(version, lead, &header);
    if found != crc {
        return Err(Error::damaged(format!("header checksum {found:08x}, expected {crc:08x}")));
    }
    // Only once the version is known to be what was written.
    if version > FORMAT_VERSION {
        return Err(Error::newer_format(format!(
            "the object needs format version {version}, this program reads up to {FORMAT_VERSION}: upgrade it"
        )));
    }
    let payload = object.slice(end.next_multiple_of(ALIGNMENT).min(object.len())..);
    Ok((header, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_types::ErrorKind;

    const MAGIC: &[u8; 8] = b"TNDMTEST";

    fn framed(version: u32) -> Vec<u8> {
        wrap_as(version, MAGIC, b"what is in it").unwrap()
    }

    #[test]
    fn every_version_up_to_ours_is_read() {
        for version in 1..=FORMAT_VERSION {
            let (header, payload) = unwrap(MAGIC, &framed(version).into()).unwrap();
            assert_eq!((&header[..], payload.len()), (&b"what is in it"[..], 0), "version {version}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_a_damaged_one() {
        let newer = unwrap(MAGIC, &framed(FORMAT_VERSION + 1).into()).unwrap_err();
        assert_eq!(newer.kind(), ErrorKind::NewerFormat, "{newer}");
        for version in 1..=FORMAT_VERSION + 1 {
            let whole = framed(version);
            let end = FIXED + b"what is in it".len();
            for at in 0..end {
                for bit in 0..8 {
                    let mut spoilt = whole.clone();
                    spoilt[at] ^= 1 << bit;
                    let error = unwrap(MAGIC, &spoilt.into()).unwrap_err();
                    let what = format!("version {version}, byte {at}, bit {bit}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Damaged, "{what}");
                }
            }
        }
    }
}
