//! A set of keys.

use arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder};
use arrow::datatypes::DataType;
use tandem_types::Result;

use crate::key_table::KeyTable;

/// Which keys there are. Text in any encoding (`Utf8`, views, dictionaries) is one type, other types must be the same; null
/// equals null.
#[derive(Debug)]
pub struct KeySet {
    table: KeyTable,
}

impl KeySet {
    /// An empty set of keys with columns of these types; at least one.
    ///
    /// # Errors
    ///
    /// `Unsupported` if values of a type cannot be compared.
    pub fn new(types: &[DataType]) -> Result<Self> {
        Ok(Self { table: KeyTable::new(types, true)? })
    }

    /// Puts in the key of each row. `keys`: one array per column, of one length.
    pub fn insert(&mut self, keys: &[ArrayRef]) -> Result<()> {
        self.table.learn(keys).map(drop)
    }

    /// For each row whether its key is in the set; never null.
    pub fn contains(&self, keys: &[ArrayRef]) -> Result<BooleanArray> {
        let rows = keys.first().map_or(0, |k| k.len());
        let mut found = BooleanBufferBuilder::new(rows);
        found.append_n(rows, false);
        self.table.probe(keys, |row, _| found.set_bit(row, true))?;
        Ok(BooleanArray::new(found.finish(), None))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it holds, about.
    pub fn memory(&self) -> usize {
        self.table.memory()
    }
}
