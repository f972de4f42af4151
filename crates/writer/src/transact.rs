//! Transactions of several statements: each is prepared as it comes, all are committed together.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::stream::BoxStream;
use tandem_manifest::{AppendTarget, Manifest, SectionDraft, Step, Table, TableSpec};
use tandem_segment::DecodedSection;
use tandem_types::{Partition, Result, Seq};

use crate::append::{Append, Kept, Plan};
use crate::prepare::{PreparedSection, column_specs};
use crate::queue::{Answer, SectionBody};
use crate::{Committed, WriteToken, Writer};

/// Statements that wait for their COMMIT. Dropped, they are undone; what they uploaded is named by nobody and collected.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// In the order in which they act.
    pub steps: Vec<Step>,
    /// One for each section of the steps, in order.
    bodies: Vec<SectionBody>,
}

/// What a transaction's COMMIT was answered.
#[derive(Clone, Debug)]
pub enum Transacted {
    Committed(Committed),
    /// A table changed since its rows were prepared, in a way that needs them prepared again: nothing is committed.
    Recast(tandem_types::Error),
}

impl Prepared {
    /// A statement without rows.
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Everything of another one, behind what is here.
    pub fn extend(&mut self, other: Self) {
        self.steps.extend(other.steps);
        self.bodies.extend(other.bodies);
    }

    /// Without its steps, one for each section.
    pub fn into_sections(self) -> impl Iterator<Item = Self> {
        self.bodies.into_iter().map(|body| Self { steps: Vec::new(), bodies: vec![body] })
    }

    /// The rows of each section, in order: `None` for those that had to be uploaded.
    pub fn rows(&self) -> impl Iterator<Item = Option<&Arc<DecodedSection>>> {
        self.bodies.iter().map(|body| body.rows.as_ref())
    }

    /// Encoded bytes that are held in memory.
    pub fn bytes(&self) -> u64 {
        self.bodies.iter().flat_map(|body| &body.chunks).map(|chunk| chunk.len() as u64).sum()
    }
}

impl Writer {
    /// Encodes the rows of an append that is one statement of a transaction. `base` is the snapshot that the transaction began
    /// on, `view` the same with the transaction's earlier statements. What does not fit into `room` bytes is uploaded.
    ///
    /// # Errors
    ///
    /// As of [`Writer::append`], as far as they do not need a commit.
    pub async fn prepare_append(
        &self,
        append: &Append,
        base: &Manifest,
        view: Arc<Manifest>,
        room: u64,
        rows: BoxStream<'_, Result<RecordBatch>>,
    ) -> Result<Prepared> {
        self.check_admission()?;
        let mut plan = Plan::on(view, append)?;
        // A table that the transaction itself creates has no id yet.
        if let AppendTarget::Existing { table, .. } = &plan.target
            && base.table(*table).is_none()
            && let Some(table) = plan.state.table(*table)
        {
            plan.target = AppendTarget::New(spec_of(table));
        }
        let mut kept = self.take_in(&plan, rows).await?;
        let mut left = room;
        for section in &mut kept {
            if section.draft.segment.is_some() {
                continue;
            }
            if section.draft.len <= left {
                left -= section.draft.len;
                continue;
            }
            let Kept { draft, body } = section;
            *section = self.upload(PreparedSection { draft: draft.clone(), body: body.clone() }).await?;
        }
        let (steps, bodies) = plan.steps(append, &kept);
        Ok(Prepared { steps, bodies })
    }

    /// Encodes what a mutation looks up: the section for its draft. Larger than `room` bytes, it is uploaded.
    ///
    /// # Errors
    ///
    /// As of the store.
    pub async fn prepare_lookup(
        &self,
        schema: &SchemaRef,
        batches: Vec<RecordBatch>,
        room: u64,
    ) -> Result<(SectionDraft, Prepared)> {
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let mut null_counts = vec![0u64; schema.fields().len()];
        for batch in &batches {
            for (sum, column) in null_counts.iter_mut().zip(batch.columns()) {
                *sum += column.logical_null_count() as u64;
            }
        }
        let encoded = tandem_segment::encode_section(schema, &batches)?;
        let draft = SectionDraft {
            segment: None,
            offset: 0,
            len: encoded.len,
            crc32c: encoded.crc32c,
            rows: rows as u64,
            time: None,
            partitions: vec![(Partition(0), rows as u64)],
            null_counts,
        };
        let rows = Some(Arc::new(DecodedSection { schema: schema.clone(), batches }));
        let section = PreparedSection { draft, body: SectionBody { chunks: encoded.chunks, rows } };
        let kept = match section.draft.len <= room {
            true => Kept { draft: section.draft, body: section.body },
            false => self.upload(section).await?,
        };
        Ok((kept.draft, Prepared { steps: Vec::new(), bodies: vec![kept.body] }))
    }

    /// Commits all of it as one transaction, formed on the state at `base`.
    ///
    /// # Errors
    ///
    /// Why it was refused; `Serialization` where a precondition did not hold: then all of it may be tried again.
    pub async fn transact(&self, base: Seq, prepared: &Prepared, token: &WriteToken) -> Result<Transacted> {
        if let Some(committed) = self.repeated(token)? {
            return Ok(Transacted::Committed(committed));
        }
        let (steps, bodies) = (prepared.steps.clone(), prepared.bodies.clone());
        match self.send(base, steps, bodies, token, None).await? {
            Answer::Committed(committed) => Ok(Transacted::Committed(committed)),
            Answer::Recast(error) => Ok(Transacted::Recast(error)),
            Answer::Refused(error) => Err(error),
        }
    }
}

/// A table as a statement would declare it.
fn spec_of(table: &Table) -> TableSpec {
    let names = |ids: &[tandem_types::ColumnId]| -> Vec<String> {
        ids.iter().filter_map(|id| table.schema().column(*id)).map(|c| c.name.clone()).collect()
    };
    let columns = column_specs(&arrow_schema::Schema::new(
        table
            .schema()
            .columns
            .iter()
            .map(|c| arrow_schema::Field::new(&c.name, c.data_type.clone(), c.nullable))
            .collect::<Vec<_>>(),
    ));
    TableSpec {
        columns,
        timestamp: Some(table.timestamp().map_or_else(|| "none".to_owned(), |c| c.name.clone())),
        partition_by: Some(table.partition_by()),
        order_by: Some(names(table.order_by())),
        primary_key: Some(names(table.primary_key())).filter(|key| !key.is_empty()),
        options: table.def().options.clone(),
    }
}
