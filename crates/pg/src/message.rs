//! Messages of the protocol, version 3: those of clients read, those of this end written.
//!
//! What a client sends is believed in nothing: lengths and counts are checked against the bytes that are there.

use std::fmt::Write;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tandem_types::{Error, Result};

/// What a client sends after it was let in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe {
        target: Target,
        name: String,
    },
    Execute {
        portal: String,
        max_rows: usize,
    },
    Close {
        target: Target,
        name: String,
    },
    Sync,
    Flush,
    Terminate,
    /// Answer to a request for a password.
    Password(String),
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    /// Understood only to be refused.
    FunctionCall,
}

/// Values for a statement's parameters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bind {
    pub portal: String,
    pub statement: String,
    pub formats: Vec<Format>,
    pub values: Vec<Option<Bytes>>,
    /// Of the columns of its result.
    pub results: Vec<Format>,
}

/// What is described or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Statement,
    Portal,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Binary,
}

impl Format {
    fn of(code: i16) -> Result<Self> {
        match code {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            other => Err(Error::invalid(format!("{other} is no format of values: 0 is text, 1 is binary"))),
        }
    }

    /// The format of value `at`: one for all, one for each, or text.
    pub fn at(formats: &[Self], at: usize) -> Self {
        match formats {
            [all] => *all,
            each => each.get(at).copied().unwrap_or_default(),
        }
    }

    pub fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }
}

/// Takes the first whole message off `input`; `None` while there is none yet.
///
/// # Errors
///
/// `Overloaded` if it is to be larger than `max_bytes`, `InvalidInput` if it is none. The connection cannot go on then.
pub(crate) fn take(input: &mut BytesMut, max_bytes: usize) -> Result<Option<Message>> {
    let (Some(&tag), Some(length)) = (input.first(), input.get(1..5)) else { return Ok(None) };
    let length = usize::try_from(length.as_ref().get_u32()).unwrap_or(usize::MAX);
    if length < 4 {
        return Err(Error::invalid(format!("a message of type {:?} has length {length}", char::from(tag))));
    }
    if length > max_bytes {
        return Err(Error::overloaded(format!(
            "a message has {length} bytes, at most {max_bytes} are allowed: send rows in smaller pieces, by COPY or by Flight"
        )));
    }
    if input.len() < length + 1 {
        return Ok(None);
    }
    let mut whole = input.split_to(length + 1).freeze();
    whole.advance(5);
    read(tag, whole).map(Some)
}

fn read(tag: u8, bytes: Bytes) -> Result<Message> {
    let mut body = Body { bytes, tag };
    let message = match tag {
        b'Q' => Message::Query(body.text()?),
        b'P' => {
            let (name, sql) = (body.text()?, body.text()?);
            let types = body.list(|body| body.u32())?;
            Message::Parse { name, sql, types }
        }
        b'B' => Message::Bind(Bind {
            portal: body.text()?,
            statement: body.text()?,
            formats: body.list(|body| Format::of(body.i16()?))?,
            values: body.list(Body::value)?,
            results: body.list(|body| Format::of(body.i16()?))?,
        }),
        b'D' => Message::Describe { target: body.target()?, name: body.text()? },
        b'E' => {
            let portal = body.text()?;
            // Zero and, by custom, negative numbers stand for all rows.
            let max_rows = usize::try_from(body.u32()?.cast_signed()).unwrap_or(0);
            Message::Execute { portal, max_rows }
        }
        b'C' => Message::Close { target: body.target()?, name: body.text()? },
        b'S' => Message::Sync,
        b'H' => Message::Flush,
        b'X' => Message::Terminate,
        b'p' => Message::Password(body.text()?),
        b'd' => Message::CopyData(body.rest()),
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(body.text()?),
        b'F' => {
            body.rest();
            Message::FunctionCall
        }
        other => return Err(Error::invalid(format!("{:?} is no type of message", char::from(other)))),
    };
    body.end()?;
    Ok(message)
}

/// What is left of a message.
struct Body {
    bytes: Bytes,
    tag: u8,
}

impl Body {
    fn short(&self) -> Error {
        Error::invalid(format!("a message of type {:?} ends too early", char::from(self.tag)))
    }

