//! A table that lines name, and its rows that wait to be cut into a batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::error::ArrowError;
use tandem_types::check_name;

use crate::column::{Column, ticks_in, times};
use crate::error::{LineErrorKind, Step, Stop};
use crate::number::Number;
use crate::scan::{NAME, text_end, unescape};
use crate::settings::{KnownTable, Limits, Rules};
use crate::value::Value;

/// The designated timestamp of a table that has none yet.
const TIMESTAMP: &str = "timestamp";

#[derive(Debug)]
pub(crate) struct Table {
    pub name: String,
    /// The name as lines write it.
    pub raw: Box<[u8]>,
    known: Option<KnownTable>,
    rules: Rules,
    /// The column behind the one that was found there the last time.
    next_known: usize,
    /// Where row timestamps go.
    timestamp: String,
    unit: TimeUnit,
    zone: Option<Arc<str>>,
    /// One for each row.
    times: Vec<i64>,
    columns: Vec<Column>,
    by_raw: HashMap<Box<[u8]>, usize>,
    by_name: HashMap<String, usize>,
    /// How many names the line that is being read may leave in `by_raw`.
    most_names: usize,
    /// The first column of the last line.
    first: usize,
    /// Columns before the line that is being read.
    columns_before: usize,
    /// The columns that it has named so far.
    touched: Vec<usize>,
}

/// Where the reading of a line stands: the column of the last value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last(Option<usize>);

/// A column and what a row has in it: the key of a tag's text.
pub(crate) type Key = (usize, i32);

impl Last {
    /// Before the first value.
    pub const NONE: Self = Self(None);
}

impl Table {
    /// # Errors
    ///
    /// What is wrong with the table that exists.
    pub fn new(
        name: String,
        raw: Box<[u8]>,
        known: Option<KnownTable>,
        rules: Rules,
    ) -> Result<Self, String> {
        let designated = known.as_ref().and_then(|known| known.timestamp.clone());
        let timestamp = designated.unwrap_or_else(|| TIMESTAMP.to_owned());
        let field = known.as_ref().and_then(|known| known.columns.field_with_name(&timestamp).ok());
        let (unit, zone) = match field.map(Field::data_type) {
            None => (TimeUnit::Nanosecond, None),
            Some(DataType::Timestamp(unit, zone)) => (*unit, zone.clone()),
            Some(other) => {
                return Err(format!(
                    "the table has no designated timestamp, and its column {timestamp:?} is {other}"
                ));
            }
        };
        Ok(Self {
            name,
            raw,
            known,
            rules,
            next_known: 0,
            timestamp,
            unit,
            zone,
            times: Vec::new(),
            columns: Vec::new(),
            by_raw: HashMap::new(),
            by_name: HashMap::new(),
            most_names: 0,
            first: 0,
            columns_before: 0,
            touched: Vec::new(),
        })
    }

    pub fn rows(&self) -> usize {
        self.times.len()
    }

    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Names of columns that are remembered.
    pub fn names(&self) -> usize {
        self.by_raw.len()
    }

    /// So many more names may be remembered of the next line.
    pub fn allow_names(&mut self, more: usize) {
        self.most_names = self.by_raw.len().saturating_add(more);
    }

    /// Before the first value of a line.
    pub fn begin(&mut self) {
        self.columns_before = self.columns.len();
        self.touched.clear();
    }

    /// Where the value of the column named at `at` begins, if the column is the one that came here the last time.
    pub fn expected(&self, buf: &[u8], at: usize, last: Last) -> Option<(usize, usize)> {
        let index = last.0.map_or(Some(self.first), |last| self.columns.get(last).map(|c| c.next))?;
        let raw = &self.columns.get(index)?.raw;
        let end = at + raw.len();
        (buf.get(end) == Some(&b'=') && is_same(buf.get(at..end)?, raw)).then_some((index, end + 1))
    }

    /// Where the name at `at` ends. It is followed by `=`.
    pub fn name_end(buf: &[u8], at: usize) -> Step<usize> {
        let (end, _) = text_end(buf, at, NAME)?;
        match buf.get(end) {
            Some(b'=') if end == at => Err(Stop::malformed(at, "the name of the column is missing")),
            Some(b'=') => Ok(end),
            _ => Err(Stop::malformed(end, "the name of a column is followed by '='")),
        }
    }

