//! Bodies in pieces, lines out of them, batches at the end.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use tandem_types::{Error, Result, check_name};

use crate::error::{Diverted, LineError, LineErrorKind, Step, Stop};
use crate::line::{Head, read_row};
use crate::scan::{TABLE, line_end, skip_blanks, text_end};
use crate::series::Series;
use crate::settings::{Catalog, Settings};
use crate::table::{Key, Table, name_of};

/// Bytes that a column's place in a row takes, about.
const PLACE_BYTES: usize = 8;

/// Once a table has so many rows, they tell how many there will be.
const SAMPLE_ROWS: usize = 64;

/// Bytes that a column takes beside its rows, about.
const NAME_BYTES: u64 = 512;

/// Rows for one table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableBatch {
    pub table: String,
    /// The column that has the row timestamps: the designated timestamp of a table that is yet to be made.
    pub timestamp: String,
    /// Row timestamps first, then the columns in the order in which lines named them.
    pub batch: RecordBatch,
}

/// Turns the bytes of one body into batches.
pub struct Parser {
    settings: Settings,
    catalog: Arc<dyn Catalog>,
    tables: Vec<Table>,
    by_raw: HashMap<Box<[u8]>, usize>,
    by_name: HashMap<String, usize>,
    /// Names of columns that all tables together remember.
    names: usize,
    /// The table of the last line.
    current: usize,
    /// A line that is not whole yet, with what follows it.
    pending: Vec<u8>,
    /// It is tried again once that much is there: not for each little piece.
    retry_at: usize,
    /// It was not tried with a line end yet.
    untried: bool,
    /// The rest of a refused line is being passed over.
    skipping: bool,
    lines: u64,
    rows: u64,
    all_stamped: bool,
    /// What rows that are not cut yet take, about.
    held: usize,
    /// Bytes of the body that were read, and those of them before the last cut.
    consumed: usize,
    cut_at: usize,
    ready: Vec<TableBatch>,
    errors: Vec<LineError>,
    failed: u64,
    conflicts: BTreeSet<String>,
    diverted: Vec<Diverted>,
    series: Series,
    /// What the tags of the line that is read mean.
    keys: Vec<Key>,
    scratch: Vec<u8>,
}

impl Parser {
    pub fn new(settings: Settings, catalog: Arc<dyn Catalog>) -> Self {
        Self {
            settings,
            catalog,
            tables: Vec::new(),
            by_raw: HashMap::new(),
            by_name: HashMap::new(),
            names: 0,
            current: 0,
            pending: Vec::new(),
            retry_at: 0,
            untried: false,
            skipping: false,
            lines: 0,
            rows: 0,
            all_stamped: true,
            held: 0,
            consumed: 0,
            cut_at: 0,
            ready: Vec::new(),
            errors: Vec::new(),
            failed: 0,
            conflicts: BTreeSet::new(),
            diverted: Vec::new(),
            series: Series::default(),
            keys: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The next bytes of the body.
    ///
    /// # Errors
    ///
    /// `Internal` only: what is wrong with lines is in [`errors`](Self::errors).
    pub fn feed(&mut self, piece: &[u8]) -> Result<()> {
        let mut piece = piece;
        // A line that the last piece cut mostly ends with the next line end: what follows need not be copied behind it.
        if self.untried
            && let Some(end) = line_end(piece, 0)
        {
            let (head, rest) = piece.split_at(end);
            piece = rest;
            self.untried = false;
            self.pending.extend_from_slice(head);
            self.read_pending()?;
        }
        if self.pending.is_empty() {
            let used = self.read(piece)?;
            self.consumed += used;
            self.keep(piece.get(used..).unwrap_or_default());
            return Ok(());
        }
        self.pending.extend_from_slice(piece);
        if self.pending.len() < self.retry_at && self.pending.len() <= self.settings.limits.line_bytes {
            return Ok(());
        }
        self.read_pending()
    }

    /// The body has ended; a last line need not have a line end.
    ///
    /// # Errors
    ///
    /// As [`feed`](Self::feed).
    pub fn finish(&mut self) -> Result<()> {
        if !self.pending.is_empty() && self.pending.last() != Some(&b'\n') {
            self.pending.push(b'\n');
        }
        self.read_pending()?;
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            self.lines += 1;
            self.refuse(Stop::malformed(rest.len(), "the body ends within the line"), 0, &rest);
        }
        self.cut()
    }

    /// Batches that are complete: all that there will be after [`finish`](Self::finish), before it those that had to make
    /// room.
    pub fn take(&mut self) -> Vec<TableBatch> {
        std::mem::take(&mut self.ready)
    }

    /// Lines that are kept aside, in order; as [`take`](Self::take), they make room.
    pub fn take_diverted(&mut self) -> Vec<Diverted> {
        std::mem::take(&mut self.diverted)
    }

    /// The first errors.
    pub fn errors(&self) -> &[LineError] {
        &self.errors
    }

    /// Lines that were refused.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Tables that lines were refused for, listed or not, whose values do not go into them: as many as one body may name.
    pub fn conflicts(&self) -> &BTreeSet<String> {
        &self.conflicts
    }

    /// Bytes that it holds whatever becomes of the rows, about.
    pub fn held(&self) -> u64 {
        self.names as u64 * NAME_BYTES
    }

    /// Whether each row so far came with a timestamp of its own.
    pub fn all_stamped(&self) -> bool {
        self.all_stamped
    }

    /// Rows that were read, in batches or not yet.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn keep(&mut self, rest: &[u8]) {
        self.pending.extend_from_slice(rest);
        self.untried = !rest.is_empty();
        self.retry_at = self.pending.len() + self.pending.len() / 4 + 1;
    }

