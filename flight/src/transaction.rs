//! Transactions of Flight SQL: opened and ended by actions, named by requests.
//!
//! A transaction's id leads to a session of its own, whose statements are part of it; any connection may use it. Ingestion
//! comes without an id from the most used client: it joins the one transaction that its session has open.

use std::sync::Arc;

use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionEndSavepointRequest, ActionEndTransactionRequest, EndTransaction,
    ProstMessageExt,
};
use bytes::Bytes;
use prost::Message;
use tandem_sql::{Prepared, Session};
use tandem_types::{Error, Result};

use crate::actions::unpack;
use crate::query::written;
use crate::state::{Caller, Reply, State, handle_text};

/// `EndSavepoint` of `ActionEndSavepointRequest`.
const RELEASE: i32 = 1;
const ROLLBACK: i32 = 2;

/// Between a transaction's id and what tells its savepoints apart.
const MARK: char = '/';

impl State {
    pub fn begin_transaction(&self, caller: &Caller, body: &[u8]) -> Result<Bytes> {
        let ActionBeginTransactionRequest {} = unpack(body)?;
        let id = self.handle();
        self.transactions.insert(id.clone(), caller.session.drive_transaction());
        let result = ActionBeginTransactionResult { transaction_id: id.into_bytes().into() };
        Ok(result.as_any().encode_to_vec().into())
    }

    pub async fn end_transaction(&self, caller: &Caller, body: &[u8]) -> Result<Reply<Vec<Bytes>>> {
        let request: ActionEndTransactionRequest = unpack(body)?;
        let (id, session) = self.driven(&request.transaction_id)?;
        let reply = match request.action() {
            EndTransaction::Commit => {
                let done = session.commit(caller.writing()).await?;
                written(Vec::new(), &done)
            }
            EndTransaction::Rollback => {
                session.roll_back()?;
                Reply::from(Vec::new())
            }
            EndTransaction::Unspecified => {
                return Err(Error::invalid("EndTransaction says neither commit nor rollback"));
            }
        };
        // One whose commit failed stays, for its client to roll it back.
        self.transactions.remove(&id);
        Ok(reply)
    }

    pub async fn begin_savepoint(&self, caller: &Caller, body: &[u8]) -> Result<Bytes> {
        let request: ActionBeginSavepointRequest = unpack(body)?;
        let (id, session) = self.driven(&request.transaction_id)?;
        let savepoint = format!("{id}{MARK}{}", self.handle());
        session.savepoint(&savepoint, &caller.reading()).await?;
        let result = ActionBeginSavepointResult { savepoint_id: savepoint.into_bytes().into() };
        Ok(result.as_any().encode_to_vec().into())
    }

    pub async fn end_savepoint(&self, body: &[u8]) -> Result<()> {
        let request: ActionEndSavepointRequest = unpack(body)?;
        let savepoint = handle_text("the savepoint's id", &request.savepoint_id)?;
        let id = savepoint.split_once(MARK).map_or(savepoint.as_str(), |(id, _)| id);
        let (_, session) = self.driven(id.as_bytes())?;
        match request.action {
            RELEASE => session.release(&savepoint).await,
            ROLLBACK => session.roll_back_to(&savepoint).await,
            _ => Err(Error::invalid("EndSavepoint says neither release nor rollback")),
        }
    }

    fn driven(&self, id: &[u8]) -> Result<(String, Arc<Session>)> {
        let id = handle_text("the transaction's id", id)?;
        let session = self.transactions.get(&id).ok_or_else(|| {
            Error::not_found(format!(
                "transaction {id:?} is unknown here: it has ended, or is another node's"
            ))
        })?;
        Ok((id, session))
    }

    /// The session that a statement is of: that of the transaction it names, else the caller's.
    pub fn session_of(&self, caller: &Caller, transaction: Option<&[u8]>) -> Result<Arc<Session>> {
        match transaction {
            None | Some([]) => Ok(Arc::clone(&caller.session)),
            Some(id) => {
                let (_, session) = self.driven(id)?;
                caller.session.adopt(&session);
                Ok(session)
            }
        }
    }

    /// The session of a request that has no room to name its transaction: of the one that the caller has open.
    pub fn session_told(&self, caller: &Caller) -> Result<Arc<Session>> {
        let mut open = caller.session.driven();
        match (open.pop(), open.is_empty()) {
            (None, _) => Ok(Arc::clone(&caller.session)),
            (Some(one), true) if !caller.key.is_shared && !caller.session.is_in_transaction() => Ok(one),
            _ => Err(Error::invalid(
                "whether these rows belong to an open transaction, and to which, cannot be told: it comes without a \
                 transaction's id, from a session that has several, or from a client that cannot be told from others; end \
                 the transactions first, or use a connection of its own",
            )),
        }
    }

    /// A prepared statement as it is run now. One of a transaction that has ended is of the next that its session opened:
    /// clients keep their statements over a commit.
    pub fn statement_now(&self, caller: &Caller, prepared: Prepared) -> Prepared {
        if !prepared.session().has_ended_transaction() {
            return prepared;
        }
        let mut open = caller.session.driven();
        match (open.pop(), open.is_empty()) {
            (Some(one), true) => prepared.of_session(one),
            (None, _) if prepared.session().ended_as_asked() => {
                prepared.of_session(Arc::clone(&caller.session))
            }
            _ => prepared,
        }
    }
}
