//! Keys of one or more columns, numbered from 0 in the order in which they came.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tandem_types::{Error, Result};

use crate::broken;
use crate::code::{Coder, Codes, UNKNOWN};
use crate::common::plain;
use crate::hash::{hash_words, seed};

/// Tables up to this many keys carry a filter that fits the processor's nearest cache.
const FILTERED_KEYS_MAX: usize = 4096;
/// Bits of the filter per key: about one in sixteen of the strangers passes.
const FILTER_BITS_PER_KEY: usize = 16;

/// See the module. A key is a row of words: one per column, and, where nulls are keys as well, bits that say which of
/// them are null.
#[derive(Debug)]
pub(crate) struct KeyTable {
    coders: Vec<Coder>,
    /// Whether nulls equal nulls; else they equal nothing, and cannot be put in.
    nulls: bool,
    width: usize,
    /// How many keys there are.
    len: usize,
    seed: u64,
    table: HashTable<Slot>,
    /// `width` words per key.
    keys: Vec<u64>,
    /// Of a finished table: bits of the hashes that are in it. A power of two of words, or none.
    filter: Vec<u64>,
    /// Of a finished table with one column of words: the least and the greatest, as signed numbers.
    range: Option<(i64, i64)>,
}

/// A key's number, and half of its hash: growing and most comparisons need not look at the key itself.
#[derive(Clone, Copy, Debug)]
struct Slot {
    half: u32,
    number: u32,
}

impl Slot {
    fn half(hash: u64) -> u32 {
        (hash ^ (hash >> 32)) as u32
    }

    /// What the table goes by: it takes its places from the low bits and its tags from the high ones.
    fn spread(half: u32) -> u64 {
        u64::from(half) << 32 | u64::from(half)
    }
}

