//! Appends: a stream of rows becomes one transaction, in bounded memory.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::stream::{BoxStream, FuturesOrdered};
use futures::{StreamExt, TryStreamExt};
use tandem_format::{ObjectName, segment_path};
use tandem_manifest::{
    AppendIntent, AppendTarget, Manifest, OnConflict, SchemaPolicy, SectionDraft, Step, TableSpec,
    check_writable,
};
use tandem_segment::{Limits, decode_section};
use tandem_types::{Error, ErrorKind, Result, TableName};
use tokio::sync::Notify;

use crate::prepare::{Layout, PreparedSection, column_specs};
use crate::queue::{Answer, SectionBody};
use crate::{Committed, WriteToken, Writer};

/// Segments of one stream that are being uploaded while the next is filled.
const UPLOADS_AT_ONCE: usize = 2;

/// How often rows are prepared anew because their table changed meanwhile.
const RECASTS_MAX: u32 = 20;

/// Where rows go.
#[derive(Clone, Debug)]
pub struct Append {
    pub table: TableName,
    /// Of every batch in the stream; columns are matched by name.
    pub schema: SchemaRef,
    pub policy: SchemaPolicy,
    /// What becomes of rows whose key exists, on a table with one; `None`: as the table says.
    pub on_conflict: Option<OnConflict>,
    /// Creates the table in the same transaction.
    pub create: Option<CreateTable>,
    pub token: WriteToken,
    /// Told once the transaction has its place in the queue.
    pub queued: Option<Arc<Notify>>,
}

/// A table to be created together with its first rows.
#[derive(Clone, Debug)]
pub struct CreateTable {
    pub spec: TableSpec,
    pub if_not_exists: bool,
    pub replace: bool,
}

/// How an append looks on one state.
pub(crate) struct Plan {
    pub state: Arc<Manifest>,
    steps: Vec<Step>,
    pub target: AppendTarget,
    layout: Layout,
    schema: SchemaRef,
}

/// A section that was prepared for some plan: its rows are in memory or in a segment.
pub(crate) struct Kept {
    pub draft: SectionDraft,
    pub body: SectionBody,
}

impl Plan {
    /// How an append looks on a state.
    pub(crate) fn on(state: Arc<Manifest>, append: &Append) -> Result<Self> {
        check_writable(&append.table, append.create.as_ref().map(|create| &create.spec))?;
        let existing = state.table_named(&append.table);
        let mut steps = Vec::new();
        let new_table = |spec: &TableSpec| -> Result<_> {
            Ok((AppendTarget::New(spec.clone()), Layout::of_spec(&append.table, spec, append.policy)?))
        };
        let (target, layout) = match (&append.create, existing) {
            (Some(create), Some(table)) if create.if_not_exists => existing_table(table, append.policy),
            (Some(create), _) => {
                steps.push(Step::CreateTable {
                    name: append.table.clone(),
                    spec: create.spec.clone(),
                    if_not_exists: create.if_not_exists,
                    replace: create.replace,
                });
                new_table(&create.spec)?
            }
            (None, Some(table)) => existing_table(table, append.policy),
            // Created if the policy says so; else refused, by the rebase, which knows the newest state.
            (None, None) => {
                let columns = column_specs(&append.schema);
                new_table(&TableSpec { columns, ..TableSpec::default() })?
            }
        };
        let schema = layout.target_schema(&append.schema);
        Ok(Plan { state, steps, target, layout, schema })
    }

    /// The steps of the append, and the bodies of its sections.
    pub(crate) fn steps(&self, append: &Append, kept: &[Kept]) -> (Vec<Step>, Vec<SectionBody>) {
        let intent = AppendIntent {
            name: append.table.clone(),
            target: self.target.clone(),
            policy: append.policy,
            fields: column_specs(&self.schema),
            sections: kept.iter().map(|k| k.draft.clone()).collect(),
            on_conflict: append.on_conflict.clone(),
        };
        let mut steps = self.steps.clone();
        steps.push(Step::Append(intent));
        (steps, kept.iter().map(|k| k.body.clone()).collect())
    }
}

impl Writer {
    /// Appends all rows of the stream, or none, as one transaction.
    pub async fn append(
        &self,
        append: Append,
        rows: BoxStream<'_, Result<RecordBatch>>,
    ) -> Result<Committed> {
        if let Some(committed) = self.repeated(&append.token)? {
            return Ok(committed);
        }
        // Before the rows are read and uploaded, and asked again when they are sent.
        self.check_admission()?;
        match self.prepare_and_send(&append, rows).await {
            // A repeat may find the table gone, or its columns changed, since the first was committed.
            Err(error) if is_about_the_table(&error) => self.unprepared(&append.token, error).await,
            other => other,
        }
    }

    async fn prepare_and_send(
        &self,
        append: &Append,
        rows: BoxStream<'_, Result<RecordBatch>>,
    ) -> Result<Committed> {
        let mut plan = self.plan(append)?;
        let mut kept = self.take_in(&plan, rows).await?;
        for _ in 0..RECASTS_MAX {
            let (steps, bodies) = plan.steps(append, &kept);
            match self.send(plan.state.seq(), steps, bodies, &append.token, append.queued.as_deref()).await? {
                Answer::Committed(committed) => {
                    if !committed.duplicate {
                        metrics::counter!("tandem_appended_rows_total").increment(committed.rows);
                    }
                    return Ok(committed);
                }
                Answer::Refused(error) => return Err(error),
                Answer::Recast(reason) => {
                    tracing::debug!(table = %append.table, %reason, "preparing rows again");
                    plan = self.plan(append)?;
                    kept = self.recast(&plan, kept).await?;
                }
            }
        }
        Err(Error::serialization(format!(
            "table {} changed {RECASTS_MAX} times while rows were prepared for it: send them again",
            append.table
        )))
    }

