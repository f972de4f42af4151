//! Who may do what through Flight.
//!
//! Nothing reaches the service, of whatever method or path, that the [`layer`] in front of it has not let in; it leaves
//! a [`Grant`] with the request, and without one there is no right. What a right to read suffices for is listed here;
//! all else needs the right to write.

use std::sync::Arc;

use arrow_flight::sql::Command;
use tandem_access::{Access, Grant, Right};
use tandem_env::Clock;
use tandem_sql::Prepared;
use tandem_types::{Error, Result};
use tonic::service::{Interceptor, InterceptorLayer};
use tonic::{Extensions, Request, Status};

use crate::errors::to_status;
use crate::state::Caller;

/// Requests that were not let in.
const REFUSED: &str = "tandem_auth_refused_total";

/// Actions that change nothing but the asker's own session, statements and queries. What a transaction commits was written
/// by statements, which need the right to write.
const READING_ACTIONS: &[&str] = &[
    "CreatePreparedStatement",
    "ClosePreparedStatement",
    "BeginTransaction",
    "EndTransaction",
    "BeginSavepoint",
    "EndSavepoint",
    "CancelQuery",
    "CancelFlightInfo",
    "RenewFlightEndpoint",
    "SetSessionOptions",
    "GetSessionOptions",
    "CloseSession",
    "tandem.Status",
];

/// Lets requests in, or not.
pub(crate) fn layer(
    access: Access,
    clock: Arc<dyn Clock>,
) -> InterceptorLayer<impl Interceptor + Clone + Send + Sync + 'static> {
    InterceptorLayer::new(move |mut request: Request<()>| -> std::result::Result<Request<()>, Status> {
        let headers = request.metadata().get_all("authorization");
        // A header that is no text is like one that is not understood.
        let headers = headers.iter().map(|value| value.to_str().unwrap_or_default());
        match access.admit(headers, clock.now_micros()) {
            Ok(grant) => {
                request.extensions_mut().insert(grant);
                Ok(request)
            }
            Err(error) => {
                metrics::counter!(REFUSED, "via" => "flight").increment(1);
                Err(to_status(&error))
            }
        }
    })
}

/// What the layer left with a request.
pub(crate) fn grant(extensions: &Extensions) -> Result<Grant> {
    extensions.get::<Grant>().cloned().ok_or_else(|| Error::unauthenticated("nobody let this request in"))
}

impl Caller {
    /// Insists on what an action needs.
    pub fn may_act(&self, action: &str) -> Result<()> {
        if READING_ACTIONS.contains(&action) {
            return self.grant.require(Right::Read, action);
        }
        self.grant.require(Right::Write, &format!("action {action:?}"))
    }

    /// Insists on what a DoPut of a command needs.
    pub fn may_put(&self, command: &Command) -> Result<()> {
        match command {
            // Parameters of a query change nothing; what a statement needs is known where it runs.
            Command::CommandPreparedStatementQuery(_)
            | Command::CommandPreparedStatementUpdate(_)
            | Command::CommandStatementUpdate(_) => self.grant.require(Right::Read, "DoPut"),
            other => self.grant.require(Right::Write, &format!("DoPut of {}", short(other))),
        }
    }

    /// Insists on the right to append rows.
    pub fn may_append(&self) -> Result<()> {
        self.grant.require(Right::Write, "DoPut of rows")
    }

    /// Insists on what a statement needs that is no query.
    pub fn may_run(&self, statement: &Prepared) -> Result<()> {
        if statement.only_for_its_session() {
            return self.grant.require(Right::Read, "the statement");
        }
        self.grant.require(Right::Write, "a statement that changes something")
    }
}

/// A command's name without its package.
fn short(command: &Command) -> String {
    let url = command.clone().into_any().type_url;
    url.rsplit('.').next().unwrap_or_default().to_owned()
}