impl KeyTable {
    pub(crate) fn new(types: &[DataType], nulls: bool) -> Result<Self> {
        let coders = types.iter().map(Coder::new).collect::<Result<Vec<_>>>()?;
        let width = types.len() + if nulls { types.len().div_ceil(64) } else { 0 };
        Ok(Self {
            coders,
            nulls,
            width,
            seed: seed(),
            len: 0,
            table: HashTable::new(),
            keys: Vec::new(),
            filter: Vec::new(),
            range: None,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that it holds, about.
    pub(crate) fn memory(&self) -> usize {
        let coders: usize = self.coders.iter().map(Coder::memory).sum();
        coders + self.keys.capacity() * 8 + self.table.allocation_size()
    }

    /// The number of each row's key; new keys are put in.
    pub(crate) fn learn(&mut self, columns: &[ArrayRef]) -> Result<Vec<u32>> {
        self.check(columns)?;
        self.filter.clear();
        self.range = None;
        let plain = match (self.numbering(), columns) {
            // A dictionary may hold values that no row has: they are not to be numbered.
            (Some(_), [only]) => Some(cast(only, &plain(only.data_type())).map_err(broken)?),
            _ => None,
        };
        let columns = plain.as_ref().map_or(columns, std::slice::from_ref);
        let codes: Vec<Codes> = self
            .coders
            .iter_mut()
            .zip(columns)
            .map(|(coder, column)| coder.learn(column))
            .collect::<Result<_>>()?;
        if !self.nulls && codes.iter().any(|c| c.nulls.is_some()) {
            return Err(Error::damaged("a row has a null in its key"));
        }
        let rows = columns.first().map_or(0, |c| c.len());
        let words = self.words(codes, rows);
        if let Some(coder) = self.numbering() {
            self.len = coder.numbered();
            return words.into_iter().map(|word| u32::try_from(word).map_err(|_| too_many())).collect();
        }
        let (seed, width) = (self.seed, self.width.max(1));
        let mut numbers = Vec::with_capacity(rows);
        for words in words.chunks_exact(width) {
            let Self { table, keys, .. } = self;
            let next = keys.len() / width;
            let half = Slot::half(hash_words(words, seed));
            let same = |slot: &Slot| slot.half == half && key(keys, width, slot.number) == words;
            match table.entry(Slot::spread(half), same, |slot| Slot::spread(slot.half)) {
                Entry::Occupied(entry) => numbers.push(entry.get().number),
                Entry::Vacant(entry) => {
                    let number = u32::try_from(next).ok().filter(|n| *n != u32::MAX);
                    let number = number.ok_or_else(too_many)?;
                    entry.insert(Slot { half, number });
                    keys.extend_from_slice(words);
                    numbers.push(number);
                }
            }
        }
        self.len = self.table.len();
        Ok(numbers)
    }

    /// The coder whose numbers are the table's: that of a single column which numbers its values itself.
    fn numbering(&self) -> Option<&Coder> {
        match self.coders.as_slice() {
            [only] if self.width == 1 && !only.is_word() => Some(only),
            _ => None,
        }
    }

    /// Makes lookups cheaper; what is learnt later undoes it.
    pub(crate) fn finish(&mut self) {
        let width = self.width.max(1);
        let keys = self.keys.len() / width;
        if keys > 0 && keys <= FILTERED_KEYS_MAX {
            let words = (keys * FILTER_BITS_PER_KEY / 64).next_power_of_two();
            let mut filter = vec![0u64; words];
            for words in self.keys.chunks_exact(width) {
                let (word, bit) = filter_bit(hash_words(words, self.seed), filter.len());
                if let Some(word) = filter.get_mut(word) {
                    *word |= bit;
                }
            }
            self.filter = filter;
        }
        if let ([coder], 1) = (self.coders.as_slice(), self.width)
            && coder.is_word()
        {
            self.range = span(&self.keys);
        }
    }

    /// Calls `found(row, number)` for each row, in order, whose key is in the table.
    pub(crate) fn probe(&self, columns: &[ArrayRef], mut found: impl FnMut(usize, u32)) -> Result<()> {
        self.check(columns)?;
        if self.len == 0 {
            return Ok(());
        }
        if let [column] = columns
            && let Some(dictionary) = column.as_any_dictionary_opt()
            && !dictionary.values().is_empty()
            && dictionary.values().len() <= column.len()
            && column.null_count() + dictionary.values().null_count() == 0
        {
            // Each distinct value is looked up once, and mostly none is found.
            let mut numbers: Vec<Option<u32>> = Vec::new();
            self.probe_rows(std::slice::from_ref(dictionary.values()), |value, number| {
                numbers.resize(value + 1, None);
                if let Some(last) = numbers.last_mut() {
                    *last = Some(number);
                }
            })?;
            if !numbers.is_empty() {
                for (row, value) in dictionary.normalized_keys().into_iter().enumerate() {
                    if let Some(Some(number)) = numbers.get(value) {
                        found(row, *number);
                    }
                }
            }
            return Ok(());
        }
        self.probe_rows(columns, found)
    }

    fn probe_rows(&self, columns: &[ArrayRef], mut found: impl FnMut(usize, u32)) -> Result<()> {
        let codes: Vec<Codes> = self
            .coders
            .iter()
            .zip(columns)
            .map(|(coder, column)| coder.find(column))
            .collect::<Result<_>>()?;
        let mut nulls = None;
        if !self.nulls {
            for code in &codes {
                nulls = arrow::buffer::NullBuffer::union(nulls.as_ref(), code.nulls.as_ref());
            }
        }
        let rows = columns.first().map_or(0, |c| c.len());
        let words = self.words(codes, rows);
        if let Some((low, high)) = self.range
            && span(&words).is_none_or(|(least, greatest)| greatest < low || least > high)
        {
            return Ok(());
        }
        let is_valid = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row));
        if self.numbering().is_some() {
            for (row, word) in words.into_iter().enumerate() {
                if word != UNKNOWN && is_valid(row) {
                    found(row, word as u32);
                }
            }
            return Ok(());
        }
        let width = self.width.max(1);
        for (row, words) in words.chunks_exact(width).enumerate() {
            let hash = hash_words(words, self.seed);
            if !self.filter.is_empty() {
                let (word, bit) = filter_bit(hash, self.filter.len());
                if self.filter.get(word).is_some_and(|w| w & bit == 0) {
                    continue;
                }
            }
            let half = Slot::half(hash);
            let same = |slot: &Slot| slot.half == half && key(&self.keys, width, slot.number) == words;
            if let Some(slot) = self.table.find(Slot::spread(half), same)
                && is_valid(row)
            {
                found(row, slot.number);
            }
        }
        Ok(())
    }

    fn check(&self, columns: &[ArrayRef]) -> Result<()> {
        let rows = columns.first().map_or(0, |c| c.len());
        if columns.is_empty() || columns.len() != self.coders.len() || columns.iter().any(|c| c.len() != rows)
        {
            let (found, expected) = (columns.len(), self.coders.len());
            return Err(Error::internal(format!("{found} columns of keys were compared with {expected}")));
        }
        Ok(())
    }

    /// `width` words per row.
    fn words(&self, mut codes: Vec<Codes>, rows: usize) -> Vec<u64> {
        if self.width == 1 {
            return codes.pop().map(|c| c.values).unwrap_or_default();
        }
        let mut words = vec![0u64; rows * self.width];
        for (at, column) in codes.iter().enumerate() {
            let nulls = column.nulls.as_ref().filter(|_| self.nulls);
            let mark = self.coders.len() + at / 64;
            let rows = words.chunks_exact_mut(self.width).zip(&column.values);
            for (row, (words, code)) in rows.enumerate() {
                let null = nulls.is_some_and(|n| n.is_null(row));
                if null {
                    if let Some(mark) = words.get_mut(mark) {
                        *mark |= 1 << (at % 64);
                    }
                } else if let Some(word) = words.get_mut(at) {
                    *word = *code;
                }
            }
        }
        words
    }
}

fn too_many() -> Error {
    Error::overloaded("more than 2^32 keys at once")
}

fn key(keys: &[u64], width: usize, number: u32) -> &[u64] {
    let start = number as usize * width;
    keys.get(start..start + width).unwrap_or(&[])
}

/// Which word of a filter, and which bit in it, a hash sets. Not the bits that the table itself goes by.
fn filter_bit(hash: u64, words: usize) -> (usize, u64) {
    let bits = hash >> 24;
    (((bits >> 6) as usize) & (words - 1), 1 << (bits & 63))
}

fn span(words: &[u64]) -> Option<(i64, i64)> {
    let first = *words.first()? as i64;
    Some(words.iter().fold((first, first), |(low, high), word| {
        let word = *word as i64;
        (low.min(word), high.max(word))
    }))
}
