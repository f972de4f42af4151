//! Rows made light: a partition and a number each.

use bytes::Bytes;
use tandem_types::Partition;

/// A write's rows are numbered from `number * PER_WRITE`.
pub const PER_WRITE: u64 = 16;

pub type Row = (Partition, u64);

pub fn encode(rows: &[Row]) -> Bytes {
    let mut bytes = Vec::with_capacity(rows.len() * 16);
    for (partition, id) in rows {
        bytes.extend_from_slice(&partition.0.to_be_bytes());
        bytes.extend_from_slice(&id.to_be_bytes());
    }
    bytes.into()
}

pub fn decode(bytes: &[u8]) -> Vec<Row> {
    let number = |b: &[u8]| u64::from_be_bytes(b.try_into().unwrap_or_default());
    bytes
        .chunks_exact(16)
        .map(|row| (Partition(number(&row[..8]).cast_signed()), number(&row[8..])))
        .collect()
}
