//! Statements that write rows: each is one transaction.

mod create_as;
pub(crate) mod dml;
mod insert;
mod values;

use arrow::compute::CastOptions;
use arrow::util::display::FormatOptions;
use tandem_manifest::Manifest;
use tandem_types::Result;

use crate::queries::{QueryGuard, QueryInfo};
use crate::session::Session;

pub(crate) use create_as::CreateAs;
pub(crate) use insert::Insert;

/// A value that does not fit is an error.
const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };

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
