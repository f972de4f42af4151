//! What another node hands over is checked as what a client sends would be: its bytes become everybody's log.

use std::sync::Arc;

use bytes::Bytes;
use tandem_manifest::{AppendIntent, ColumnSpec, Intent, MutateDraft, MutateIntent, SectionDraft, Step};
use tandem_segment::{DecodedSection, Limits, column_stats, decode_section};
use tandem_types::{Error, Result, TableName};
use tokio::sync::oneshot;

use super::{Handed, can_be_handed};
use crate::commit::GROUP_MAX;
use crate::queue::{Answer, Request, SectionBody};

/// A bundle may be as large as a group of a node that is configured with more than this one.
const BYTES_MIN: u64 = 16 << 20;

/// No digest is longer.
const MAX_DIGEST_BYTES: usize = 64;

/// Checks what can be seen without a look at the rows.
pub(super) fn check_bundle(handed: &[Handed], inline_bytes: u64) -> Result<()> {
    if handed.len() > GROUP_MAX {
        return Err(Error::invalid(format!(
            "{} transactions were handed over at once, at most {GROUP_MAX} may be",
            handed.len()
        )));
    }
    let bytes = handed.iter().flat_map(|h| &h.bodies).flatten().map(|chunk| chunk.len() as u64).sum::<u64>();
    let most = inline_bytes.saturating_mul(2).max(BYTES_MIN);
    if bytes > most {
        return Err(Error::invalid(format!("{bytes} bytes were handed over at once, at most {most} may be")));
    }
    Ok(())
}

/// The transaction as a request of this node's.
pub(super) fn request(handed: Handed, reply: oneshot::Sender<Result<Answer>>) -> Result<Request> {
    let Handed { intent, bodies, age } = handed;
    if !can_be_handed(&intent) {
        return Err(Error::invalid("a transaction was handed over that has no token, or that is upkeep"));
    }
    if intent.digest.len() > MAX_DIGEST_BYTES {
        return Err(Error::invalid(format!("a token's digest has {} bytes", intent.digest.len())));
    }
    let sections = sections(&intent);
    if sections.len() != bodies.len() {
        return Err(Error::invalid(format!(
            "{} sections and {} bodies were handed over",
            sections.len(),
            bodies.len()
        )));
    }
    let bodies = sections
        .into_iter()
        .zip(bodies)
        .map(|((carrier, draft), chunks)| {
            section(carrier, draft, chunks)
                .map_err(|e| e.context(format_args!("rows handed over for table {}", carrier.name())))
        })
        .collect::<Result<_>>()?;
    Ok(Request { intent, bodies, minted: false, handed: Some(age), reply })
}

/// What a section came with.
#[derive(Clone, Copy)]
enum Carrier<'a> {
    Append(&'a AppendIntent),
    /// Its section has as many columns.
    Mutate(&'a MutateIntent, usize),
}

impl Carrier<'_> {
    fn name(&self) -> &TableName {
        match self {
            Self::Append(append) => &append.name,
            Self::Mutate(mutate, _) => &mutate.name,
        }
    }

    fn fields(&self) -> usize {
        match self {
            Self::Append(append) => append.fields.len(),
            Self::Mutate(_, fields) => *fields,
        }
    }
}

fn sections(intent: &Intent) -> Vec<(Carrier<'_>, &SectionDraft)> {
    let sections = intent.steps.iter().filter_map(|step| Some((carrier(step)?, step.sections())));
    sections.flat_map(|(carrier, drafts)| drafts.iter().map(move |draft| (carrier, draft))).collect()
}

fn carrier(step: &Step) -> Option<Carrier<'_>> {
    match step {
        Step::Append(append) => Some(Carrier::Append(append)),
        Step::Mutate(mutate) => match &mutate.draft {
            MutateDraft::Lookup { columns, .. } => Some(Carrier::Mutate(mutate, columns.len())),
            MutateDraft::Delete { .. } | MutateDraft::Update { .. } => None,
        },
        _ => None,
    }
}

fn section(append: Carrier<'_>, draft: &SectionDraft, chunks: Vec<Bytes>) -> Result<SectionBody> {
    check_draft(append, draft)?;
    if draft.segment.is_some() {
        if chunks.iter().any(|chunk| !chunk.is_empty()) {
            return Err(Error::invalid("a section is in a segment and here as well"));
        }
        return Ok(SectionBody { chunks: Vec::new(), rows: None });
    }
    let bytes: Bytes = match chunks.as_slice() {
        [one] => one.clone(),
        chunks => chunks.concat().into(),
    };
    if bytes.len() as u64 != draft.len {
        return Err(Error::invalid(format!("a section of {} bytes has {}", draft.len, bytes.len())));
    }
    let rows = decode_section(&bytes, Some(draft.crc32c), &Limits::default())?;
    check_rows(append, draft, &rows)?;
    Ok(SectionBody { chunks: vec![bytes], rows: Some(Arc::new(rows)) })
}

/// That what is said of a section is not at odds with itself.
fn check_draft(append: Carrier<'_>, draft: &SectionDraft) -> Result<()> {
    let counted = draft.partitions.iter().try_fold(0u64, |sum, (_, rows)| sum.checked_add(*rows));
    let ascending = draft.partitions.windows(2).all(|pair| matches!(pair, [a, b] if a.0 < b.0));
    let fits = counted == Some(draft.rows)
        && ascending
        && draft.null_counts.len() == append.fields()
        && draft.null_counts.iter().all(|nulls| *nulls <= draft.rows)
        && draft.time.is_none_or(|(first, last)| first <= last);
    if fits { Ok(()) } else { Err(Error::invalid("what is said of a section is at odds with itself")) }
}

fn check_rows(append: Carrier<'_>, draft: &SectionDraft, rows: &DecodedSection) -> Result<()> {
    let fields = rows.schema.fields();
    let said: &[ColumnSpec] = match append {
        Carrier::Append(append) => &append.fields,
        // What a mutation looks up by is cast to what it is compared with.
        Carrier::Mutate(..) => &[],
    };
    let same = fields.len() == append.fields()
        && fields.iter().zip(said).all(|(f, c)| *f.name() == c.name && *f.data_type() == c.data_type);
    if !same {
        return Err(Error::invalid("a section has other columns than is said of it"));
    }
    let (mut count, mut nulls) = (0, vec![0; fields.len()]);
    for batch in &rows.batches {
        let stats = column_stats(batch, None)?;
        count += stats.rows;
        for (sum, nulls) in nulls.iter_mut().zip(&stats.null_counts) {
            *sum += nulls;
        }
    }
    if (count, &nulls) != (draft.rows, &draft.null_counts) {
        return Err(Error::invalid("a section has other rows than is said of it"));
    }
    Ok(())
}
