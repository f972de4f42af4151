//! Texts that repeat: a dictionary and keys into it.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int32Array, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Texts end to end.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Where each ends, with a zero first.
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Default for Texts {
    fn default() -> Self {
        Self { ends: vec![0], bytes: Vec::new() }
    }
}

impl Texts {
    pub fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// `text` is UTF-8; its caller saw to it.
    pub fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        // What one batch holds is far below 2³¹ bytes.
        self.ends.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        let bound = |index: usize| usize::try_from(*self.ends.get(index)?).ok();
        self.bytes.get(bound(index)?..bound(index + 1)?)
    }

    pub fn truncate(&mut self, count: usize) {
        self.ends.truncate(count + 1);
        let end = self.ends.last().map_or(0, |end| usize::try_from(*end).unwrap_or_default());
        self.bytes.truncate(end);
    }

    pub fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<StringArray, ArrowError> {
        let Self { ends, bytes } = std::mem::take(self);
        StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), Buffer::from_vec(bytes), nulls)
    }
}

/// A column of tags.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    keys: Vec<i32>,
    /// The row that the newest text was made for.
    newest: Option<usize>,
    texts: Texts,
    index: HashTable<i32>,
    hasher: DefaultHashBuilder,
}

impl Tags {
    /// The key of a text that is there.
    pub fn find(&self, text: &[u8]) -> Option<i32> {
        // Neighbouring lines often say the same.
        if let Some(last) = self.keys.last()
            && self.text(*last) == Some(text)
        {
            return Some(*last);
        }
        let hash = self.hasher.hash_one(text);
        self.index.find(hash, |key| self.text(*key) == Some(text)).copied()
    }

    /// A text that [`find`](Self::find) does not know; it is UTF-8, its caller saw to it.
    pub fn insert(&mut self, text: &[u8]) -> i32 {
        let key = i32::try_from(self.texts.len()).unwrap_or(i32::MAX);
        self.newest = Some(self.keys.len());
        self.texts.push(text);
        let Self { texts, index, hasher, .. } = self;
        let hash_of = |key: &i32| {
            hasher.hash_one(usize::try_from(*key).ok().and_then(|key| texts.get(key)).unwrap_or_default())
        };
        index.insert_unique(hasher.hash_one(text), key, hash_of);
        key
    }

    fn text(&self, key: i32) -> Option<&[u8]> {
        self.texts.get(usize::try_from(key).ok()?)
    }

    /// The key of the last row, unless its text is new.
    pub fn repeated(&self) -> Option<i32> {
        let row = self.keys.len().checked_sub(1);
        self.keys.last().copied().filter(|_| self.newest != row)
    }

    pub fn push(&mut self, key: i32) {
        self.keys.push(key);
    }

    pub fn reserve(&mut self, rows: usize) {
        self.keys.reserve(rows);
    }

    pub fn push_nulls(&mut self, count: usize) {
        self.keys.resize(self.keys.len() + count, 0);
    }

    /// Texts of the rows that go stay, unused.
    pub fn truncate(&mut self, rows: usize) {
        self.keys.truncate(rows);
    }

    pub fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
        self.index.clear();
        self.newest = None;
        let keys = Int32Array::try_new(ScalarBuffer::from(std::mem::take(&mut self.keys)), nulls)?;
        let texts = self.texts.finish(None)?;
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(texts))?))
    }
}
