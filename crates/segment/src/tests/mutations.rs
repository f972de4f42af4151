//! Seeded mutations of good streams, through the same doors as a client's bytes.

use std::time::{Duration, Instant};

use arrow_ipc::CompressionType;
use bytes::Bytes;

use super::columns::KINDS;
use super::{Rng, client_stream, every_kind, framed, messages, of_kinds};
use crate::guard::{StreamGuard, check_flight_data};
use crate::{Limits, decode_section};

const ROUNDS: usize = 6_000;

/// Numbers that lengths and offsets are likeliest to trip over.
fn number(rng: &mut Rng) -> u64 {
    const ODD: [u64; 12] = [
        0,
        1,
        7,
        u64::MAX,
        i64::MAX as u64,
        i64::MIN as u64,
        u32::MAX as u64,
        i32::MAX as u64,
        1 << 31,
        100 << 30,
        1 << 40,
        1 << 62,
    ];
    match rng.below(3) {
        0 => rng.next() % 4096,
        1 => rng.next(),
        _ => ODD[rng.below(ODD.len())],
    }
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(bytes.len());
        match rng.below(6) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next() as u8,
            2 => bytes.truncate(at.max(1)),
            3 | 4 => {
                let n = number(rng).to_le_bytes();
                let width = [2, 4, 8][rng.below(3)];
                let at = at / width * width;
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&n[..end - at]);
            }
            _ => {
                let from = rng.below(bytes.len());
                let len = rng.below(32).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + len, at);
            }
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long a decode really takes is what is tested")]
fn mutated_streams_never_escape() {
    let started = Instant::now();
    let limits = Limits { max_decompressed_bytes: 16 << 20, ..Limits::default() };
    let mut streams = Vec::new();
    for first in (0..KINDS).step_by(4) {
        let kinds = first..first + 4;
        let batches = [of_kinds(kinds.clone(), 20, 1), of_kinds(kinds, 12, 2).slice(3, 9)];
        for codec in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
            streams.push(client_stream(&batches, codec));
        }
    }
    for stream in &streams {
        decode_section(&Bytes::from(stream.clone()), None, &limits).unwrap();
    }
    let mut rng = Rng(0x7A4D);
    let (mut refused, mut let_through, mut panics, mut slowest) = (0, 0, 0, Duration::ZERO);
    for round in 0..ROUNDS {
        let stream = &streams[round % streams.len()];
        let bytes = if round % 4 == 0 {
            // the framing too
            let mut bytes = stream.clone();
            mutate(&mut bytes, &mut rng);
            Bytes::from(bytes)
        } else {
            let mut parts = messages(stream);
            if rng.one_in(20) {
                let at = rng.below(parts.len());
                let part = parts.remove(at);
                parts.insert(rng.below(parts.len() + 1), part);
            }
            // the few large messages hold what is of interest
            let at = if rng.one_in(2) { rng.below(parts.len()) } else { parts.len() - 1 };
            let (header, body) = &mut parts[at];
            if rng.one_in(3) {
                mutate(body, &mut rng);
                body.resize(arrow_ipc::root_as_message(header).unwrap().bodyLength() as usize, 0);
            } else {
                mutate(header, &mut rng);
            }
            let _ = check_flight_data(header, body, &limits);
            let mut guard = StreamGuard::new(limits.clone());
            for (header, body) in &parts {
                if guard.check(header, body).is_err() {
                    break;
                }
            }
            framed(&parts)
        };
        let begun = Instant::now();
        let result = decode_section(&bytes, None, &limits);
        slowest = slowest.max(begun.elapsed());
        match result {
            Ok(decoded) => {
                // other values than were sent, but sound ones
                for column in decoded.batches.iter().flat_map(|b| b.columns()) {
                    column.to_data().validate_full().unwrap();
                }
                let_through += 1;
            }
            Err(e) => {
                assert_eq!(e.kind(), tandem_types::ErrorKind::Damaged);
                refused += 1;
                panics += usize::from(e.message().contains("the decoder gave up"));
            }
        }
    }
    let took = started.elapsed();
    println!(
        "{refused} refused ({panics} by a caught panic), {let_through} let through, {took:?}, slowest {slowest:?}"
    );
    assert!(refused > ROUNDS / 4, "the mutations do not reach what matters");
    // far above what it takes, far below what a forged length could make of it
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
}

#[test]
fn every_truncation_is_an_error() {
    let stream = client_stream(&[every_kind(3, 1)], None);
    let limits = Limits::default();
    for len in (0..stream.len()).step_by(7).chain(stream.len() - 9..stream.len()) {
        assert!(decode_section(&Bytes::copy_from_slice(&stream[..len]), None, &limits).is_err(), "{len}");
    }
}

#[test]
fn every_flipped_bit_is_an_error_where_a_checksum_is_known() {
    let stream = client_stream(&[every_kind(1, 1)], None);
    let crc = crc32c::crc32c(&stream);
    for at in (0..stream.len()).step_by(11) {
        let mut bad = stream.clone();
        bad[at] ^= 0x10;
        assert!(decode_section(&Bytes::from(bad), Some(crc), &Limits::default()).is_err(), "{at}");
    }
}
