//! Along the log: which commits have to do with the table, and what is told of them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use tandem_format::CommitHeader;
use tandem_manifest::{Manifest, Table};
use tandem_types::{Result, Seq, TableSchema};

use super::along::{Along, RUN, Then};
use super::cut::{Kind, Part, kind, parts};
use super::net::{Net, Told};
use super::out::{Out, Stop};
use super::request::{Images, Subject};
use super::source::Source;
use super::told::{Op, Teller, slices};
use super::whole;
use crate::scan::Shape;
use crate::wire::wire_type;

/// What happens at a commit that changes the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// The walk ends: what follows has another schema.
    End,
    /// The columns that are told stay, whatever they are called at the time.
    Stay,
}

/// A walk along the log.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) told: Told,
    pub(super) subject: Subject,
    /// Of the stream.
    pub(super) schema: SchemaRef,
    pub(super) next: Seq,
    /// The last commit that is told.
    pub(super) to: Option<Seq>,
    pub(super) columns: Columns,
    /// The table with the rows that the next commit which concerns it finds; perhaps in other files. A state from before
    /// would have to be loaded.
    pub(super) held: Option<Table>,
}

/// A commit, as far as it concerns the table.
struct Cut {
    /// The table before it.
    before: Option<Table>,
    parts: Vec<(Part, Option<Table>, Option<Table>)>,
}

impl Along for Walk {
    fn source(&self) -> &Source {
        &self.told.source
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
        format!("table {}", self.subject.name)
    }

    async fn tell_to(
        &mut self,
        newest: Arc<Manifest>,
        last: Seq,
        out: &mut Out,
    ) -> std::result::Result<Then, Stop> {
        let table = newest.table(self.subject.table);
        if let Some(table) = table.filter(|table| table.changed() < self.next) {
            // The one from before may be about to be forgotten.
            self.held = Some(table.clone());
            self.passed(last.next(), out);
            return Ok(Then::On);
        }
        drop(newest);
        self.tell_commits(last, out).await
    }
}

impl Walk {
    fn passed(&mut self, next: Seq, out: &mut Out) {
        self.next = next;
        out.whole(next);
    }

    /// Tells some commits up to one that is applied.
    async fn tell_commits(&mut self, last: Seq, out: &mut Out) -> std::result::Result<Then, Stop> {
        let commits = self.source().commits(self.next, last, RUN).await?;
        let id = self.subject.table;
        let kinds: Vec<Kind> = commits.iter().map(|header| kind(header, id)).collect();
        let mut rest = commits.as_slice();
        let mut kinds = kinds.as_slice();
        while let ([header, ..], [kind, ..]) = (rest, kinds) {
            let plain = !self.subject.keyed || self.told.images == Images::None;
            let count = match kind {
                Kind::Nothing | Kind::Compacts => 1,
                Kind::Appends { .. } if plain => {
                    let count = stretch(kinds);
                    let (run, _) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                    self.tell_appends(run, out).await?;
                    count
                }
                Kind::Appends { .. } | Kind::Changes => {
                    if Box::pin(self.tell_commit(header, out)).await? == Then::End {
                        return Ok(Then::End);
                    }
                    1
                }
            };
            (rest, kinds) = (rest.get(count..).unwrap_or_default(), kinds.get(count..).unwrap_or_default());
            self.passed(Seq(self.next.0.saturating_add(count as u64)), out);
        }
        Ok(Then::On)
    }

