//! Actions: the standard ones of Flight and Flight SQL, and `tandem.*` with JSON bodies.

use std::sync::Arc;

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, Command, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo,
    RenewFlightEndpointRequest,
};
use bytes::Bytes;
use prost::Message;
use serde::Deserialize;
use tandem_sql::{CollectRequest, Promotion, StoredShare};
use tandem_types::{Epoch, Error, ErrorKind, Result, TableName};

use crate::info::command;
use crate::json_ticket::name_parts;
use crate::messages::{
    CloseSessionResult, CloseStatus, GetSessionOptionsResult, SessionOptionValue, SetOptionError,
    SetOptionErrorValue, SetSessionOptionsRequest, SetSessionOptionsResult, decode,
};
use crate::state::{Caller, Reply, State, handle_text};

/// All actions that are understood, for ListActions.
const ACTIONS: &[(&str, &str)] = &[
    ("CreatePreparedStatement", "prepares a statement; body and result: messages of Flight SQL in an Any"),
    ("ClosePreparedStatement", "forgets a prepared statement; body: a message of Flight SQL in an Any"),
    ("CancelQuery", "cancels a query by its FlightInfo; body and result: messages of Flight SQL in an Any"),
    ("CancelFlightInfo", "cancels a query by its FlightInfo; body: CancelFlightInfoRequest"),
    ("RenewFlightEndpoint", "lets an endpoint's ticket live longer; body: RenewFlightEndpointRequest"),
    ("BeginTransaction", "opens a transaction; body and result: messages of Flight SQL in an Any"),
    ("EndTransaction", "commits a transaction or rolls it back; body: a message of Flight SQL in an Any"),
    ("BeginSavepoint", "marks a place in a transaction; body and result: messages of Flight SQL in an Any"),
    ("EndSavepoint", "rolls back to a savepoint or forgets it; body: a message of Flight SQL in an Any"),
    ("SetSessionOptions", "sets options of the session; body: SetSessionOptionsRequest"),
    ("GetSessionOptions", "reads the options of the session; body: GetSessionOptionsRequest"),
    ("CloseSession", "forgets the session; body: CloseSessionRequest"),
    ("tandem.Status", "the node's state as JSON; no body"),
    ("tandem.Compact", "compacts a table and waits for it; body: {\"table\": \"schema.table\"}"),
    ("tandem.Checkpoint", "writes a checkpoint; no body"),
    (
        "tandem.Collect",
        "deletes what nothing needs any more, or says what that would be; body: {\"dry_run\": false}, optional",
    ),
    (
        "tandem.Promote",
        "makes a node the primary; body: {\"node_id\": \"NAME\", \"force\": false}, both optional: by default the node \
         that is asked, in order",
    ),
];