    /// The column of that name, as the line writes it; made if there is none.
    pub fn column(&mut self, raw: &[u8], at: usize, value: &Value<'_>, limits: &Limits) -> Step<usize> {
        if let Some(index) = self.by_raw.get(raw) {
            return Ok(*index);
        }
        let name = name_of(raw, at)?;
        if let Some(index) = self.by_name.get(&name) {
            // Ways to write one name are few, unless somebody tries them all. A column that this line made may go again, under
            // the name that it was made by.
            let most = self.most_names.min(2 * limits.columns);
            if *index < self.columns_before && self.by_raw.len() < most {
                self.by_raw.insert(raw.into(), *index);
            }
            return Ok(*index);
        }
        let index = self.new_column(name, raw, at, value, limits)?;
        self.by_raw.insert(raw.into(), index);
        Ok(index)
    }

    fn new_column(
        &mut self,
        name: String,
        raw: &[u8],
        at: usize,
        value: &Value<'_>,
        limits: &Limits,
    ) -> Step<usize> {
        check_name("column", &name).map_err(|error| Stop::malformed(at, error.message()))?;
        if name == self.timestamp {
            let message =
                "the column is the table's designated timestamp, whose value stands at the end of the line";
            return Err(Stop::bad(LineErrorKind::Conflict, at, message).of_column(&name));
        }
        if self.columns.len() >= limits.columns {
            let message = format!("the lines name more than {} columns of the table", limits.columns);
            return Err(Stop::limit(at, message).of_column(&name));
        }
        if self.by_raw.len() >= self.most_names {
            let message =
                format!("the body names more than {} columns, of all tables together", limits.names);
            return Err(Stop::limit(at, message).of_column(&name));
        }
        let known = self.known_type(&name);
        if self.rules.fixed && known.is_none() {
            let why = match &self.known {
                Some(_) => "the table has no such column, and lines may not add one",
                None => "the table does not exist, and lines may not make it",
            };
            return Err(Stop::bad(LineErrorKind::Conflict, at, why).of_column(&name));
        }
        let index = self.columns.len();
        self.by_name.insert(name.clone(), index);
        let may_be_tag = self.rules.tags.as_ref().is_none_or(|tags| tags.contains(&name));
        self.columns.push(Column::new(name, raw.into(), known, may_be_tag, self.rules.fixed, value));
        Ok(index)
    }

    /// The type of a column of the table that exists.
    fn known_type(&mut self, name: &str) -> Option<DataType> {
        let fields = self.known.as_ref()?.columns.fields();
        let is = |field: &Arc<Field>| field.name() == name;
        // Most lines name columns in the table's order: looking for each among all takes long where there are thousands.
        let next = fields.get(self.next_known).is_some_and(is).then_some(self.next_known);
        let at = next.or_else(|| fields.iter().position(is))?;
        self.next_known = at + 1;
        fields.get(at).map(|field| field.data_type().clone())
    }

    /// Refuses a tag, named at `at`, that none of the table is.
    pub fn check_tag(&self, index: usize, at: usize, value: &Value<'_>) -> Step<()> {
        match self.columns.get(index) {
            Some(column) if !column.may_be_tag && matches!(value, Value::Tag { .. }) => {
                let why = "the tag is not in the primary key of the table, which cannot grow";
                Err(Stop::bad(LineErrorKind::Conflict, at, why).of_column(&column.name))
            }
            _ => Ok(()),
        }
    }

    /// The first column that the row must have a value of and has not.
    fn lacking(&self) -> Option<&str> {
        let row = self.times.len();
        let has = |name: &String| {
            let column = self.by_name.get(name).and_then(|index| self.columns.get(*index));
            column.is_some_and(|column| column.len() > row)
        };
        self.rules.required.iter().find(|name| !has(name)).map(String::as_str)
    }

    /// The value of a column in the row that is being read. The first one counts if there are several.
    pub fn push(
        &mut self,
        index: usize,
        value: &Value<'_>,
        at: usize,
        last: &mut Last,
        scratch: &mut Vec<u8>,
    ) -> Step<()> {
        self.follow(index, last);
        let row = self.times.len();
        let Some(column) = self.columns.get_mut(index) else { return Ok(()) };
        if column.len() > row {
            return Ok(());
        }
        self.touched.push(index);
        column.push(row, value, scratch).map_err(|why| {
            let stop = Stop::bad(LineErrorKind::Conflict, at, why.message);
            stop.of_types(why.types).of_column(&column.name)
        })
    }

