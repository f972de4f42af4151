//! Series that lines have named before: a table and its tags, known by their bytes, so that they are not read again.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::table::Key;

/// A series of more bytes than that is read each time.
const HEAD_BYTES: usize = 1 << 10;
/// Series are remembered up to that many bytes, those that come later not.
const ALL_BYTES: usize = 4 << 20;
/// So many series that did not come again show that none does.
const ONCE: usize = 1 << 13;

/// Series of the rows that are not cut yet: what tags mean ends with their dictionaries.
#[derive(Debug, Default)]
pub(crate) struct Series {
    entries: Vec<Entry>,
    /// The heads of lines, end to end.
    bytes: Vec<u8>,
    /// What they mean, end to end.
    keys: Vec<Key>,
    index: HashTable<usize>,
    hasher: DefaultHashBuilder,
    /// The series of the last line.
    last: usize,
    hits: usize,
    /// None comes again.
    off: bool,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    bytes: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
    table: usize,
    /// The series that followed it the last time.
    next: usize,
}

/// A series that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub table: usize,
    pub keys: &'a [Key],
    /// Behind its last tag.
    pub end: usize,
}

impl Series {
    /// The series of the line that begins at `at`, if it is known.
    pub fn find(&mut self, buf: &[u8], at: usize) -> Option<Found<'_>> {
        if self.off || self.entries.is_empty() {
            return None;
        }
        let rest = buf.get(at..)?;
        let (index, length) = self.guess(rest).or_else(|| self.look_up(rest))?;
        if let Some(last) = self.entries.get_mut(self.last) {
            last.next = index;
        }
        self.last = index;
        self.hits += 1;
        let entry = self.entries.get(index)?;
        Some(Found { table: entry.table, keys: self.keys.get(entry.keys.clone())?, end: at + length })
    }

    /// Whoever reports does so in the same order again.
    fn guess(&self, rest: &[u8]) -> Option<(usize, usize)> {
        let index = self.entries.get(self.last)?.next;
        let head = self.bytes.get(self.entries.get(index)?.bytes.clone())?;
        (rest.starts_with(head) && rest.get(head.len()) == Some(&b' ')).then_some((index, head.len()))
    }

    fn look_up(&self, rest: &[u8]) -> Option<(usize, usize)> {
        let rest = rest.get(..HEAD_BYTES + 1).unwrap_or(rest);
        // The blank need not be the end of the tags, but then no series is known that ends there.
        let head = rest.get(..memchr::memchr2(b' ', b'\n', rest)?)?;
        let hash = self.hasher.hash_one(head);
        let same = |index: &usize| {
            self.entries.get(*index).is_some_and(|e| self.bytes.get(e.bytes.clone()) == Some(head))
        };
        self.index.find(hash, same).map(|index| (*index, head.len()))
    }

    /// Whether a series that is not known is worth being remembered.
    pub fn learns(&self) -> bool {
        !self.off && self.bytes.len() < ALL_BYTES
    }

    /// Remembers the series of a line that was read: its bytes, a blank behind them, and what they mean.
    pub fn learn(&mut self, head: &[u8], table: usize, keys: &[Key]) {
        if self.entries.len() >= ONCE && self.hits < self.entries.len() {
            self.off = true;
        }
        // With backslashes, a blank may be within it.
        if !self.learns()
            || keys.is_empty()
            || head.len() > HEAD_BYTES
            || memchr::memchr(b'\\', head).is_some()
        {
            return;
        }
        let hash = self.hasher.hash_one(head);
        let (bytes, known) = (self.bytes.len(), self.keys.len());
        self.bytes.extend_from_slice(head);
        self.keys.extend_from_slice(keys);
        let new = self.entries.len();
        if let Some(last) = self.entries.get_mut(self.last) {
            last.next = new;
        }
        self.last = new;
        self.entries.push(Entry {
            hash,
            bytes: bytes..self.bytes.len(),
            keys: known..self.keys.len(),
            table,
            next: 0,
        });
        let Self { entries, index, .. } = self;
        index.insert_unique(hash, new, |index| entries.get(*index).map_or(0, |entry| entry.hash));
    }

    /// Forgets all: their dictionaries have ended.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        self.keys.clear();
        self.index.clear();
        self.last = 0;
        self.hits = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(series: &mut Series, line: &str) -> Option<(usize, Vec<Key>, usize)> {
        series.find(line.as_bytes(), 0).map(|found| (found.table, found.keys.to_vec(), found.end))
    }

    #[test]
    fn series_are_found_by_all_of_their_bytes() {
        let mut series = Series::default();
        series.learn(b"t,a=x", 1, &[(0, 5)]);
        series.learn(b"t,a=xy", 1, &[(0, 6)]);
        series.learn(b"u,a=x,b=y", 2, &[(0, 0), (1, 3)]);
        // In any order, and again, so that both ways of finding them are gone.
        for _ in 0..3 {
            assert_eq!(found(&mut series, "t,a=xy v=1i"), Some((1, vec![(0, 6)], 6)));
            assert_eq!(found(&mut series, "u,a=x,b=y v=1i"), Some((2, vec![(0, 0), (1, 3)], 9)));
            assert_eq!(found(&mut series, "t,a=x  v=1i"), Some((1, vec![(0, 5)], 5)));
            assert_eq!(found(&mut series, "t,a=xy\n"), Some((1, vec![(0, 6)], 6)));
            for other in
                ["t,a=x,b=1 v=1i", "t,a=x\r\n", "t,a=x", "t,a=x\\ y v=1", "t,a= v=1", "t", "", " t,a=x v"]
            {
                assert_eq!(found(&mut series, other), None, "{other:?}");
            }
        }
        series.clear();
        assert_eq!(found(&mut series, "t,a=x v=1i"), None);
    }

    #[test]
    fn what_may_hold_a_blank_is_not_remembered() {
        let mut series = Series::default();
        series.learn(b"t,a=x\\ y", 1, &[(0, 5)]);
        series.learn(b"t", 1, &[]);
        series.learn(&[b"t,a=".as_slice(), &[b'x'; HEAD_BYTES]].concat(), 1, &[(0, 5)]);
        assert!(series.entries.is_empty());
    }

    #[test]
    fn what_does_not_come_again_is_not_remembered_for_ever() {
        let mut series = Series::default();
        for number in 0..2 * ONCE {
            series.learn(format!("t,a={number}").as_bytes(), 1, &[(0, 5)]);
        }
        assert_eq!((series.entries.len(), series.learns()), (ONCE, false));
        let mut series = Series::default();
        let long = "x".repeat(HEAD_BYTES - 20);
        for number in 0..2 * ALL_BYTES / HEAD_BYTES {
            series.learn(format!("t,a={long}{number}").as_bytes(), 1, &[(0, 5)]);
        }
        assert!((ALL_BYTES..ALL_BYTES + HEAD_BYTES).contains(&series.bytes.len()) && !series.learns());
        assert!(found(&mut series, &format!("t,a={long}7 v=1")).is_some(), "the first ones stay");
    }
}
