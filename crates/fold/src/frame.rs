//! The rows that expressions are evaluated over: a batch, or some rows of it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use arrow::array::{ArrayRef, UInt32Array};
use tandem_types::{ColumnId, Error, Result};

use crate::node::Rows;

/// A batch: its arrays by field, and which column each is.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) ids: &'a [ColumnId],
    pub(crate) columns: &'a [ArrayRef],
    pub(crate) rows: usize,
}

/// The field of a column that a mutation reads.
pub(crate) fn field_of(ids: &[ColumnId], id: ColumnId) -> Result<usize> {
    ids.iter().position(|known| *known == id).ok_or_else(|| {
        Error::internal(format!("a mutation reads column {id}, which is not among the rows' columns"))
    })
}

impl Rows for Frame<'_> {
    fn len(&self) -> usize {
        self.rows
    }

    fn column(&self, id: ColumnId) -> Result<ArrayRef> {
        let column = self.columns.get(field_of(self.ids, id)?).cloned();
        column.ok_or_else(|| Error::internal(format!("the rows lack column {id}")))
    }
}

/// Gives a column's values of some rows.
pub(crate) type Fetch<'a> = &'a dyn Fn(ColumnId, &UInt32Array) -> Result<ArrayRef>;

/// Some rows, whose values are fetched when they are first wanted.
pub(crate) struct Picked<'a> {
    fetch: Fetch<'a>,
    rows: UInt32Array,
    fetched: RefCell<BTreeMap<ColumnId, ArrayRef>>,
}

impl<'a> Picked<'a> {
    pub(crate) fn new(rows: &[u32], fetch: Fetch<'a>) -> Self {
        Self { fetch, rows: UInt32Array::from(rows.to_vec()), fetched: RefCell::default() }
    }
}

impl Rows for Picked<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn column(&self, id: ColumnId) -> Result<ArrayRef> {
        if let Some(known) = self.fetched.borrow().get(&id) {
            return Ok(known.clone());
        }
        let column = (self.fetch)(id, &self.rows)?;
        self.fetched.borrow_mut().insert(id, column.clone());
        Ok(column)
    }
}