    /// As [`push`](Self::push), of a number for a column of its kind whose rows before all have values; `false` if the column is
    /// none, and nothing is done.
    #[inline]
    pub fn push_number(&mut self, index: usize, number: Number, last: &mut Last) -> bool {
        let row = self.times.len();
        if !self.columns.get_mut(index).is_some_and(|column| column.push_number(row, number)) {
            return false;
        }
        self.touched.push(index);
        self.follow(index, last);
        true
    }

    /// The tags of a row, as [`keys`](Self::keys) told them of one before.
    pub fn push_keys(&mut self, keys: &[Key], last: &mut Last) {
        let row = self.times.len();
        for (index, key) in keys {
            if let Some(column) = self.columns.get_mut(*index) {
                column.push_key(row, *key);
                self.touched.push(*index);
            }
        }
        *last = Last(keys.last().map(|(index, _)| *index));
    }

    /// What the values of the row so far mean; `false` unless each is a tag whose text came before: one of a new text cannot have
    /// come, and may not come again.
    pub fn keys(&self, keys: &mut Vec<Key>) -> bool {
        keys.clear();
        for index in &self.touched {
            let Some(key) = self.columns.get(*index).and_then(Column::repeated_key) else { return false };
            keys.push((*index, key));
        }
        true
    }

    fn follow(&mut self, index: usize, last: &mut Last) {
        match last.0.and_then(|last| self.columns.get_mut(last)) {
            Some(previous) => previous.next = index,
            None => self.first = index,
        }
        *last = Last(Some(index));
    }

    /// Ends the row.
    pub fn end_row(&mut self, ticks: i64, unit: TimeUnit, at: usize) -> Step<()> {
        if let Some(name) = self.lacking() {
            let message = "the column is NOT NULL, and the line has no value of it";
            return Err(Stop::bad(LineErrorKind::Conflict, at, message).of_column(name));
        }
        let ticks = ticks_in(ticks, unit, self.unit).ok_or_else(|| {
            Stop::bad(LineErrorKind::Conflict, at, "the timestamp is beyond what the column can hold")
                .of_column(&self.timestamp)
        })?;
        self.times.push(ticks);
        Ok(())
    }

    /// Makes room for so many rows more.
    pub fn reserve(&mut self, rows: usize) {
        self.times.reserve(rows);
        self.columns.iter_mut().for_each(|column| column.reserve(rows));
    }

    /// Forgets what the line has left so far. What that costs is bounded by the line, not by the table.
    pub fn undo_row(&mut self) {
        let (rows, before) = (self.times.len(), self.columns_before);
        while self.columns.len() > before {
            if let Some(column) = self.columns.pop() {
                self.by_name.remove(&column.name);
                self.by_raw.remove(&column.raw);
            }
        }
        for index in self.touched.drain(..) {
            if let Some(column) = self.columns.get_mut(index) {
                column.truncate(rows);
            }
        }
    }

    /// Whether lines with a value of a wrong type are kept aside.
    pub fn diverts(&self) -> bool {
        self.rules.divert
    }

    /// Whether it exists.
    pub fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// The rows so far, with the columns that any of them has a value of. None are left.
    pub fn cut(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = self.times.len();
        let ticks = ScalarBuffer::from(std::mem::take(&mut self.times));
        let stamps = times(ticks, None, self.unit, self.zone.clone())?;
        let mut fields = vec![Field::new(&self.timestamp, stamps.data_type().clone(), false)];
        let mut arrays: Vec<ArrayRef> = vec![stamps];
        for column in &mut self.columns {
            if let Some(array) = column.finish(rows)? {
                fields.push(Field::new(&column.name, array.data_type().clone(), true));
                arrays.push(array);
            }
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
    }

    pub fn timestamp(&self) -> &str {
        &self.timestamp
    }
}

/// Whether two names are one. Most have 8 to 16 bytes, which calling a function for takes longer than comparing.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() || a.len() > 16 {
        return a == b;
    }
    match (a.first_chunk::<8>(), b.first_chunk::<8>(), a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(a), Some(b), Some(c), Some(d)) => a == b && c == d,
        _ => a.iter().zip(b).all(|(a, b)| a == b),
    }
}

/// A name without its backslashes.
pub(crate) fn name_of(raw: &[u8], at: usize) -> Step<String> {
    let mut name = Vec::with_capacity(raw.len());
    unescape(raw, &mut name);
    String::from_utf8(name).map_err(|_| Stop::malformed(at, "the name is no UTF-8 text"))
}