    fn plan(&self, append: &Append) -> Result<Plan> {
        Plan::on(self.state(), append)
    }

    /// Cuts the stream into sections. All but a small last one are uploaded while the stream flows.
    pub(crate) async fn take_in(
        &self,
        plan: &Plan,
        mut rows: BoxStream<'_, Result<RecordBatch>>,
    ) -> Result<Vec<Kept>> {
        let mut kept = Vec::new();
        let mut uploads = FuturesOrdered::new();
        let mut open: Vec<RecordBatch> = Vec::new();
        let mut open_bytes = 0;
        loop {
            // Uploads go on while the client thinks.
            let batch = tokio::select! {
                biased;
                Some(done) = uploads.next(), if !uploads.is_empty() => {
                    kept.push(done?);
                    continue;
                }
                batch = rows.try_next() => match batch? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            if batch.num_rows() == 0 {
                continue;
            }
            for piece in pieces(batch, self.shared.config.section_bytes) {
                open_bytes += bytes_of(&piece);
                open.push(plan.layout.cast(&piece, &plan.schema)?);
                if open_bytes >= self.shared.config.section_bytes {
                    let section = plan.layout.section(&plan.schema, std::mem::take(&mut open))?;
                    open_bytes = 0;
                    uploads.push_back(self.upload(section));
                    if uploads.len() > UPLOADS_AT_ONCE
                        && let Some(done) = uploads.next().await
                    {
                        kept.push(done?);
                    }
                }
            }
        }
        while let Some(done) = uploads.next().await {
            kept.push(done?);
        }
        if !open.is_empty() {
            let section = plan.layout.section(&plan.schema, open)?;
            kept.push(self.place(section).await?);
        }
        Ok(kept)
    }

    /// Small sections ride in the commit, larger ones are uploaded.
    async fn place(&self, section: PreparedSection) -> Result<Kept> {
        if section.draft.len > self.shared.config.inline_bytes / 2 {
            return self.upload(section).await;
        }
        Ok(Kept { draft: section.draft, body: section.body })
    }

    pub(crate) async fn upload(&self, section: PreparedSection) -> Result<Kept> {
        let segment = ObjectName {
            base: self.state().seq(),
            writer: self.shared.id,
            random: self.shared.log.env().chance.next_u64(),
        };
        self.shared.log.env().store.create_data(&segment_path(&segment), section.body.chunks).await?;
        let draft = SectionDraft { segment: Some(segment), ..section.draft };
        // The rows are not kept: a long stream must not fill the memory, and readers find them in the segment.
        Ok(Kept { draft, body: SectionBody { chunks: Vec::new(), rows: None } })
    }

    /// Prepares rows anew for a table that changed, or was created by somebody else, since.
    async fn recast(&self, plan: &Plan, kept: Vec<Kept>) -> Result<Vec<Kept>> {
        let mut recast = Vec::with_capacity(kept.len());
        for old in kept {
            let batches = match (&old.body.rows, old.draft.segment) {
                (Some(rows), _) => rows.batches.clone(),
                (None, Some(segment)) => self.read_segment(&segment, &old.draft).await?,
                (None, None) => return Err(Error::internal("a section has neither rows nor a segment")),
            };
            let cast =
                batches.iter().map(|b| plan.layout.cast(b, &plan.schema)).collect::<Result<Vec<_>>>()?;
            let section = plan.layout.section(&plan.schema, cast)?;
            // What had to leave the memory once must not come back by the hundred.
            recast.push(match old.draft.segment {
                Some(_) => self.upload(section).await?,
                None => self.place(section).await?,
            });
        }
        Ok(recast)
    }

    async fn read_segment(&self, segment: &ObjectName, draft: &SectionDraft) -> Result<Vec<RecordBatch>> {
        let path = segment_path(segment);
        let range = draft.offset..draft.offset + draft.len;
        let read = self.shared.log.env().store.get_range(&path, range).await;
        let horizon = self.state().horizon();
        let bytes = read.map_err(|e| match e.kind() {
            ErrorKind::Damaged if segment.base < horizon => Error::serialization(format!(
                "the rows were uploaded too long ago to be committed, and are deleted: send them again ({e})"
            )),
            _ => e,
        })?;
        let decoded = decode_section(&bytes, Some(draft.crc32c), &Limits::default());
        Ok(decoded.map_err(|e| e.context(&path))?.batches)
    }
}

fn existing_table(table: &tandem_manifest::Table, policy: SchemaPolicy) -> (AppendTarget, Layout) {
    let target = AppendTarget::Existing { table: table.id(), schema_id: table.schema_id() };
    (target, Layout::of_table(table, policy))
}

/// Whether another state of the table could have led to another answer.
fn is_about_the_table(error: &Error) -> bool {
    use tandem_types::ErrorKind::{AlreadyExists, InvalidInput, NotFound, SchemaConflict, Serialization};
    matches!(error.kind(), AlreadyExists | InvalidInput | NotFound | SchemaConflict | Serialization)
}

fn bytes_of(batch: &RecordBatch) -> usize {
    let size = |c: &arrow::array::ArrayRef| {
        c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size())
    };
    batch.columns().iter().map(size).sum()
}

/// A batch cut so that no piece is much larger than a section.
fn pieces(batch: RecordBatch, section_bytes: usize) -> Vec<RecordBatch> {
    let count = (bytes_of(&batch) / section_bytes.max(1) + 1).min(batch.num_rows().max(1));
    if count == 1 {
        return vec![batch];
    }
    let rows = batch.num_rows().div_ceil(count);
    (0..batch.num_rows())
        .step_by(rows)
        .map(|start| batch.slice(start, rows.min(batch.num_rows() - start)))
        .collect()
}
