//! A whole stream: framing, order, and what its messages add up to.

use std::collections::HashMap;

use tandem_types::{Error, Result};

use super::{MessageKind, check_parsed, guarded, parse};
use crate::Limits;

const CONTINUATION: [u8; 4] = [0xff; 4];

/// Checks the messages of one stream, in their order, before they are decoded: each alone, and that the schema comes
/// first and once, and what the dictionaries add up to.
#[derive(Debug)]
pub struct StreamGuard {
    limits: Limits,
    schema_seen: bool,
    dictionaries: u64,
    /// By dictionary id: bytes that the decoder holds for it.
    dictionary_bytes: HashMap<i64, u64>,
    dictionary_total: u64,
    delta_bytes: u64,
}

impl StreamGuard {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            schema_seen: false,
            dictionaries: 0,
            dictionary_bytes: HashMap::new(),
            dictionary_total: 0,
            delta_bytes: 0,
        }
    }

    /// Checks the next message; after an error the stream is lost. The budget for decompression counts for
    /// each message anew.
    pub fn check(&mut self, header: &[u8], body: &[u8]) -> Result<MessageKind> {
        guarded("checking an Arrow message", || {
            let message = parse(header, &self.limits)?;
            Ok(self.check_parsed(&message, body)?.0)
        })
    }

    fn check_parsed(&mut self, message: &arrow_ipc::Message<'_>, body: &[u8]) -> Result<(MessageKind, u64)> {
        let checked = check_parsed(message, body, &self.limits)?;
        if (checked.kind == MessageKind::Schema) == self.schema_seen {
            let what = if self.schema_seen { "a second schema" } else { "no schema at its beginning" };
            return Err(Error::invalid(format!("an Arrow stream has {what}")));
        }
        self.schema_seen = true;
        if let Some((id, is_delta)) = checked.dictionary {
            self.add_dictionary(id, is_delta, checked.decompressed.max(body.len() as u64))?;
        }
        Ok((checked.kind, checked.decompressed))
    }

    fn add_dictionary(&mut self, id: i64, is_delta: bool, bytes: u64) -> Result<()> {
        self.dictionaries += 1;
        if self.dictionaries > self.limits.max_dictionaries {
            return Err(Error::invalid(format!(
                "an Arrow stream sends more than {} dictionaries",
                self.limits.max_dictionaries
            )));
        }
        let held = self.dictionary_bytes.entry(id).or_insert(0);
        let before = *held;
        *held = if is_delta { held.saturating_add(bytes) } else { bytes };
        if is_delta {
            self.delta_bytes = self.delta_bytes.saturating_add(*held);
        }
        self.dictionary_total = self.dictionary_total.saturating_sub(before).saturating_add(*held);
        if self.delta_bytes > self.limits.max_delta_bytes {
            return Err(Error::invalid(format!(
                "deltas of dictionaries make more than {} bytes be copied",
                self.limits.max_delta_bytes
            )));
        }
        if self.dictionary_total > self.limits.max_dictionary_bytes {
            return Err(Error::invalid(format!(
                "dictionaries hold more than the {} bytes allowed",
                self.limits.max_dictionary_bytes
            )));
        }
        Ok(())
    }
}

/// Checks a complete Arrow IPC stream in memory, from its schema to its end-of-stream marker with nothing after it.
/// The budget for decompression counts for the whole stream.
pub fn check_stream(bytes: &[u8], limits: &Limits) -> Result<()> {
    guarded("checking an Arrow stream", || walk(bytes, limits))
}

fn walk(bytes: &[u8], limits: &Limits) -> Result<()> {
    let mut guard = StreamGuard::new(limits.clone());
    let mut rest = bytes;
    let mut decompressed = 0u64;
    loop {
        let at = bytes.len() - rest.len();
        let lost = |what: &str| Error::invalid(format!("the stream breaks off at byte {at}, in {what}"));
        let marker = take(&mut rest, 4).ok_or_else(|| lost("a message's length"))?;
        if marker != CONTINUATION {
            return Err(Error::invalid(format!("no message begins at byte {at}")));
        }
        let (len, tail) = rest.split_first_chunk::<4>().ok_or_else(|| lost("a message's length"))?;
        rest = tail;
        let len = u32::from_le_bytes(*len) as usize;
        if len == 0 {
            return match (guard.schema_seen, rest.len()) {
                (false, _) => Err(Error::invalid("the stream holds no schema")),
                (true, 0) => Ok(()),
                (true, n) => Err(Error::invalid(format!("{n} bytes follow the end of the stream"))),
            };
        }
        let header = take(&mut rest, len).ok_or_else(|| lost("a message's header"))?;
        let here = |e: Error| e.context(format!("message at byte {at}"));
        let message = parse(header, limits).map_err(here)?;
        let body_len = usize::try_from(message.bodyLength()).map_err(|_| lost("a message's body"))?;
        let body = take(&mut rest, body_len).ok_or_else(|| lost("a message's body"))?;
        let (_, yields) = guard.check_parsed(&message, body).map_err(here)?;
        decompressed = decompressed.saturating_add(yields);
        if decompressed > limits.max_decompressed_bytes {
            return Err(Error::invalid(format!(
                "compressed buffers declare more than the {} bytes allowed",
                limits.max_decompressed_bytes
            )));
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n)?;
    *rest = tail;
    Some(head)
}