    fn read_pending(&mut self) -> Result<()> {
        let mut buf = std::mem::take(&mut self.pending);
        let used = self.read(&buf)?;
        self.consumed += used;
        buf.drain(..used);
        self.untried = !buf.is_empty() && (used > 0 || self.untried);
        self.retry_at = buf.len() + buf.len() / 4 + 1;
        self.pending = buf;
        Ok(())
    }

    /// Reads all lines that are whole; how many bytes they take.
    fn read(&mut self, buf: &[u8]) -> Result<usize> {
        let mut at = 0;
        while at < buf.len() {
            if self.skipping {
                let Some(next) = line_end(buf, at) else { return Ok(buf.len()) };
                self.skipping = false;
                at = next;
                continue;
            }
            // Further than that no line may look.
            let bound = buf.len().min(at.saturating_add(self.settings.limits.line_bytes));
            let visible = buf.get(..bound).unwrap_or(buf);
            let stop = match self.line(visible, at) {
                Ok(next) => {
                    self.lines += 1;
                    at = next;
                    None
                }
                Err(stop) => Some(stop),
            };
            if let Some(stop) = stop {
                let (stop, next) = match stop.line_end(visible, at) {
                    Some(next) => (stop, Some(next)),
                    // What was looked at for its end is not looked at again for lines: that could go on for ever.
                    None if bound < buf.len() => (self.too_long(at), line_end(buf, bound)),
                    // Refused once it is there to its end, so that nothing depends on how the body was cut.
                    None => break,
                };
                self.lines += 1;
                if !self.divert(&stop, visible.get(at..next.unwrap_or(bound)).unwrap_or_default()) {
                    self.refuse(stop, at, visible);
                }
                self.skipping = next.is_none();
                // Of a line that is too long, what was looked at: where it ends may not be seen yet.
                self.held += next.unwrap_or(bound).min(bound) - at;
                at = next.unwrap_or(buf.len());
            }
            if self.held > self.settings.limits.batch_bytes {
                self.cut()?;
                self.cut_at = self.consumed + at;
            }
        }
        Ok(at)
    }

    fn too_long(&self, at: usize) -> Stop {
        Stop::limit(at, format!("the line is longer than {} bytes", self.settings.limits.line_bytes))
    }

    /// Keeps a line aside, if its table wants that.
    fn divert(&mut self, stop: &Stop, line: &[u8]) -> bool {
        let Stop::Bad(fault) = stop else { return false };
        let (Some(table), Some(types)) = (&fault.table, &fault.types) else { return false };
        // A table that only this line has named is forgotten by now.
        let divert = match self.by_name.get(table).and_then(|index| self.tables.get(*index)) {
            Some(table) => table.diverts(),
            None => self.catalog.rules(table).divert,
        };
        if divert {
            let text = String::from_utf8_lossy(line);
            let (before, last) = text.trim_end().rsplit_once(' ').unwrap_or_default();
            let stamped = last.trim_end_matches(['t', 'n']).parse::<i64>().is_ok();
            // With a backslash before it, the blank is one of a tag's text.
            self.all_stamped &= stamped && !before.ends_with('\\');
            self.diverted.push(Diverted {
                table: table.clone(),
                column: fault.column.clone().unwrap_or_default(),
                expected: types.expected.clone(),
                got: types.got.clone(),
                line: text.trim_end_matches(['\r', '\n']).to_owned(),
            });
        }
        divert
    }

    fn refuse(&mut self, stop: Stop, start: usize, buf: &[u8]) {
        let Stop::Bad(fault) = stop else { return };
        self.failed += 1;
        if let Some(table) = &fault.table
            && fault.kind == LineErrorKind::Conflict
            && self.conflicts.len() < self.settings.limits.tables
            && !self.conflicts.contains(table)
        {
            self.conflicts.insert(table.clone());
        }
        if self.errors.len() < self.settings.limits.errors {
            let text = buf.get(start..).unwrap_or_default();
            self.errors.push(LineError::new(*fault, self.lines, start, text));
        }
    }