    fn take(&mut self, length: usize) -> Result<Bytes> {
        if self.bytes.len() < length {
            return Err(self.short());
        }
        Ok(self.bytes.split_to(length))
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?.get_u8())
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(self.take(2)?.get_i16())
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(self.take(4)?.get_u32())
    }

    /// Up to the next zero byte.
    fn text(&mut self) -> Result<String> {
        let end = self.bytes.iter().position(|byte| *byte == 0).ok_or_else(|| self.short())?;
        let text = self.take(end)?;
        self.bytes.advance(1);
        String::from_utf8(text.into())
            .map_err(|_| Error::invalid("text that is not UTF-8; client_encoding is UTF8 here"))
    }

    /// Items after their count. The count is not believed: each item takes bytes that must be there.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.i16()?.cast_unsigned();
        (0..count).map(|_| item(self)).collect()
    }

    fn value(&mut self) -> Result<Option<Bytes>> {
        match usize::try_from(self.u32()?.cast_signed()) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn target(&mut self) -> Result<Target> {
        match self.u8()? {
            b'S' => Ok(Target::Statement),
            b'P' => Ok(Target::Portal),
            other => {
                Err(Error::invalid(format!("{:?} is neither a statement nor a portal", char::from(other))))
            }
        }
    }

    fn end(&self) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a message of type {:?} is longer than what it says",
            char::from(self.tag)
        )))
    }
}

/// A column of a result, as `RowDescription` tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnInfo {
    pub name: String,
    pub oid: u32,
    /// Bytes of a value; -1: they differ.
    pub size: i16,
    /// Precision and scale; -1: there is none.
    pub modifier: i32,
}

/// What goes to the client, until it is sent.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: BytesMut,
}

impl Output {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }

    /// A message, its length filled in afterwards. One that fails, or grows past what the protocol can count, is taken back.
    pub fn message(&mut self, tag: u8, body: impl FnOnce(&mut BytesMut) -> Result<()>) -> Result<()> {
        let start = self.bytes.len();
        self.bytes.put_u8(tag);
        self.bytes.put_u32(0);
        let written = body(&mut self.bytes).and_then(|()| {
            let length = i32::try_from(self.bytes.len() - start - 1)
                .map_err(|_| Error::overloaded("a row has more than 2 GiB: read it over Flight"))?;
            if let Some(place) = self.bytes.get_mut(start + 1..start + 5) {
                place.copy_from_slice(&length.to_be_bytes());
            }
            Ok(())
        });
        if written.is_err() {
            self.bytes.truncate(start);
        }
        written
    }

    /// A message that cannot fail.
    fn plain(&mut self, tag: u8, body: impl FnOnce(&mut BytesMut)) {
        let written = self.message(tag, |bytes| {
            body(bytes);
            Ok(())
        });
        debug_assert!(written.is_ok(), "small messages fit");
    }

    pub fn authentication_ok(&mut self) {
        self.plain(b'R', |b| b.put_i32(0));
    }

    pub fn authentication_password(&mut self) {
        self.plain(b'R', |b| b.put_i32(3));
    }

    pub fn parameter(&mut self, name: &str, value: &str) {
        self.plain(b'S', |b| {
            put_text(b, name);
            put_text(b, value);
        });
    }

    pub fn key(&mut self, process: u32, secret: u32) {
        self.plain(b'K', |b| {
            b.put_u32(process);
            b.put_u32(secret);
        });
    }

    /// `unknown` are options of the protocol that the client asked for in vain.
    pub fn protocol(&mut self, minor: i32, unknown: &[String]) {
        self.plain(b'v', |b| {
            b.put_i32(minor);
            b.put_i32(i32::try_from(unknown.len()).unwrap_or(0));
            unknown.iter().for_each(|name| put_text(b, name));
        });
    }

    /// `I` idle, `T` in a transaction, `E` in one that has failed.
    pub fn ready(&mut self, status: u8) {
        self.plain(b'Z', |b| b.put_u8(status));
    }

    pub fn complete(&mut self, tag: &str) {
        self.plain(b'C', |b| put_text(b, tag));
    }

    pub fn empty_query(&mut self) {
        self.plain(b'I', |_| {});
    }

    pub fn parse_complete(&mut self) {
        self.plain(b'1', |_| {});
    }

    pub fn bind_complete(&mut self) {
        self.plain(b'2', |_| {});
    }

    pub fn close_complete(&mut self) {
        self.plain(b'3', |_| {});
    }

    pub fn no_data(&mut self) {
        self.plain(b'n', |_| {});
    }

    pub fn suspended(&mut self) {
        self.plain(b's', |_| {});
    }

    pub fn parameters(&mut self, types: &[u32]) {
        self.plain(b't', |b| {
            b.put_u16(u16::try_from(types.len()).unwrap_or(u16::MAX));
            types.iter().for_each(|oid| b.put_u32(*oid));
        });
    }

    pub fn row_description(&mut self, columns: &[ColumnInfo], formats: &[Format]) {
        self.plain(b'T', |b| {
            b.put_u16(u16::try_from(columns.len()).unwrap_or(u16::MAX));
            for (at, column) in columns.iter().enumerate() {
                put_text(b, &column.name);
                // Of no table's column.
                b.put_u32(0);
                b.put_i16(0);
                b.put_u32(column.oid);
                b.put_i16(column.size);
                b.put_i32(column.modifier);
                b.put_i16(Format::at(formats, at).code());
            }
        });
    }

    /// `in_` is `true` for rows from the client.
    pub fn copy(&mut self, in_: bool, columns: usize) {
        self.plain(if in_ { b'G' } else { b'H' }, |b| {
            let columns = i16::try_from(columns).unwrap_or(i16::MAX);
            b.put_u8(0);
            b.put_i16(columns);
            (0..columns).for_each(|_| b.put_i16(0));
        });
    }

    pub fn copy_done(&mut self) {
        self.plain(b'c', |_| {});
    }

    /// An error or a notice: fields of one letter each.
    pub fn report(&mut self, tag: u8, fields: &[(u8, &str)]) {
        self.plain(tag, |b| {
            for (letter, text) in fields {
                b.put_u8(*letter);
                put_text(b, text);
            }
            b.put_u8(0);
        });
    }
}

