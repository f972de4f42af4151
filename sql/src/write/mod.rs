//! Statements that write rows: each is one transaction.

mod create_as;
pub(crate) mod dml;
mod insert;
mod values;

use std::sync::Arc;

use arrow::compute::CastOptions;
use arrow::util::display::FormatOptions;
use tandem_manifest::Manifest;
use tandem_types::Result;

use crate::database::{AppendRequest, Receipt, RowStream};
use crate::queries::{QueryGuard, QueryInfo};
use crate::session::Session;
use crate::transaction::Within;

pub(crate) use create_as::CreateAs;
pub(crate) use insert::Insert;

/// A value that does not fit is an error.
const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };

/// What a statement sees: the state that is committed, and the one that it acts on.
fn seen(session: &Session, within: Option<&Within>) -> (Arc<Manifest>, Arc<Manifest>) {
    match within {
        Some(within) => (Arc::clone(&within.seen.base), Arc::clone(within.view())),
        None => {
            let snapshot = session.engine().database().snapshot();
            (Arc::clone(&snapshot), snapshot)
        }
    }
}

/// Appends rows: to the open transaction, else as one of their own.
async fn append(
    session: &Session,
    within: Option<&Within>,
    request: AppendRequest,
    rows: RowStream,
) -> Result<Receipt> {
    match within {
        Some(within) => within.append(request, rows).await,
        None => session.engine().database().append(request, rows).await,
    }
}

/// Lists a statement that writes among the queries, so that it can be cancelled until it commits.
fn list(session: &Session, sql: &str, snapshot: &Manifest) -> Result<QueryGuard> {
    session.engine().registry().start(QueryInfo {
        id: None,
        session: session.id().to_owned(),
        user: None,
        statement: sql.to_owned(),
        snapshot: Some(snapshot.seq()),
    })
}