/// What ListActions answers.
pub(crate) fn list() -> Vec<ActionType> {
    let action = |(name, description): &(&str, &str)| ActionType {
        r#type: (*name).to_owned(),
        description: (*description).to_owned(),
    };
    ACTIONS.iter().map(action).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompactBody {
    table: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CollectBody {
    dry_run: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PromoteBody {
    node_id: Option<String>,
    force: bool,
    /// Only while this is the present epoch.
    epoch: Option<u64>,
}

impl State {
    /// Runs an action; the bodies of its results.
    pub async fn act(&self, caller: Caller, action: Action) -> Result<Reply<Vec<Bytes>>> {
        caller.may_act(&action.r#type)?;
        let body = &action.body;
        let results = match action.r#type.as_str() {
            "CreatePreparedStatement" => vec![self.create_prepared(&caller, body).await?],
            "ClosePreparedStatement" => {
                let request: ActionClosePreparedStatementRequest = unpack(body)?;
                self.close_statement(&request.prepared_statement_handle)?;
                Vec::new()
            }
            "CancelQuery" => vec![self.cancel_query(body)?],
            "CancelFlightInfo" => vec![self.cancel_flight_info(body)?],
            "RenewFlightEndpoint" => vec![self.renew(body)?],
            "BeginTransaction" => vec![self.begin_transaction(&caller, body)?],
            "EndTransaction" => return self.end_transaction(&caller, body).await,
            "BeginSavepoint" => vec![self.begin_savepoint(&caller, body).await?],
            "EndSavepoint" => {
                self.end_savepoint(body).await?;
                Vec::new()
            }
            "SetSessionOptions" => return self.set_options(&caller, body),
            "GetSessionOptions" => vec![get_options(&caller)],
            "CloseSession" => {
                let ended = self.sessions.close(&caller.key);
                self.transactions.remove_where(|held| ended.iter().any(|one| Arc::ptr_eq(one, held)));
                vec![encoded(&CloseSessionResult { status: CloseStatus::Closed as i32 })]
            }
            "tandem.Status" => {
                // Of the moment, unless the request demands a state: then it says that the node can reach it.
                let reading = caller.reading();
                if caller.options.latest == Some(true) || caller.options.min_seq.is_some() {
                    self.engine.database().settle(&reading).await?;
                }
                vec![(self.node.status)().to_string().into()]
            }
            "tandem.Compact" => vec![self.compact(&caller, body).await?],
            "tandem.Checkpoint" => {
                let seq = self.engine.database().checkpoint().await?;
                vec![format!("{{\"seq\":{seq}}}").into()]
            }
            "tandem.Collect" => vec![self.collect(body).await?],
            "tandem.Promote" => vec![self.promote(body).await?],
            name => return Err(unknown(name)),
        };
        Ok(results.into())
    }

    async fn create_prepared(&self, caller: &Caller, body: &[u8]) -> Result<Bytes> {
        let request: ActionCreatePreparedStatementRequest = unpack(body)?;
        let session = self.session_of(caller, request.transaction_id.as_deref())?;
        let result = self.create_statement(caller, &session, &request.query).await?;
        // Not through arrow-flight's own message, which lacks `is_update`.
        let any = Any {
            type_url: "type.googleapis.com/arrow.flight.protocol.sql.ActionCreatePreparedStatementResult"
                .to_owned(),
            value: result.encode_to_vec().into(),
        };
        Ok(encoded(&any))
    }

    fn cancel_query(&self, body: &[u8]) -> Result<Bytes> {
        /// `CancelResult` of `ActionCancelQueryResult`.
        const CANCELLED: i32 = 1;
        const NOT_CANCELLABLE: i32 = 3;
        let request: ActionCancelQueryRequest = unpack(body)?;
        let info: FlightInfo = decode("the FlightInfo to cancel", &request.info)?;
        let result = if self.cancel(&info)? { CANCELLED } else { NOT_CANCELLABLE };
        Ok(encoded(&ActionCancelQueryResult { result }.as_any()))
    }

    fn cancel_flight_info(&self, body: &[u8]) -> Result<Bytes> {
        let request: CancelFlightInfoRequest = decode("CancelFlightInfoRequest", body)?;
        let info =
            request.info.ok_or_else(|| Error::invalid("CancelFlightInfoRequest names no FlightInfo"))?;
        let status = if self.cancel(&info)? { CancelStatus::Cancelled } else { CancelStatus::NotCancellable };
        Ok(encoded(&CancelFlightInfoResult { status: status as i32 }))
    }

    /// Ends the queries behind a `FlightInfo`, and lets nobody start them again.
    fn cancel(&self, info: &FlightInfo) -> Result<bool> {
        let mut any = false;
        for ticket in info.endpoint.iter().filter_map(|e| e.ticket.as_ref()) {
            if let Command::TicketStatementQuery(query) = command(&ticket.ticket)? {
                let handle = handle_text("the ticket", &query.statement_handle)?;
                let unread = self.tickets.remove(&handle).is_some();
                any |= self.engine.cancel(&handle) || unread;
            }
        }
        Ok(any)
    }

    fn renew(&self, body: &[u8]) -> Result<Bytes> {
        let request: RenewFlightEndpointRequest = decode("RenewFlightEndpointRequest", body)?;
        let mut endpoint =
            request.endpoint.ok_or_else(|| Error::invalid("RenewFlightEndpointRequest names no endpoint"))?;
        let ticket = endpoint.ticket.clone().unwrap_or_default();
        if let Command::TicketStatementQuery(query) = command(&ticket.ticket)? {
            // Looking at a ticket is what makes its time start anew.
            self.held(&handle_text("the ticket", &query.statement_handle)?)?;
            self.extend(&mut endpoint);
        }
        Ok(encoded(&endpoint))
    }

    fn set_options(&self, caller: &Caller, body: &[u8]) -> Result<Reply<Vec<Bytes>>> {
        let request: SetSessionOptionsRequest = decode("SetSessionOptionsRequest", body)?;
        let mut result = SetSessionOptionsResult::default();
        for (name, value) in &request.session_options {
            if let Err(error) = caller.session.set_option(name, value.to_text().as_deref()) {
                tracing::debug!(name, %error, "a session option was refused");
                result.errors.insert(name.clone(), set_option_error(caller, name, error.kind()));
            }
        }
        let reply = Reply::from(vec![encoded(&result)]);
        if caller.key.has_cookie {
            return Ok(reply);
        }
        // Clients that keep cookies find the session again from any connection.
        Ok(reply.with("set-cookie", self.sessions.mint_cookie(caller.session.clone())))
    }

    async fn compact(&self, caller: &Caller, body: &[u8]) -> Result<Bytes> {
        let body: CompactBody = serde_json::from_slice(body)
            .map_err(|e| Error::invalid(format!("the body of tandem.Compact is wrong: {e}")))?;
        let name: TableName = caller.table_name(&name_parts(&body.table)?)?;
        let receipt = self.engine.database().optimize(&name).await?;
        Ok(format!("{{\"seq\":{},\"rows\":{}}}", receipt.seq, receipt.rows).into())
    }

    async fn collect(&self, body: &[u8]) -> Result<Bytes> {
        let body: CollectBody = match body {
            [] => CollectBody::default(),
            text => serde_json::from_slice(text)
                .map_err(|e| Error::invalid(format!("the body of tandem.Collect is wrong: {e}")))?,
        };
        let done = self.engine.database().collect(CollectRequest { dry_run: body.dry_run }).await?;
        let shares = |shares: &[StoredShare]| -> Vec<serde_json::Value> {
            let share = |share: &StoredShare| {
                serde_json::json!({
                    "kind": share.kind,
                    "held_by": share.held_by,
                    "objects": share.objects,
                    "bytes": share.bytes,
                })
            };
            shares.iter().map(share).collect()
        };
        let answer = serde_json::json!({
            "dry_run": body.dry_run,
            "seq": done.seq,
            "horizon": done.horizon,
            "history_start": done.history_start,
            "log_floor": done.floor,
            "history_could_start": done.by_window,
            "history_held_by": done.held_by,
            "garbage": shares(&done.garbage),
            "held": shares(&done.held),
            "deleted_objects": done.deleted_objects,
            "deleted_bytes": done.deleted_bytes,
            "failed": done.failed,
        });
        Ok(answer.to_string().into())
    }

    async fn promote(&self, body: &[u8]) -> Result<Bytes> {
        let body: PromoteBody = match body {
            [] => PromoteBody::default(),
            text => serde_json::from_slice(text)
                .map_err(|e| Error::invalid(format!("the body of tandem.Promote is wrong: {e}")))?,
        };
        let promotion = Promotion { node_id: body.node_id, force: body.force, epoch: body.epoch.map(Epoch) };
        let promoted = self.engine.database().promote(promotion).await?;
        let answer = serde_json::json!({
            "node_id": promoted.node_id,
            "address": promoted.address,
            "epoch": promoted.epoch.0,
            "seq": promoted.seq.0,
            "changed": promoted.changed,
        });
        Ok(answer.to_string().into())
    }
}

fn get_options(caller: &Caller) -> Bytes {
    let options = caller.session.options().into_iter();
    encoded(&GetSessionOptionsResult {
        session_options: options.map(|(name, value)| (name, SessionOptionValue::text(value))).collect(),
    })
}

fn set_option_error(caller: &Caller, name: &str, kind: ErrorKind) -> SetOptionError {
    let known = caller.session.option(name).is_ok();
    let value = match kind {
        ErrorKind::Unsupported => SetOptionErrorValue::InvalidName,
        ErrorKind::InvalidInput | ErrorKind::NotFound if known => SetOptionErrorValue::InvalidValue,
        ErrorKind::InvalidInput | ErrorKind::NotFound => SetOptionErrorValue::InvalidName,
        _ => SetOptionErrorValue::Error,
    };
    SetOptionError { value: value as i32 }
}

fn unknown(name: &str) -> Error {
    match name {
        "CreatePreparedSubstraitPlan" => Error::unsupported("Substrait plans are not supported"),
        _ => Error::invalid(format!("unknown action {name:?}; ListActions names those there are")),
    }
}

/// The message in the `Any` that bodies of Flight SQL's own actions are.
pub(crate) fn unpack<M: ProstMessageExt>(body: &[u8]) -> Result<M> {
    let any: Any = decode("the action's body", body)?;
    any.unpack().map_err(|e| Error::invalid(format!("the action's body is broken: {e}")))?.ok_or_else(|| {
        Error::invalid(format!("the action's body is a {:?}, not a {:?}", any.type_url, M::type_url()))
    })
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
