//! The changes of all tables in one stream: their columns differ, so each row is told as a JSON object.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StringBuilder};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow_schema::{DataType, Field, SchemaRef};
use futures::StreamExt;
use tandem_format::{CommitHeader, OnDuplicate, Op as LogOp, SectionKey};
use tandem_manifest::{Manifest, Table};
use tandem_types::{Error, Result, Seq, TableId, TableName};

use super::along::{Along, RUN, Then};
use super::cut::concerns;
use super::net::Told;
use super::out::{Out, Stop};
use super::request::{EveryRequest, Images, Subject, gone, table_fields, with_own};
use super::source::Source;
use super::stream::start;
use super::told::{Op, Teller, slices};
use super::walk::{Columns, Walk};
use crate::scan::{ScanContext, Shape};

/// Columns of the stream before those that every stream has.
const TABLE: &str = "_table";
const ROW: &str = "_row";

/// A walk along the log that tells all of it.
#[derive(Debug)]
pub(super) struct EveryTable {
    source: Source,
    context: Arc<ScanContext>,
    images: Images,
    schema: SchemaRef,
    next: Seq,
    to: Option<Seq>,
}

impl EveryTable {
    /// # Errors
    ///
    /// `HistoryGone` if the first commit cannot be told any more.
    pub(super) fn new(source: Source, request: &EveryRequest) -> Result<Self> {
        let from = request.from.max(Seq(1));
        let begin = source.newest().history_start();
        if from <= begin && begin > Seq(0) {
            return Err(gone(from, begin));
        }
        let own = [Field::new(TABLE, DataType::Utf8, false), Field::new(ROW, DataType::Utf8, true)];
        Ok(Self {
            context: Arc::new(ScanContext::new(&source.engine)),
            source,
            images: request.images,
            schema: with_own(own.into_iter()),
            next: from,
            to: request.to,
        })
    }

    fn passed(&mut self, next: Seq, out: &mut Out) {
        self.next = next;
        out.whole(next);
    }

    /// A table's own stream, of a commit or of what is told of several.
    fn walk_of(&self, subject: Subject) -> Walk {
        // The names of its columns are nobody's business but theirs: they meet no column of this stream.
        let schema = with_own(table_fields(&subject.columns));
        Walk {
            told: Told {
                source: self.source.clone(),
                context: Arc::clone(&self.context),
                columns: Arc::clone(&subject.columns),
                images: self.images,
            },
            schema,
            next: subject.from,
            to: Some(subject.from),
            subject,
            columns: Columns::Stay,
            held: None,
        }
    }

    /// Whether a commit does nothing but append rows that meet no others.
    fn only_appends(&self, header: &CommitHeader) -> bool {
        let mut ops = header.transactions.iter().flat_map(|transaction| &transaction.ops);
        ops.all(|op| match op {
            LogOp::Append { sections, .. } => {
                self.images == Images::None || sections.iter().all(|s| s.on_duplicate == OnDuplicate::Keep)
            }
            op => op.table().is_none(),
        })
    }

