//! Cutting a JSON file into its records, without reading it whole.

use std::io::{BufRead, Read};

use tandem_types::{Error, Result};

/// A record of more bytes than this is taken for a broken file.
const RECORD_BYTES_MAX: usize = 256 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Unknown,
    Lines,
    /// Inside an array; `first` until a record was read.
    Array {
        first: bool,
    },
    End,
}

/// The records of a file: its lines, or the items of its one array.
pub struct JsonRecords {
    name: String,
    content: Box<dyn BufRead + Send>,
    layout: Layout,
    /// The line of the next byte, from 1.
    line: u64,
}

impl JsonRecords {
    pub fn new(name: &str, content: Box<dyn BufRead + Send>) -> Self {
        Self { name: name.to_owned(), content, layout: Layout::Unknown, line: 1 }
    }

    /// Reads the next record into `record`; returns the line it begins on, or `None` at the end.
    pub fn read(&mut self, record: &mut Vec<u8>) -> Result<Option<u64>> {
        record.clear();
        if self.layout == Layout::Unknown {
            self.skip_blank()?;
            self.layout = Layout::Lines;
            if self.peek()? == Some(b'[') {
                self.take()?;
                self.layout = Layout::Array { first: true };
            }
        }
        match self.layout {
            Layout::Array { first } => self.item(first, record),
            Layout::End => Ok(None),
            Layout::Lines | Layout::Unknown => self.whole_line(record),
        }
    }

    fn whole_line(&mut self, record: &mut Vec<u8>) -> Result<Option<u64>> {
        loop {
            record.clear();
            let line = self.line;
            let mut bounded = self.content.by_ref().take(RECORD_BYTES_MAX as u64 + 1);
            let read = bounded.read_until(b'\n', record);
            let read = read.map_err(|e| Error::invalid(format!("cannot read {:?}: {e}", self.name)))?;
            self.check_size(record, line)?;
            if read == 0 {
                self.layout = Layout::End;
                return Ok(None);
            }
            self.line += 1;
            if !record.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn item(&mut self, first: bool, record: &mut Vec<u8>) -> Result<Option<u64>> {
        self.skip_blank()?;
        match self.peek()? {
            Some(b']') => {
                self.take()?;
                self.skip_blank()?;
                self.layout = Layout::End;
                return match self.peek()? {
                    None => Ok(None),
                    Some(_) => Err(self.broken("text follows the array")),
                };
            }
            Some(b',') if !first => {
                self.take()?;
                self.skip_blank()?;
            }
            Some(_) if first => {}
            Some(_) => return Err(self.broken("expected a comma or the end of the array")),
            None => return Err(self.broken("the array does not end")),
        }
        self.layout = Layout::Array { first: false };
        let line = self.line;
        self.value(record, line)?;
        Ok(Some(line))
    }

    /// One value of an array, told by its brackets; line breaks in it become spaces.
    fn value(&mut self, record: &mut Vec<u8>, line: u64) -> Result<()> {
        let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
        loop {
            let Some(byte) = self.peek()? else { return Err(self.broken("the array does not end")) };
            if !in_text {
                match byte {
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth > 0 => {
                        self.take()?;
                        record.push(byte);
                        depth -= 1;
                        if depth == 0 {
                            return Ok(());
                        }
                        continue;
                    }
                    b',' | b']' if depth == 0 => return Ok(()),
                    _ => {}
                }
            }
            (in_text, escaped) = match byte {
                _ if escaped => (in_text, false),
                b'\\' if in_text => (true, true),
                b'"' => (!in_text, false),
                _ => (in_text, false),
            };
            self.take()?;
            record.push(if byte == b'\n' { b' ' } else { byte });
            self.check_size(record, line)?;
        }
    }

    fn check_size(&self, record: &[u8], line: u64) -> Result<()> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(Error::invalid(format!(
                "{}:{line}: the record has more than {RECORD_BYTES_MAX} bytes",
                self.name
            )));
        }
        Ok(())
    }

    fn skip_blank(&mut self) -> Result<()> {
        while self.peek()?.is_some_and(|b| b.is_ascii_whitespace()) {
            self.take()?;
        }
        Ok(())
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        let buffer = self.content.fill_buf();
        let buffer = buffer.map_err(|e| Error::invalid(format!("cannot read {:?}: {e}", self.name)))?;
        Ok(buffer.first().copied())
    }

    fn take(&mut self) -> Result<()> {
        if self.peek()? == Some(b'\n') {
            self.line += 1;
        }
        self.content.consume(1);
        Ok(())
    }

    fn broken(&self, what: &str) -> Error {
        Error::invalid(format!("{}:{}: {what}", self.name, self.line))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn all(text: &str) -> Result<Vec<(u64, String)>> {
        let mut records = JsonRecords::new("f", Box::new(Cursor::new(text.to_owned().into_bytes())));
        let (mut found, mut record) = (Vec::new(), Vec::new());
        while let Some(line) = records.read(&mut record)? {
            found.push((line, String::from_utf8(record.clone()).unwrap().trim().to_owned()));
        }
        Ok(found)
    }

    #[test]
    fn records_are_cut_at_lines_or_commas() {
        let expected = [(1, "{\"a\":1}".to_owned()), (3, "{\"b\":2}".to_owned())];
        assert_eq!(all("{\"a\":1}\n\n{\"b\":2}").unwrap(), expected);
        assert_eq!(all("[{\"a\":1},\n\n{\"b\":2}\n]\n").unwrap(), expected);
        let nested = "[\n{\"a\":[{\"x\":\"]},\\\"\"}]} , 5]";
        assert_eq!(all(nested).unwrap(), [(2, "{\"a\":[{\"x\":\"]},\\\"\"}]}".into()), (2, "5".into())]);
        assert_eq!(all("").unwrap(), []);
        assert_eq!(all("[]").unwrap(), []);
    }

    #[test]
    fn broken_arrays_are_told_with_their_line() {
        for text in ["[{}\n,{}", "[{}\n{}]", "[{}]\nx", "[{\n"] {
            assert!(all(text).unwrap_err().message().starts_with("f:2: "), "{text}");
        }
    }
}
