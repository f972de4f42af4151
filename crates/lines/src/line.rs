//! One line, from its first value to its end.

use crate::error::{Step, Stop};
use crate::number::{short_number, short_timestamp};
use crate::scan::{NUMBER, TEXT, plain_end, skip_blanks, skip_return, text_end};
use crate::settings::Settings;
use crate::table::{Key, Last, Table};
use crate::value::{Value, value};

/// The tags of a line.
pub(crate) enum Head<'a> {
    /// They stand in the buffer. What they mean is wanted there.
    New(Option<&'a mut Vec<Key>>),
    /// They were read before.
    Known(&'a [Key]),
}

/// A row that was read.
pub(crate) struct Done {
    /// Where the next line begins.
    pub next: usize,
    /// Whether the line has a timestamp.
    pub stamped: bool,
    /// Behind the last tag.
    pub head: usize,
    /// Whether that was wanted, and those keys are all that the tags mean.
    pub learnt: bool,
}

/// Reads what follows at `at` into a row of the table: the tags, unless they are known, and the rest of the line.
pub(crate) fn read_row(
    table: &mut Table,
    buf: &[u8],
    at: usize,
    head: Head<'_>,
    settings: &Settings,
    scratch: &mut Vec<u8>,
) -> Step<Done> {
    table.begin();
    let mut row = Row { table, buf, settings, scratch, last: Last::NONE, values: false, blank_tags: false };
    let (head, learnt) = match head {
        Head::Known(keys) => {
            row.table.push_keys(keys, &mut row.last);
            row.values = true;
            (at, false)
        }
        Head::New(wanted) => {
            let end = row.tags(at)?;
            let blank_tags = row.blank_tags;
            (end, wanted.is_some_and(|keys| !blank_tags && row.table.keys(keys)))
        }
    };
    let at = row.fields(skip_blanks(buf, head))?;
    let (next, stamped) = row.end(at)?;
    Ok(Done { next, stamped, head, learnt })
}

struct Row<'a> {
    table: &'a mut Table,
    buf: &'a [u8],
    settings: &'a Settings,
    scratch: &'a mut Vec<u8>,
    last: Last,
    /// Whether there was a tag or a field.
    values: bool,
    /// Whether there was a tag without a text.
    blank_tags: bool,
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
            self.blank_tags |= raw.is_empty();
            self.put(expected, at, from, &tag).map_err(|stop| behind(stop, || skip_tags(buf, end)))?;
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
            at = match expected.and_then(|index| self.short(index, from)) {
                Some(end) => end,
                None => {
                    let (value, end) =
                        value(buf, from).map_err(|stop| self.about(stop, expected, at, from))?;
                    self.put(expected, at, from, &value)
                        .map_err(|stop| behind(stop, || skip_values(buf, end)))?;
                    end
                }
            };
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

    /// The most frequent values by far: a short number for a column of its kind. Where it ends; `None` if it is none.
    fn short(&mut self, index: usize, from: usize) -> Option<usize> {
        let (number, end) = short_number(self.buf, from)?;
        self.table.push_number(index, number, &mut self.last).then(|| {
            self.values = true;
            end
        })
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
        self.table.check_tag(index, name, value)?;
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
        if let Some((number, end)) = short_timestamp(buf, at) {
            let (ticks, unit) = self.precise(number, at)?;
            self.table.end_row(ticks, unit, at)?;
            return Ok((end + 1, true));
        }
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
            None => self.precise(number, at),
        }
    }

    fn precise(&self, number: i64, at: usize) -> Step<(i64, arrow::datatypes::TimeUnit)> {
        let ticks = self.settings.precision.ticks(number);
        ticks.ok_or_else(|| Stop::malformed(at, format!("the timestamp {number} is out of range")))
    }
}

/// The same, with the line's values read to their end: texts may have line ends in them, and what stands behind those is no
/// line of its own.
fn behind(stop: Stop, values: impl FnOnce() -> Step<usize>) -> Stop {
    match (stop, values()) {
        (Stop::Bad(fault), Ok(end)) => Stop::Bad(fault).until(end),
        // From there on nobody can tell.
        (Stop::Bad(fault), Err(Stop::Bad(other))) => Stop::Bad(fault).until(other.at),
        (Stop::Open, _) | (_, Err(Stop::Open)) => Stop::Open,
    }
}

/// Where the fields end that go on at `at`.
fn skip_values(buf: &[u8], mut at: usize) -> Step<usize> {
    while *buf.get(at).ok_or(Stop::Open)? == b',' {
        at = value(buf, Table::name_end(buf, at + 1)? + 1)?.1;
    }
    Ok(at)
}

/// Where the fields end behind tags that go on at `at`.
fn skip_tags(buf: &[u8], mut at: usize) -> Step<usize> {
    while *buf.get(at).ok_or(Stop::Open)? == b',' {
        at = text_end(buf, Table::name_end(buf, at + 1)? + 1, TEXT)?.0;
    }
    let (_, end) = value(buf, Table::name_end(buf, skip_blanks(buf, at))? + 1)?;
    skip_values(buf, end)
}

/// Before a carriage return that belongs to the line's end.
fn skip_back(buf: &[u8], from: usize, end: usize) -> usize {
    if end > from && skip_return(buf, end - 1) == end { end - 1 } else { end }
}
