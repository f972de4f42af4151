//! Statements of a transaction.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tandem_manifest::Step;
use tandem_types::{Error, ErrorKind, Result};

use super::{Kind, PLANNING, Pinned, Prepared, analyse, one_statement, reads};
use crate::digest::statement_digest;
use crate::options::{ReadOptions, WriteOptions};
use crate::prepared::UpdateResult;
use crate::restore::drop_partitions;
use crate::session::Session;
use crate::statement::Statement;
use crate::transaction::{Transaction, Within};
use crate::write::dml;

impl Prepared {
    /// As a statement of a transaction.
    pub(super) async fn new_within(
        session: Arc<Session>,
        text: Arc<str>,
        transaction: Arc<Transaction>,
        read: &ReadOptions,
    ) -> Result<Self> {
        let engine = session.engine().clone();
        let limit = engine.config().planning_limit;
        let parsing = {
            let (session, text) = (Arc::clone(&session), Arc::clone(&text));
            async move { one_statement(&session, &text) }
        };
        let statement = engine.runtime().run_within(limit, PLANNING, parsing).await?;
        refuse_within(&statement)?;
        loop {
            let known = engine.database().snapshot().seq();
            let (pinned, _in_use) = match reads(&statement) {
                false => (Pinned::of(engine.database().snapshot()), None),
                true => {
                    let in_use = transaction.enter()?;
                    (Pinned::within(transaction.seen(&session, read).await?), Some(in_use))
                }
            };
            let work = {
                let (session, statement) = (Arc::clone(&session), statement.clone());
                Box::pin(async move { analyse(&session, statement, pinned).await })
            };
            match engine.runtime().run_within(limit, PLANNING, work).await {
                // What is not known here may have been created on another node a moment ago; a transaction that has read
                // nothing yet may begin after that.
                Err(unknown)
                    if unknown.kind() == ErrorKind::NotFound
                        && transaction.unpin()
                        && session.has_news_since(known).await => {}
                analysed => {
                    let (kind, parameters, schema) = analysed?;
                    return Ok(Self { session, sql: text, kind: Arc::new(kind), parameters, schema });
                }
            }
        }
    }

    /// Adds what it writes to a transaction.
    pub(super) async fn write_within(
        &self,
        transaction: &Arc<Transaction>,
        bound: Option<RecordBatch>,
        read: &ReadOptions,
    ) -> Result<UpdateResult> {
        let (session, sql) = (&self.session, &self.sql);
        let digest = statement_digest(&session.default_schema(), sql, bound.as_ref())?;
        let within = Within::enter(session, transaction, digest, read).await?;
        let options = WriteOptions::default();
        match self.kind.as_ref() {
            Kind::Insert(insert) => Box::pin(insert.run(session, sql, bound, options, Some(&within))).await,
            Kind::CreateAs(create) => Box::pin(create.run(session, sql, bound, options, Some(&within))).await,
            Kind::Dml(dml) => Box::pin(dml::run_within(session, dml, sql, bound, &within)).await,
            Kind::Steps(steps) => within.steps(steps.clone()),
            Kind::DropPartitions { table, labels } => {
                within.steps(vec![drop_partitions(within.view(), table, labels)?])
            }
            _ => Err(Error::internal("a statement that does not write was to write")),
        }
    }

    /// What it is, if it cannot be a part of a transaction.
    pub(super) fn alone(&self) -> Option<&'static str> {
        match self.kind.as_ref() {
            Kind::Optimize(_) => Some("OPTIMIZE TABLE"),
            Kind::Checkpoint => Some("CHECKPOINT"),
            Kind::Restore(_) => Some("RESTORE or UNDROP"),
            Kind::Steps(steps) => steps_alone(steps),
            _ => None,
        }
    }
}

/// The same, before the statement is bound to a state.
fn refuse_within(statement: &Statement) -> Result<()> {
    let alone = match statement {
        Statement::Optimize { .. } => Some("OPTIMIZE TABLE"),
        Statement::Checkpoint => Some("CHECKPOINT"),
        Statement::Restore { .. } => Some("RESTORE or UNDROP"),
        Statement::Steps(steps) => steps_alone(steps),
        _ => None,
    };
    alone.map_or(Ok(()), |what| Err(not_within(what)))
}

fn steps_alone(steps: &[Step]) -> Option<&'static str> {
    steps.iter().any(|step| matches!(step, Step::SetSettings { .. })).then_some("ALTER DATABASE")
}

pub(super) fn not_within(what: &str) -> Error {
    Error::unsupported(format!("{what} cannot be a part of a transaction: COMMIT or ROLLBACK first"))
}
