//! Where things end in a line, and what backslashes mean.

use crate::error::{Step, Stop};

const COMMA: u8 = 1;
const SPACE: u8 = 2;
const EQUALS: u8 = 4;
const END: u8 = 8;
const BACKSLASH: u8 = 16;

/// What ends a table's name.
pub(crate) const TABLE: u8 = COMMA | SPACE | END;
/// What ends a column's name; only `=` is right.
pub(crate) const NAME: u8 = COMMA | SPACE | EQUALS | END;
/// What ends a tag's text.
pub(crate) const TEXT: u8 = COMMA | SPACE | END;
/// What ends a number.
pub(crate) const NUMBER: u8 = COMMA | SPACE | END;

const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    class[b',' as usize] = COMMA;
    class[b' ' as usize] = SPACE;
    class[b'=' as usize] = EQUALS;
    class[b'\n' as usize] = END;
    class[b'\\' as usize] = BACKSLASH;
    class
};

/// Position of the first byte of a class, without regard to backslashes.
pub(crate) fn plain_end(buf: &[u8], from: usize, classes: u8) -> Step<usize> {
    let rest = buf.get(from..).ok_or(Stop::Open)?;
    let length = rest.iter().position(|byte| CLASS[usize::from(*byte)] & classes != 0);
    length.map(|length| from + length).ok_or(Stop::Open)
}

/// Position of the first byte of a class that no backslash stands before, and whether there was a backslash.
pub(crate) fn text_end(buf: &[u8], from: usize, classes: u8) -> Step<(usize, bool)> {
    let mut at = plain_end(buf, from, classes | BACKSLASH)?;
    if buf.get(at) != Some(&b'\\') {
        return Ok((at, false));
    }
    while buf.get(at) == Some(&b'\\') {
        // The byte behind it is no end, whatever it is.
        at = plain_end(buf, at + 2, classes | BACKSLASH)?;
    }
    Ok((at, true))
}

/// Position of the quote that ends a string begun before `from`, and whether there was a backslash.
pub(crate) fn string_end(buf: &[u8], from: usize) -> Step<(usize, bool)> {
    let (mut at, mut escaped) = (from, false);
    loop {
        let rest = buf.get(at..).ok_or(Stop::Open)?;
        at += memchr::memchr2(b'"', b'\\', rest).ok_or(Stop::Open)?;
        if buf.get(at) == Some(&b'"') {
            return Ok((at, escaped));
        }
        escaped = true;
        at += 2;
    }
}

/// Past spaces and tabs.
pub(crate) fn skip_blanks(buf: &[u8], mut at: usize) -> usize {
    while matches!(buf.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

/// Past a carriage return that belongs to the line's end.
pub(crate) fn skip_return(buf: &[u8], at: usize) -> usize {
    match buf.get(at..) {
        Some([b'\r', b'\n', ..]) => at + 1,
        _ => at,
    }
}

/// Appends a name or a tag's text without the backslashes that mean the byte behind them. Any other stands for itself.
pub(crate) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    unescape_those(raw, out, |byte| matches!(byte, b',' | b' ' | b'=' | b'\\' | b'\n' | b'\r'));
}

/// As [`unescape`], within quotes.
pub(crate) fn unescape_string(raw: &[u8], out: &mut Vec<u8>) {
    unescape_those(raw, out, |byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r'));
}

fn unescape_those(mut raw: &[u8], out: &mut Vec<u8>, meant: impl Fn(u8) -> bool) {
    while let Some(at) = memchr::memchr(b'\\', raw) {
        let (before, from) = raw.split_at(at);
        out.extend_from_slice(before);
        match from {
            [_, next, rest @ ..] if meant(*next) => {
                out.push(*next);
                raw = rest;
            }
            [backslash, rest @ ..] => {
                out.push(*backslash);
                raw = rest;
            }
            [] => raw = from,
        }
    }
    out.extend_from_slice(raw);
}

/// Behind the first line end from there on.
pub(crate) fn line_end(buf: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(b'\n', buf.get(from..)?).map(|end| from + end + 1)
}
