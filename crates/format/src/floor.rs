//! Floors: how far the log may have been deleted, and the checkpoint from which it goes on.

use bytes::Bytes;
use prost::Message;
use tandem_types::{DatabaseId, Error, Result, Seq};

use crate::{frame, pb};

const MAGIC: &[u8; 8] = b"TNDMFLR\n";

/// A floor. The log below and at `seq` may be gone; the checkpoint, which the log records, is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    pub database: DatabaseId,
    /// The highest seq whose log object may have been deleted.
    pub seq: Seq,
    /// A recorded checkpoint at or above `seq`, and the hash of its root.
    pub checkpoint: Seq,
    pub root_hash: [u8; 32],
}

#[derive(Clone, PartialEq, Message)]
struct StoredFloor {
    #[prost(bytes = "vec", tag = "1")]
    database: Vec<u8>,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(uint64, tag = "3")]
    checkpoint: u64,
    #[prost(bytes = "vec", tag = "4")]
    root_hash: Vec<u8>,
}

pub fn encode_floor(floor: &Floor) -> Result<Bytes> {
    let message = StoredFloor {
        database: floor.database.0.to_be_bytes().to_vec(),
        seq: floor.seq.0,
        checkpoint: floor.checkpoint.0,
        root_hash: floor.root_hash.to_vec(),
    };
    Ok(frame::wrap(MAGIC, &message.encode_to_vec())?.into())
}

pub fn decode_floor(object: &Bytes) -> Result<Floor> {
    let (message, _) = frame::unwrap(MAGIC, object)?;
    let stored = StoredFloor::decode(message)
        .map_err(|e| Error::damaged(format!("the floor of the log does not decode: {e}")))?;
    let floor = Floor {
        database: DatabaseId(pb::id128("the database id", &stored.database)?),
        seq: Seq(stored.seq),
        checkpoint: Seq(stored.checkpoint),
        root_hash: pb::fixed("the hash of a checkpoint", &stored.root_hash)?,
    };
    if floor.checkpoint < floor.seq {
        return Err(Error::damaged(format!(
            "the floor of the log, {}, lies above the checkpoint at {} that it rests on",
            floor.seq, floor.checkpoint
        )));
    }
    Ok(floor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_types::ErrorKind;

    fn floor() -> Floor {
        Floor { database: DatabaseId(0xdb), seq: Seq(41), checkpoint: Seq(42), root_hash: [7; 32] }
    }

    #[test]
    fn floors_are_frozen_and_read_back() {
        let bytes = encode_floor(&floor()).unwrap();
        assert_eq!(decode_floor(&bytes), Ok(floor()));
        let (message, _) = frame::unwrap(MAGIC, &bytes).unwrap();
        let hex: String = message.iter().map(|b| format!("{b:02x}")).collect();
        let hash = "07".repeat(32);
        assert_eq!(hex, format!("0a10000000000000000000000000000000db1029182a2220{hash}"));
    }

    #[test]
    fn no_flipped_bit_gives_another_floor() {
        let bytes = encode_floor(&floor()).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut spoilt = bytes.to_vec();
                spoilt[at] ^= 1 << bit;
                match decode_floor(&spoilt.into()) {
                    // In the padding.
                    Ok(found) => assert_eq!(found, floor()),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::Damaged, "byte {at}, bit {bit}: {e}"),
                }
            }
        }
        let above = Floor { checkpoint: Seq(40), ..floor() };
        let error = decode_floor(&encode_floor(&above).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
    }
}
