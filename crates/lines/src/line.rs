//! One line, from its first value to its end.

use crate::error::{Step, Stop};
use crate::scan::{NUMBER, TEXT, plain_end, skip_blanks, skip_return, text_end};
use crate::settings::Settings;
use crate::table::{Last, Table};
use crate::value::{Value, value};

/// Reads what follows the table's name at `at` into a row of the table; where the next line
/// begins, and whether this one has a timestamp.
pub(crate) fn read_row(
    table: &mut Table,
    buf: &[u8],
    at: usize,
    settings: &Settings,
    scratch: &mut Vec<u8>,
) -> Step<(usize, bool)> {
    table.begin();
    let mut row = Row { table, buf, settings, scratch, last: Last::NONE, values: false };
    let at = row.tags(at)?;
    let at = row.fields(skip_blanks(buf, at))?;
    row.end(at)
}

struct Row<'a> {
    table: &'a mut Table,
    buf: &'a [u8],
    settings: &'a Settings,
    scratch: &'a mut Vec<u8>,
    last: Last,
    /// Whether there was a tag or a field.
    values: bool,
}

impl Row<'_> {
    /// From the comma, if there is one, to the blank behind the last tag.
    fn tags(&mut self, mut at: usize) -> Step<usize> {
        let buf = self.buf;
        loop {
            match buf.get(at).ok_or(Stop::Open)? {
                b',' => at += 1,
                _ => return Ok(at),
            }
            let (expected, from) = self.name(at)?;
            let (end, escaped) = text_end(buf, from, TEXT)?;
            let raw = buf.get(from..skip_back(buf, from, end)).unwrap_or_default();
            // A tag without a text is as good as none.
            let tag = if raw.is_empty() { Value::Null } else { Value::Tag { raw, escaped } };
            self.put(expected, at, from, &tag)?;
            at = end;
        }
    }

    /// From the first field, if there is one, to the blank or line end behind the last.
    fn fields(&mut self, mut at: usize) -> Step<usize> {
        let buf = self.buf;
        let first = *buf.get(at).ok_or(Stop::Open)?;
        if self.values && (matches!(first, b'\n' | b'\r') || self.is_number(at)?) {
            return Ok(at);
        }
        loop {
            let (expected, from) = self.name(at)?;
            let (value, end) = value(buf, from).map_err(|stop| self.about(stop, expected, at, from))?;
            self.put(expected, at, from, &value)?;
            at = end;
            match buf.get(at).ok_or(Stop::Open)? {
                b',' => at += 1,
                b' ' | b'\n' => return Ok(at),
                b'\r' if buf.get(at + 1).ok_or(Stop::Open)? == &b'\n' => return Ok(at),
                _ => {
                    return Err(Stop::malformed(
                        at,
                        "a value is followed by a comma, a blank or the line's end",
                    ));
                }
            }
        }
    }

    /// Whether a number that is no column's name stands here: the timestamp of a line with tags alone.
    fn is_number(&self, at: usize) -> Step<bool> {
        if !matches!(self.buf.get(at), Some(b'-' | b'0'..=b'9')) {
            return Ok(false);
        }
        let (end, _) = text_end(self.buf, at, crate::scan::NAME)?;
        Ok(matches!(self.buf.get(end), Some(b' ' | b'\n')))
    }

    /// The column that is named at `at`, if it is the one that is expected, and where its value begins.
    fn name(&self, at: usize) -> Step<(Option<usize>, usize)> {
        if let Some((index, from)) = self.table.expected(self.buf, at, self.last) {
            return Ok((Some(index), from));
        }
        Ok((None, Table::name_end(self.buf, at)? + 1))
    }

    fn put(&mut self, expected: Option<usize>, name: usize, from: usize, value: &Value<'_>) -> Step<()> {
        self.values = true;
        let index = match expected {
            Some(index) => index,
            None if matches!(value, Value::Null) => return Ok(()),
            None => {
                let raw = self.buf.get(name..from - 1).unwrap_or_default();
                self.table.column(raw, name, value, &self.settings.limits)?
            }
        };
        self.table.push(index, value, from, &mut self.last, self.scratch)
    }

    /// The same, about the column that is named there.
    fn about(&self, stop: Stop, expected: Option<usize>, name: usize, from: usize) -> Stop {
        if matches!(stop, Stop::Open) {
            return stop;
        }
        let raw = self.buf.get(name..from - 1).unwrap_or_default();
        match (expected, crate::table::name_of(raw, name)) {
            (_, Ok(name)) => stop.of_column(&name),
            (_, Err(_)) => stop,
        }
    }

    /// The row timestamp and the line's end; where the next one begins, and whether there is a timestamp.
    fn end(&mut self, at: usize) -> Step<(usize, bool)> {
        let buf = self.buf;
        let at = skip_blanks(buf, at);
        let end = plain_end(buf, at, NUMBER)?;
        let token = buf.get(at..skip_back(buf, at, end)).unwrap_or_default();
        let (ticks, unit) = match token {
            [] => (self.settings.now, arrow::datatypes::TimeUnit::Nanosecond),
            token => self.timestamp(token, at)?,
        };
        let after = skip_return(buf, skip_blanks(buf, end));
        match buf.get(after).ok_or(Stop::Open)? {
            b'\n' => {}
            b'\r' if buf.get(after + 1).is_none() => return Err(Stop::Open),
            _ => return Err(Stop::malformed(after, "the line goes on behind its timestamp")),
        }
        self.table.end_row(ticks, unit, at)?;
        Ok((after + 1, !token.is_empty()))
    }

    fn timestamp(&self, token: &[u8], at: usize) -> Step<(i64, arrow::datatypes::TimeUnit)> {
        use arrow::datatypes::TimeUnit::{Microsecond, Nanosecond};
        let (digits, unit) = match token {
            [digits @ .., b't'] => (digits, Some(Microsecond)),
            [digits @ .., b'n'] => (digits, Some(Nanosecond)),
            digits => (digits, None),
        };
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<i64>().ok());
        let number = number.ok_or_else(|| {
            let shown: String = String::from_utf8_lossy(token).chars().take(40).collect();
            Stop::malformed(at, format!("{shown:?} is no timestamp of 64 bits"))
        })?;
        match unit {
            Some(unit) => Ok((number, unit)),
            None => self
                .settings
                .precision
                .ticks(number)
                .ok_or_else(|| Stop::malformed(at, format!("the timestamp {number} is out of range"))),
        }
    }
}

/// Before a carriage return that belongs to the line's end.
fn skip_back(buf: &[u8], from: usize, end: usize) -> usize {
    if end > from && skip_return(buf, end - 1) == end { end - 1 } else { end }
}