    /// Reads the line at `start`; where the next one begins.
    fn line(&mut self, buf: &[u8], start: usize) -> Step<usize> {
        let at = skip_blanks(buf, start);
        match buf.get(at..).unwrap_or_default() {
            [] => return Err(Stop::Open),
            [b'\n', ..] => return Ok(at + 1),
            [b'\r', b'\n', ..] => return Ok(at + 2),
            [b'\r'] => return Err(Stop::Open),
            [b'#', ..] => {
                return line_end(buf, at).ok_or(Stop::Open);
            }
            _ => {}
        }
        let before = self.tables.len();
        let known = self.series.find(buf, at).map(|found| (found.table, Head::Known(found.keys), found.end));
        let (index, head, end) = match known {
            Some(known) => known,
            None => {
                let (index, end) = self.table(buf, at)?;
                let learn = self.series.learns();
                (index, Head::New(learn.then_some(&mut self.keys)), end)
            }
        };
        let Some(table) = self.tables.get_mut(index) else { return Err(Stop::Open) };
        let names = table.names();
        table.allow_names(self.settings.limits.names.saturating_sub(self.names));
        let read = read_row(table, buf, end, head, &self.settings, &mut self.scratch);
        match read {
            Ok(row) => {
                self.names += table.names() - names;
                self.current = index;
                self.all_stamped &= row.stamped;
                self.rows += 1;
                self.held += row.next - start + PLACE_BYTES * (table.columns() + 1);
                if table.rows() == SAMPLE_ROWS {
                    table.reserve(to_come(&self.settings, self.consumed + row.next, self.cut_at, self.held));
                }
                if row.learnt
                    && let Some(head) = buf.get(at..row.head)
                {
                    self.series.learn(head, index, &self.keys);
                }
                Ok(row.next)
            }
            Err(stop) => {
                // What is wrong with the line as a whole is not about a table.
                let stop = if stop.is_at(start) { stop } else { stop.of_table(&table.name) };
                table.undo_row();
                // Other ways to write a name stay.
                let more = table.names() - names;
                // One that exists may stay: it makes nothing, and asking for it is dear.
                if index >= before && !table.is_known() {
                    self.forget_table();
                } else {
                    self.names += more;
                }
                Err(stop)
            }
        }
    }

    /// The table that is named at `at`, made if lines did not name it before, and where its name ends.
    fn table(&mut self, buf: &[u8], at: usize) -> Step<(usize, usize)> {
        if let Some(table) = self.tables.get(self.current) {
            let end = at + table.raw.len();
            if buf.get(at..end) == Some(&*table.raw) && matches!(buf.get(end), Some(b',' | b' ')) {
                return Ok((self.current, end));
            }
        }
        let (end, _) = text_end(buf, at, TABLE)?;
        let raw = buf.get(at..end).unwrap_or_default();
        if let Some(index) = self.by_raw.get(raw) {
            return Ok((*index, end));
        }
        if raw.is_empty() {
            return Err(Stop::malformed(at, "the name of the table is missing"));
        }
        if buf.get(end) == Some(&b'\n') {
            return Err(Stop::malformed(end, "the line has no values"));
        }
        let name = name_of(raw, at)?;
        let index = match self.by_name.get(&name) {
            Some(index) => *index,
            None => self.new_table(name, raw, at)?,
        };
        if self.by_raw.len() < 2 * self.settings.limits.tables {
            self.by_raw.insert(raw.into(), index);
        }
        Ok((index, end))
    }

    fn new_table(&mut self, name: String, raw: &[u8], at: usize) -> Step<usize> {
        check_name("table", &name).map_err(|error| Stop::malformed(at, error.message()))?;
        if self.tables.len() >= self.settings.limits.tables {
            let message = format!("the body names more than {} tables", self.settings.limits.tables);
            return Err(Stop::limit(at, message).of_table(&name));
        }
        let (known, rules) = (self.catalog.table(&name), self.catalog.rules(&name));
        let table = Table::new(name.clone(), raw.into(), known, rules)
            .map_err(|why| Stop::bad(LineErrorKind::Conflict, at, why).of_table(&name))?;
        self.tables.push(table);
        self.by_name.insert(name, self.tables.len() - 1);
        Ok(self.tables.len() - 1)
    }

    /// The newest table, which no line before has named.
    fn forget_table(&mut self) {
        if let Some(table) = self.tables.pop() {
            self.by_name.remove(&table.name);
            self.by_raw.remove(&table.raw);
        }
    }

    /// Makes batches of all rows that wait.
    fn cut(&mut self) -> Result<()> {
        self.held = 0;
        self.series.clear();
        for table in &mut self.tables {
            let empty = table.rows() == 0;
            // Without rows as well: refused lines leave texts behind.
            let batch = table.cut().map_err(|e| {
                Error::internal(format!("rows for table {:?} make no batch: {e}", table.name))
            })?;
            if !empty {
                let (name, timestamp) = (table.name.clone(), table.timestamp().to_owned());
                self.ready.push(TableBatch { table: name, timestamp, batch });
            }
        }
        Ok(())
    }
}

/// Rows that a table will have before the next cut, and has not yet, if the rest of the body is like what came since the last one.
/// `at`: where in the body its last row ends; `held`: as the parser's.
fn to_come(settings: &Settings, at: usize, cut_at: usize, held: usize) -> usize {
    let body = settings.body_bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let rows = |left: usize, sample: usize| SAMPLE_ROWS.saturating_mul(left) / sample.max(1);
    let until_end = rows(body.saturating_sub(at), at.saturating_sub(cut_at));
    until_end.min(rows(settings.limits.batch_bytes, held))
}