    /// Commits that only append: all of it is in the tails after the last.
    async fn tell_appends(&self, run: &[CommitHeader], out: &mut Out) -> std::result::Result<(), Stop> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let state = self.source.state(last.seq).await?;
        let mut shapes = Vec::new();
        let mut sections: Vec<(SectionKey, usize)> = Vec::new();
        for id in tables(run) {
            let Some(table) = state.table(id) else { continue };
            let walk = self.walk_of(Subject::of(table, table.name(), first.seq));
            let shape = Shape::new(&walk.told.table(table, table), &[]).await?;
            let of = table.tail().skip_while(|section| section.key.seq < first.seq);
            sections.extend(of.map(|section| (section.key, shapes.len())));
            shapes.push((table, shape, walk.schema));
        }
        sections.sort_unstable();
        for (key, place) in sections {
            let Some((table, shape, schema)) = shapes.get(place) else { continue };
            // A run has no gap.
            let at = key.seq.0.checked_sub(first.seq.0).and_then(|at| usize::try_from(at).ok());
            let header = at.and_then(|at| run.get(at));
            let section = table.tail_section(&key);
            let (Some(header), Some(section)) = (header, section) else { continue };
            out.whole(key.seq);
            let teller = Teller { schema: Arc::clone(schema), seq: key.seq, commit_time: header.commit_time };
            let stored = shape.load(section).await?;
            for slice in stored.batches.iter().flat_map(slices) {
                let rows = teller.all(Op::Insert, &shape.project(section, &section.live, &slice)?)?;
                out.rows(self.told(table.name(), &rows)?).await?;
            }
        }
        Ok(())
    }

    /// A commit that does more, table by table.
    async fn tell_commit(&self, header: &CommitHeader, out: &mut Out) -> std::result::Result<(), Stop> {
        let seq = header.seq;
        let ids = tables(std::slice::from_ref(header));
        if ids.is_empty() {
            return Ok(());
        }
        let after = self.source.state(seq).await?;
        let before = match seq {
            Seq(1) => None,
            _ => Some(self.source.state(Seq(seq.0.saturating_sub(1))).await?),
        };
        for id in ids {
            let old = before.as_deref().and_then(|state: &Manifest| state.table(id));
            let new = after.table(id);
            let Some(table) = new.or(old) else { continue };
            let walk = self.walk_of(Subject::of(table, table.name(), seq));
            // Columns that change and tables that go are told by the table's own stream.
            if new.is_some() && old.map(Table::name) != new.map(Table::name) {
                let teller =
                    Teller { schema: Arc::clone(&walk.schema), seq, commit_time: header.commit_time };
                out.rows(self.told(table.name(), &teller.marker(Op::Schema)?)?).await?;
            }
            if concerns(header, id) {
                let mut rows = start(&self.source.engine, walk, None);
                while let Some(batch) = rows.next().await {
                    out.rows(self.told(table.name(), &batch?.rows)?).await?;
                }
            }
        }
        Ok(())
    }

    /// Rows of a table's own stream as rows of this one.
    fn told(&self, table: &TableName, rows: &RecordBatch) -> Result<RecordBatch> {
        let count = rows.num_columns().saturating_sub(3);
        let own = rows.columns().get(count..).unwrap_or_default();
        let ops: Option<&StringArray> = own.get(1).and_then(|ops| ops.as_string_opt());
        let bare = |row: usize| {
            let op = ops.filter(|ops| row < ops.len()).map_or("", |ops| ops.value(row));
            op == Op::Schema.name() || (self.images == Images::None && op != Op::Insert.name())
        };
        let values: Vec<usize> = (0..count).collect();
        let texts = rows
            .project(&values)
            .and_then(|values| objects(&values))
            .map_err(|e| Error::unsupported(format!("rows of table {table} cannot be told as JSON: {e}")))?;
        let mut row_texts = StringBuilder::new();
        for row in 0..rows.num_rows() {
            row_texts.append_option(texts.get(row).filter(|_| !bare(row)));
        }
        let name = table.to_string();
        let names: StringArray = (0..rows.num_rows()).map(|_| Some(name.as_str())).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(row_texts.finish())];
        columns.extend_from_slice(own);
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|e| Error::internal(format!("changes do not fit the columns of their stream: {e}")))
    }
}

/// Each row as the text of an object that names all of its columns.
fn objects(rows: &RecordBatch) -> std::result::Result<Vec<String>, arrow_schema::ArrowError> {
    let mut text = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut text);
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    // A line break within a text is escaped.
    let text = String::from_utf8(text)
        .map_err(|e| arrow_schema::ArrowError::JsonError(format!("a value is no text: {e}")))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The tables that commits are on.
fn tables(commits: &[CommitHeader]) -> BTreeSet<TableId> {
    let ops = commits.iter().flat_map(|header| &header.transactions).flat_map(|transaction| &transaction.ops);
    ops.filter_map(LogOp::table).collect()
}

impl Along for EveryTable {
    fn source(&self) -> &Source {
        &self.source
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn at(&self) -> Seq {
        self.next
    }

    fn to(&self) -> Option<Seq> {
        self.to
    }

    fn whose(&self) -> String {
        "all tables".to_owned()
    }

    async fn tell_to(
        &mut self,
        newest: Arc<Manifest>,
        last: Seq,
        out: &mut Out,
    ) -> std::result::Result<Then, Stop> {
        drop(newest);
        let commits = self.source.commits(self.next, last, RUN).await?;
        let mut rest = commits.as_slice();
        while let [header, ..] = rest {
            let count = rest.iter().take_while(|header| self.only_appends(header)).count();
            let (run, later) = rest.split_at_checked(count.max(1)).unwrap_or((rest, &[]));
            match count {
                0 => Box::pin(self.tell_commit(header, out)).await?,
                _ => self.tell_appends(run, out).await?,
            }
            rest = later;
            self.passed(Seq(self.next.0.saturating_add(run.len() as u64)), out);
        }
        Ok(Then::On)
    }
}
