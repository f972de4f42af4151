//! Tests of the crate as a whole: what goes in comes out, and hostile bytes end in an error.

mod attacks;
mod columns;
mod mutations;
mod round_trip;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use bytes::{Bytes, BytesMut};

use crate::EncodedSection;

/// A small seeded generator (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn joined(section: &EncodedSection) -> Bytes {
    let mut all = BytesMut::new();
    section.chunks.iter().for_each(|c| all.extend_from_slice(c));
    assert_eq!(all.len() as u64, section.len);
    assert_eq!(crc32c::crc32c(&all), section.crc32c);
    all.freeze()
}

/// What a client may send: a stream with compressed buffers.
fn client_stream(batches: &[RecordBatch], compression: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batches[0].schema(), options).unwrap();
    batches.iter().for_each(|b| writer.write(b).unwrap());
    writer.into_inner().unwrap()
}

/// A stream's messages: header and body of each.
fn messages(stream: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rest = stream;
    let mut out = Vec::new();
    loop {
        let len = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        if len == 0 {
            return out;
        }
        let header = &rest[8..8 + len];
        let body = arrow_ipc::root_as_message(header).unwrap().bodyLength() as usize;
        out.push((header.to_vec(), rest[8 + len..8 + len + body].to_vec()));
        rest = &rest[8 + len + body..];
    }
}

/// Messages as a stream again.
fn framed(messages: &[(Vec<u8>, Vec<u8>)]) -> Bytes {
    let mut out = Vec::new();
    for (header, body) in messages {
        out.extend([0xff; 4]);
        out.extend((header.len() as u32).to_le_bytes());
        out.extend(header);
        out.extend(body);
    }
    out.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    out.into()
}

/// One batch with a column of each kind.
fn every_kind(rows: usize, seed: u64) -> RecordBatch {
    of_kinds(0..columns::KINDS, rows, seed)
}

fn of_kinds(kinds: std::ops::Range<usize>, rows: usize, seed: u64) -> RecordBatch {
    let mut rng = Rng(seed);
    let (fields, arrays): (Vec<_>, Vec<_>) = kinds.map(|kind| columns::column(kind, rows, &mut rng)).unzip();
    RecordBatch::try_new(Arc::new(arrow_schema::Schema::new(fields)), arrays).unwrap()
}
