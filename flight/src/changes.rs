//! Tickets for changes: `{"changes":{"table":"s.t"|null,"from_seq":N,"to_seq":N|null,"images":"none|after|both"}}`.
//!
//! Each batch says where a reader could go on: `app_metadata` is `{"next_seq":N}`. A batch that is sent in pieces says it
//! with the last one; the pieces before repeat what was said before.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::Deserialize;
use tandem_sql::{ChangeBatch, ChangesRequest, EveryRequest, Images};
use tandem_types::{Error, Result, Seq};

use crate::encode::{Tagged, encode_tagged};
use crate::json_ticket::name_parts;
use crate::query::DataStream;
use crate::state::{Caller, Reply, State};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ticket {
    changes: Changes,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    table: Option<String>,
    from_seq: u64,
    #[serde(default)]
    to_seq: Option<u64>,
    #[serde(default)]
    images: Option<String>,
}

/// What a JSON ticket asks of changes, if it is about changes.
fn parse(ticket: &[u8]) -> Result<Option<Changes>> {
    let bad = |e: serde_json::Error| Error::invalid(format!("the JSON ticket is wrong: {e}"));
    let value: serde_json::Value = serde_json::from_slice(ticket).map_err(bad)?;
    if value.get("changes").is_none() {
        return Ok(None);
    }
    serde_json::from_value::<Ticket>(value).map(|ticket| Some(ticket.changes)).map_err(bad)
}

impl State {
    /// The changes that a JSON ticket asks for; `None` if it is about something else.
    pub async fn read_changes(&self, caller: &Caller, ticket: &[u8]) -> Result<Option<Reply<DataStream>>> {
        let Some(changes) = parse(ticket)? else { return Ok(None) };
        let images = changes.images.as_deref().map_or(Ok(Images::default()), Images::parse)?;
        let (from, to) = (Seq(changes.from_seq), changes.to_seq.map(Seq));
        let running = match &changes.table {
            Some(table) => {
                let table = caller.table_name(&name_parts(table)?)?;
                caller.session.changes(ChangesRequest { table, from, to, images }).await?
            }
            None => caller.session.changes_of_all(EveryRequest { from, to, images }).await?,
        };
        let batches = until_stopped(running.stream, self.stopping.subscribe());
        let mut said = from.max(Seq(1));
        let batches = batches.map(move |batch| {
            let ChangeBatch { rows, next_seq } = batch?;
            let before = std::mem::replace(&mut said, next_seq);
            Ok(Tagged { batch: rows, piece: metadata(before), last: metadata(next_seq) })
        });
        let stream = encode_tagged(&running.schema, batches.boxed(), caller.options.compression)?;
        Ok(Some(stream.into()))
    }
}

fn metadata(next: Seq) -> Bytes {
    format!("{{\"next_seq\":{next}}}").into()
}

/// Ends a stream that could go on for ever when the service does.
fn until_stopped(
    batches: BoxStream<'static, Result<ChangeBatch>>,
    stopping: tokio::sync::watch::Receiver<bool>,
) -> BoxStream<'static, Result<ChangeBatch>> {
    stream::unfold(Some((batches, stopping)), |running| async move {
        let (mut batches, mut stopping) = running?;
        let batch = tokio::select! {
            biased;
            // An error means that the service is gone.
            _ = stopping.wait_for(|stopping| *stopping) => {
                let error = "the node is shutting down: open the stream again, here or elsewhere";
                return Some((Err(Error::unavailable(error)), None));
            }
            batch = batches.next() => batch?,
        };
        Some((batch, Some((batches, stopping))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use tandem_types::ErrorKind;

    use super::*;

    #[test]
    fn tickets() {
        let all = br#"{"changes":{"table":"s.t","from_seq":3,"to_seq":9,"images":"both"}}"#;
        let all = parse(all).unwrap().unwrap();
        assert_eq!((all.table.as_deref(), all.from_seq, all.to_seq), (Some("s.t"), 3, Some(9)));
        assert_eq!(all.images.as_deref(), Some("both"));
        let few = parse(br#"{"changes":{"table":"t","from_seq":3}}"#).unwrap().unwrap();
        assert_eq!((few.to_seq, few.images), (None, None));
        assert!(parse(br#"{"changes":{"table":null,"from_seq":3}}"#).unwrap().unwrap().table.is_none());
        assert!(parse(br#"{"table":"t"}"#).unwrap().is_none());
        for wrong in [
            r#"{"changes":{"table":"t"}}"#,
            r#"{"changes":{"from_seq":"x","table":"t"}}"#,
            r#"{"changes":{"from_seq":1,"table":"t","since":3}}"#,
            r#"{"changes":{"from_seq":1,"table":"t"},"min_seq":3}"#,
            r#"{"changes":7}"#,
            "{",
        ] {
            assert_eq!(parse(wrong.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }
}
