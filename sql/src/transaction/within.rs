//! One statement that writes, within a transaction.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use futures::{StreamExt, TryStreamExt};
use tandem_manifest::{Manifest, Step};
use tandem_types::{DEFAULT_CATALOG, Error, Result, TableName};
use tokio::sync::OwnedMutexGuard;

use super::{Collected, InUse, Seen, Transaction};
use crate::as_of::refuse_write;
use crate::database::{AppendRequest, Receipt, RowStream, StagedSection};
use crate::digest::AppendDigest;
use crate::error::IntoTandem;
use crate::options::{Ack, ReadOptions};
use crate::prepared::UpdateResult;
use crate::session::Session;
use crate::write::dml::PlannedDml;

/// A statement's place in a transaction; the next one waits until it is dropped.
pub(crate) struct Within {
    transaction: Arc<Transaction>,
    pub(crate) seen: Seen,
    digest: Vec<u8>,
    _turn: OwnedMutexGuard<()>,
    _in_use: InUse,
}

impl Within {
    /// `digest` is what the statement is told by.
    ///
    /// # Errors
    ///
    /// `NotWriter` where writes are not taken; `InvalidInput` in a transaction that only reads; how the transaction ended,
    /// if it has.
    pub(crate) async fn enter(
        session: &Session,
        transaction: &Arc<Transaction>,
        digest: Vec<u8>,
        read: &ReadOptions,
    ) -> Result<Self> {
        let transaction = Arc::clone(transaction);
        let in_use = transaction.enter()?;
        if transaction.mode.read_only {
            return Err(Error::invalid("the transaction is READ ONLY: nothing can be written in it"));
        }
        session.engine().database().check_writes()?;
        let turn = transaction.turn().await;
        let seen = transaction.seen(session, read).await?;
        if let Some(at) = seen.past {
            return Err(refuse_write(at));
        }
        Ok(Self { transaction, seen, digest, _turn: turn, _in_use: in_use })
    }

    /// The state that the statement sees.
    pub(crate) fn view(&self) -> &Arc<Manifest> {
        &self.seen.view
    }

    /// Notes the tables that a query of the statement's reads.
    pub(crate) fn note_plan(&self, plan: &LogicalPlan, default_schema: &str) -> Result<()> {
        if self.transaction.is_serializable() {
            let tables = tables_read(plan, default_schema)?;
            self.transaction.with_work(|work| {
                work.note_reads(tables);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What a statement that is done answers: nothing is committed, and what was done stands at the pinned state.
    fn receipt(&self, rows: u64) -> Receipt {
        Receipt { seq: self.seen.base.seq(), rows, duplicate: false, acked: Ack::Store }
    }

    /// Adds statements without rows.
    pub(crate) fn steps(&self, steps: Vec<Step>) -> Result<UpdateResult> {
        let collected = Collected { steps, digest: self.digest.clone(), ..Collected::default() };
        self.transaction.add(collected)?;
        Ok(UpdateResult::uncounted(self.receipt(0)))
    }

    /// Adds rows.
    pub(crate) async fn append(&self, request: AppendRequest, rows: RowStream) -> Result<Receipt> {
        let (steps, sections) = self.stage(request, rows).await?;
        let rows = sections.iter().map(|section| section.draft.rows).sum();
        let digest = self.digest.clone();
        self.transaction.add(Collected { steps, sections, digest, ..Collected::default() })?;
        Ok(self.receipt(rows))
    }

    async fn stage(
        &self,
        request: AppendRequest,
        rows: RowStream,
    ) -> Result<(Vec<Step>, Vec<StagedSection>)> {
        let database = self.transaction.engine.database();
        let (base, view) = (Arc::clone(&self.seen.base), Arc::clone(&self.seen.view));
        let staged = database.stage_append(request, base, view, self.transaction.held(), rows).await?;
        Ok((staged.steps, staged.sections))
    }

    /// As [`append`](Self::append), of rows that are no statement's: they tell what it was.
    pub(crate) async fn append_told(self, request: AppendRequest, rows: RowStream) -> Result<Receipt> {
        let told = Arc::new(Mutex::new(AppendDigest::new(&request.table, &request.schema)?));
        let telling = Arc::clone(&told);
        let rows = rows.and_then(move |batch| {
            let noted = telling.lock().unwrap_or_else(PoisonError::into_inner).add(&batch);
            std::future::ready(noted.map(|()| batch))
        });
        let create = request.create.as_ref().map(|c| (c.if_not_exists, c.replace));
        let (steps, sections) = self.stage(request, rows.boxed()).await?;
        let count = sections.iter().map(|section| section.draft.rows).sum();
        let mut digest = told.lock().unwrap_or_else(PoisonError::into_inner).finish();
        digest.extend(match create {
            None => [0, 0, 0],
            Some((if_not_exists, replace)) => [1, u8::from(if_not_exists), u8::from(replace)],
        });
        self.transaction.add(Collected { steps, sections, digest, ..Collected::default() })?;
        Ok(self.receipt(count))
    }

    /// Adds an `UPDATE` or a `DELETE`.
    pub(crate) async fn change(&self, planned: &PlannedDml) -> Result<UpdateResult> {
        let database = self.transaction.engine.database();
        let (steps, sections) = planned.steps(database.as_ref(), self.transaction.held()).await?;
        let unchanged = planned.unchanged.clone();
        // It is a fact only if nobody changes the table before the commit, which a serializable transaction sees to.
        let exact = planned.countable
            && (self.transaction.is_serializable() || unchanged.iter().any(|(id, _)| *id == planned.table));
        self.transaction.add(Collected { steps, sections, unchanged, digest: self.digest.clone() })?;
        Ok(UpdateResult { exact, ..self.receipt(planned.rows).into() })
    }
}

/// The tables of the database that a plan reads.
pub(crate) fn tables_read(plan: &LogicalPlan, default_schema: &str) -> Result<Vec<TableName>> {
    let mut found = Vec::new();
    let visit = |node: &LogicalPlan| {
        if let LogicalPlan::TableScan(scan) = node {
            let name = scan.table_name.clone().resolve(DEFAULT_CATALOG, default_schema);
            found.push(TableName::new(name.schema.as_ref(), name.table.as_ref()));
        }
        Ok(TreeNodeRecursion::Continue)
    };
    plan.apply_with_subqueries(visit).tandem()?;
    Ok(found)
}