/// Zero bytes, which end a text, are left out of it.
fn put_text(bytes: &mut BytesMut, text: &str) {
    if text.contains('\0') {
        let _ = write!(bytes, "{}", text.replace('\0', ""));
    } else {
        bytes.put_slice(text.as_bytes());
    }
    bytes.put_u8(0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        bytes.put_u8(tag);
        bytes.put_u32(u32::try_from(body.len()).unwrap() + 4);
        bytes.put_slice(body);
        bytes
    }

    #[test]
    fn messages_are_read_once_they_are_whole() {
        let whole = message(b'Q', b"SELECT 1\0");
        for end in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..end]);
            assert_eq!(take(&mut part, 1000), Ok(None), "{end} bytes");
            assert_eq!(part.len(), end);
        }
        let mut two = whole.clone();
        two.extend_from_slice(&message(b'S', b""));
        assert_eq!(take(&mut two, 1000), Ok(Some(Message::Query("SELECT 1".into()))));
        assert_eq!(take(&mut two, 1000), Ok(Some(Message::Sync)));
        assert_eq!(take(&mut two, 1000), Ok(None));
    }

    #[test]
    fn values_and_formats_of_a_bind_are_read() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02hi\xff\xff\xff\xff\0\0";
        let Ok(Some(Message::Bind(bind))) = take(&mut message(b'B', body), 1000) else { panic!("no Bind") };
        assert_eq!((bind.portal.as_str(), bind.statement.as_str()), ("p", "s"));
        assert_eq!(bind.values, [Some(Bytes::from_static(b"hi")), None]);
        assert_eq!(
            (Format::at(&bind.formats, 1), Format::at(&bind.results, 0)),
            (Format::Binary, Format::Text)
        );
    }

    #[test]
    fn what_lies_about_its_length_is_refused() {
        let large = take(&mut message(b'Q', &[b'x'; 100]), 50).unwrap_err();
        assert!(large.message().contains("at most 50"), "{large}");
        for wrong in [
            message(b'Q', b"no end"),
            message(b'Q', b"\0more"),
            message(b'Q', b"\xff\0"),
            message(b'P', b"\0\0\0\x05"),
            message(b'B', b"\0\0\0\0\0\x01\0\0\0\x09ab\0\0"),
            message(b'B', b"\0\0\0\x01\0\x07\0\0\0\0"),
            message(b'D', b"X\0"),
            message(b'?', b""),
            BytesMut::from(&b"Q\0\0\0\x03"[..]),
        ] {
            assert!(take(&mut wrong.clone(), 1000).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_message_that_fails_leaves_no_bytes() {
        let mut output = Output::default();
        output.ready(b'I');
        let before = output.len();
        let failed = output.message(b'D', |b| {
            b.put_slice(b"half");
            Err(Error::invalid("no"))
        });
        assert!(failed.is_err());
        assert_eq!(output.len(), before);
        assert_eq!(&output.take()[..], b"Z\0\0\0\x05I");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(tag: u8, body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = message(tag, &body);
            let _ = take(&mut bytes, 1000);
        }
    }
}
