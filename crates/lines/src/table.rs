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
use crate::scan::{NAME, text_end, unescape};
use crate::settings::{KnownTable, Limits};
use crate::value::Value;

/// The designated timestamp of a table that has none yet.
const TIMESTAMP: &str = "timestamp";

#[derive(Debug)]
pub(crate) struct Table {
    pub name: String,
    /// The name as lines write it.
    pub raw: Box<[u8]>,
    known: Option<KnownTable>,
    /// Where row timestamps go.
    timestamp: String,
    unit: TimeUnit,
    zone: Option<Arc<str>>,
    /// One for each row.
    times: Vec<i64>,
    columns: Vec<Column>,
    by_raw: HashMap<Box<[u8]>, usize>,
    by_name: HashMap<String, usize>,
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

impl Last {
    /// Before the first value.
    pub const NONE: Self = Self(None);
}

impl Table {
    /// # Errors
    ///
    /// What is wrong with the table that exists.
    pub fn new(name: String, raw: Box<[u8]>, known: Option<KnownTable>) -> Result<Self, String> {
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
            timestamp,
            unit,
            zone,
            times: Vec::new(),
            columns: Vec::new(),
            by_raw: HashMap::new(),
            by_name: HashMap::new(),
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
        (buf.get(at..end)? == &**raw && buf.get(end) == Some(&b'=')).then_some((index, end + 1))
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
            if *index < self.columns_before && self.by_raw.len() < 2 * limits.columns {
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
        let known = self.known.as_ref().and_then(|known| known.columns.field_with_name(&name).ok());
        let known = known.map(|field| field.data_type().clone());
        let index = self.columns.len();
        self.by_name.insert(name.clone(), index);
        self.columns.push(Column::new(name, raw.into(), known, value));
        Ok(index)
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
        match last.0.and_then(|last| self.columns.get_mut(last)) {
            Some(previous) => previous.next = index,
            None => self.first = index,
        }
        *last = Last(Some(index));
        let row = self.times.len();
        let Some(column) = self.columns.get_mut(index) else { return Ok(()) };
        if column.len() > row {
            return Ok(());
        }
        self.touched.push(index);
        column
            .push(row, value, scratch)
            .map_err(|why| Stop::bad(LineErrorKind::Conflict, at, why).of_column(&column.name))
    }

    /// Ends the row.
    pub fn end_row(&mut self, ticks: i64, unit: TimeUnit, at: usize) -> Step<()> {
        let ticks = ticks_in(ticks, unit, self.unit).ok_or_else(|| {
            Stop::bad(LineErrorKind::Conflict, at, "the timestamp is beyond what the column can hold")
                .of_column(&self.timestamp)
        })?;
        self.times.push(ticks);
        Ok(())
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

/// A name without its backslashes.
pub(crate) fn name_of(raw: &[u8], at: usize) -> Step<String> {
    let mut name = Vec::with_capacity(raw.len());
    unescape(raw, &mut name);
    String::from_utf8(name).map_err(|_| Stop::malformed(at, "the name is no UTF-8 text"))
}
