//! Cutting files into pieces of work of about equal size.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use tandem_manifest::FileState;
use tandem_types::Seq;

use super::pending::Chosen;

/// Smaller pieces cost more to open than they save.
const PIECE_BYTES_MIN: u64 = 2 << 20;

/// Pieces for each stream, so that none of them works alone for long at the end.
const PIECES_PER_STREAM: u64 = 4;

/// Files whose entries exist at a time.
const FILES_MAX: usize = 128;

/// Files of one group that go through the same mutations, with the same seq folded in.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Place of the group.
    pub(super) group: usize,
    /// Place of the set of mutations.
    pub(super) set: usize,
    pub(super) files: Vec<Piece>,
}

/// A file, or the row groups of it that begin in a range of bytes.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) file: Arc<FileState>,
    pub(super) range: Option<Range<u64>>,
}

/// Files by what they go through and what is in them already.
#[derive(Debug, Default)]
pub(super) struct Sets {
    places: BTreeMap<Chosen, usize>,
}

impl Sets {
    /// The place of a set.
    pub(super) fn place(&mut self, chosen: &Chosen) -> usize {
        if let Some(place) = self.places.get(chosen) {
            return *place;
        }
        let place = self.places.len();
        self.places.insert(chosen.clone(), place);
        place
    }

    /// All sets, by place.
    pub(super) fn into_vec(self) -> Vec<Chosen> {
        let mut all: Vec<(usize, Chosen)> =
            self.places.into_iter().map(|(set, place)| (place, set)).collect();
        all.sort_unstable_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, set)| set).collect()
    }
}

/// About how many bytes an item should have.
pub(super) fn share(bytes: u64, streams: usize) -> u64 {
    (bytes / (streams.max(1) as u64 * PIECES_PER_STREAM)).max(PIECE_BYTES_MIN)
}

impl Item {
    /// What is folded into its files already; only of groups with parts of the tail.
    pub(super) fn folded_through(&self) -> Seq {
        self.files.first().map_or(Seq(0), |piece| piece.file.file.folded_through)
    }
}

/// Cuts files of one group, each with the place of its set, into items of about `share` bytes. Files of an item are alike
/// in what is folded into them if `by_seq`.
pub(super) fn items(
    group: usize,
    files: Vec<(usize, Arc<FileState>)>,
    by_seq: bool,
    share: u64,
    out: &mut Vec<Item>,
) {
    let mut alike: BTreeMap<(usize, Seq), Vec<Arc<FileState>>> = BTreeMap::new();
    for (set, file) in files {
        let seq = if by_seq { file.file.folded_through } else { Seq(0) };
        alike.entry((set, seq)).or_default().push(file);
    }
    for ((set, _), files) in alike {
        let mut item = Item { group, set, files: Vec::new() };
        let mut bytes = 0;
        for file in files {
            let size = file.file.size;
            if size > share.saturating_mul(2) {
                let pieces = size.div_ceil(share);
                for n in 0..pieces {
                    let range = size * n / pieces..size * (n + 1) / pieces;
                    let piece = Piece { file: Arc::clone(&file), range: Some(range) };
                    out.push(Item { group, set, files: vec![piece] });
                }
                continue;
            }
            bytes += size;
            item.files.push(Piece { file, range: None });
            if bytes >= share || item.files.len() >= FILES_MAX {
                out.push(std::mem::replace(&mut item, Item { group, set, files: Vec::new() }));
                bytes = 0;
            }
        }
        if !item.files.is_empty() {
            out.push(item);
        }
    }
}