    /// Commits that append to a table where no row meets another: all that they appended is in the tail after the last.
    async fn tell_appends(&mut self, run: &[CommitHeader], out: &mut Out) -> std::result::Result<(), Stop> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let state = self.source().state(last.seq).await?;
        let Some(table) = state.table(self.subject.table) else { return Ok(()) };
        self.held = Some(table.clone());
        let times: HashMap<Seq, i64> = run.iter().map(|header| (header.seq, header.commit_time)).collect();
        let shape = Shape::new(&self.told.table(table, table), &[]).await?;
        for section in table.tail().skip_while(|section| section.key.seq < first.seq) {
            let seq = section.key.seq;
            let Some(commit_time) = times.get(&seq).copied() else { break };
            out.whole(seq);
            let teller = Teller { schema: Arc::clone(&self.schema), seq, commit_time };
            let stored = shape.load(section).await?;
            for slice in stored.batches.iter().flat_map(slices) {
                let rows = shape.project(section, &section.live, &slice)?;
                out.rows(teller.all(Op::Insert, &rows)?).await?;
            }
        }
        Ok(())
    }

    /// A commit that does more.
    async fn tell_commit(&mut self, header: &CommitHeader, out: &mut Out) -> std::result::Result<Then, Stop> {
        let seq = header.seq;
        let id = self.subject.table;
        let after = self.source().state(seq).await?;
        let cut = self.cut(header, &after).await?;
        self.held = after.table(id).cloned();
        let teller = Teller { schema: Arc::clone(&self.schema), seq, commit_time: header.commit_time };
        let Some(table) = after.table(id) else {
            if cut.before.is_none() {
                return Ok(Then::On);
            }
            // Whoever holds its rows knows what to do.
            out.rows(teller.marker(Op::Schema)?).await?;
            if self.columns == Columns::Stay {
                return Ok(Then::On);
            }
            // What was made in its place by the same commit has its rows in it.
            if after.table_named(&self.subject.name).is_none() {
                self.passed(seq.next(), out);
            }
            return Ok(Then::End);
        };
        match self.columns {
            Columns::End if !same_columns(&self.told.columns, table.schema()) => {
                out.rows(teller.marker(Op::Schema)?).await?;
                return Ok(Then::End);
            }
            Columns::Stay
                if cut.before.as_ref().is_some_and(|b| !same_columns(b.schema(), table.schema())) =>
            {
                out.rows(teller.marker(Op::Schema)?).await?;
            }
            _ => {}
        }
        for (part, before, after) in cut.parts {
            self.tell_part(&teller, &part, before.as_ref(), after.as_ref(), out).await?;
        }
        Ok(Then::On)
    }

    /// The parts of a commit, each with the table before and after it.
    async fn cut(&self, header: &CommitHeader, after: &Arc<Manifest>) -> Result<Cut> {
        let id = self.subject.table;
        let compacts = header
            .transactions
            .iter()
            .flat_map(|t| &t.ops)
            .any(|op| matches!(op, tandem_format::Op::Replace(replace) if replace.table == id));
        let parts = parts(header, id);
        if let ([part], false, Some(held)) = (parts.as_slice(), compacts, &self.held)
            // Which files the rows before are in is of no importance.
            && !part.whole
            && !part.removes
        {
            let between = (part.clone(), Some(held.clone()), after.table(id).cloned());
            return Ok(Cut { before: Some(held.clone()), parts: vec![between] });
        }
        let before = self.source().state(Seq(header.seq.0.saturating_sub(1))).await?;
        let alone = parts.len() == 1 && !compacts;
        let state = async |transactions: usize| {
            if transactions == 0 {
                return Ok(Arc::clone(&before));
            }
            if transactions == header.transactions.len() {
                return Ok(Arc::clone(after));
            }
            self.source().state_within(header.seq, transactions).await
        };
        let mut all = Vec::with_capacity(parts.len());
        for part in parts {
            let (from, to) = match alone {
                true => (Arc::clone(&before), Arc::clone(after)),
                false => (state(part.transactions.start).await?, state(part.transactions.end).await?),
            };
            all.push((part, from.table(id).cloned(), to.table(id).cloned()));
        }
        Ok(Cut { before: before.table(id).cloned(), parts: all })
    }

    async fn tell_part(
        &self,
        teller: &Teller,
        part: &Part,
        before: Option<&Table>,
        after: Option<&Table>,
        out: &mut Out,
    ) -> std::result::Result<(), Stop> {
        match (before, after) {
            (Some(before), Some(after)) if !part.whole => {
                Net { told: &self.told, teller, before, after, part }.tell(out).await
            }
            _ => whole::tell(&self.told, teller, before, after, out).await,
        }
    }
}

/// How many of these commits, the first of which appends, are told from the state after the last of them.
fn stretch(kinds: &[Kind]) -> usize {
    let mut count = 1;
    for (place, kind) in kinds.iter().enumerate().skip(1) {
        match kind {
            Kind::Nothing => {}
            Kind::Appends { compacts: false } => count = place + 1,
            // It may have taken rows of earlier commits out of the tail.
            Kind::Appends { compacts: true } | Kind::Compacts | Kind::Changes => break,
        }
    }
    count
}

/// Whether what is told of two versions of a table looks the same.
fn same_columns(a: &TableSchema, b: &TableSchema) -> bool {
    let shown = |schema: &TableSchema| -> Vec<_> {
        schema.columns.iter().map(|c| (c.id, c.name.clone(), wire_type(&c.data_type))).collect()
    };
    shown(a) == shown(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_ends_before_rows_may_have_moved() {
        use Kind::{Appends, Changes, Compacts, Nothing};
        let (a, c) = (Appends { compacts: false }, Appends { compacts: true });
        assert_eq!(stretch(&[a]), 1);
        assert_eq!(stretch(&[c, Nothing, a, Nothing]), 3);
        assert_eq!(stretch(&[a, a, c, a]), 2);
        assert_eq!(stretch(&[a, Nothing, Compacts, a]), 1);
        assert_eq!(stretch(&[a, a, Changes]), 2);
    }
}
