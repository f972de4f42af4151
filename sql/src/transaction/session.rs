//! Transactions of a session: by SQL, or driven by its client.

use std::sync::{Arc, PoisonError};

use tandem_types::{Error, Result};

use super::{Seen, Transaction, TransactionMode, Within};
use crate::database::{AppendRequest, Receipt, RowStream};
use crate::options::{ReadOptions, WriteOptions};
use crate::prepared::UpdateResult;
use crate::session::Session;
use crate::statement::Control;

impl Session {
    /// The transaction that its statements are part of.
    pub(crate) fn transaction(&self) -> Option<Arc<Transaction>> {
        self.transaction_slot().clone()
    }

    /// Whether its statements are part of a transaction that was begun by SQL.
    pub fn is_in_transaction(&self) -> bool {
        !self.is_driven() && self.transaction_slot().is_some()
    }

    /// What its open transaction has pinned.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.transaction_slot().as_ref().and_then(|transaction| transaction.peek())
    }

    /// Opens a transaction that the client ends by [`commit`](Self::commit) or [`roll_back`](Self::roll_back) of the session
    /// that this returns: its statements are part of it. It has the options of this one.
    pub fn drive_transaction(self: &Arc<Self>) -> Arc<Self> {
        let transaction = Transaction::begin(self.engine(), self.id(), TransactionMode::default());
        let driven = Arc::new(self.with_transaction(transaction));
        let mut all = self.driven_sessions();
        all.retain(|session| session.upgrade().is_some_and(|s| s.has_open_transaction()));
        all.push(Arc::downgrade(&driven));
        driven
    }

    /// The sessions of its driven transactions that have not ended.
    pub fn driven(&self) -> Vec<Arc<Self>> {
        let all = self.driven_sessions();
        all.iter().filter_map(std::sync::Weak::upgrade).filter(|s| s.has_open_transaction()).collect()
    }

    /// Whether its transaction has not ended.
    pub fn has_open_transaction(&self) -> bool {
        self.transaction_slot().as_ref().is_some_and(|transaction| transaction.is_open())
    }

    /// Whether its transaction has ended.
    pub fn has_ended_transaction(&self) -> bool {
        self.transaction_slot().as_ref().is_some_and(|transaction| !transaction.is_open())
    }

    /// Whether its transaction has ended as its client asked, by a commit that succeeded or by a rollback.
    pub fn ended_as_asked(&self) -> bool {
        self.transaction_slot().as_ref().is_some_and(|transaction| transaction.ended_as_asked())
    }

    /// Commits the transaction.
    ///
    /// # Errors
    ///
    /// `Serialization` if it may be tried again; whatever else the database answers. However it fails, the transaction has
    /// ended.
    pub async fn commit(&self, request: WriteOptions) -> Result<UpdateResult> {
        let transaction = self.transaction().ok_or_else(none_open)?;
        let done = transaction.commit(self, request).await;
        self.leave(&transaction);
        done
    }

    /// Ends the transaction without a trace.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if there is none, or if it was committed.
    pub fn roll_back(&self) -> Result<()> {
        let transaction = self.transaction().ok_or_else(none_open)?;
        let done = transaction.roll_back();
        self.leave(&transaction);
        done
    }

    /// Marks a place in the transaction.
    ///
    /// # Errors
    ///
    /// How the transaction ended, if it has; `Behind` if the state that it is to read does not come in time.
    pub async fn savepoint(&self, name: &str, read: &ReadOptions) -> Result<()> {
        let transaction = self.transaction().ok_or_else(none_open)?;
        let _in_use = transaction.enter()?;
        let _turn = transaction.turn().await;
        transaction.seen(self, read).await?;
        transaction.with_work(|work| {
            work.savepoint(name.to_owned());
            Ok(())
        })
    }

    /// Undoes what the transaction did after the newest mark of that name, which stays.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; how the transaction ended, if it has.
    pub async fn roll_back_to(&self, savepoint: &str) -> Result<()> {
        let transaction = self.transaction().ok_or_else(none_open)?;
        let _in_use = transaction.enter()?;
        let _turn = transaction.turn().await;
        let first_gone = transaction.with_marks(savepoint, |work| work.rollback_to(savepoint))?;
        if let Some(own) = transaction.own() {
            own.forget_from(first_gone);
        }
        Ok(())
    }

    /// Forgets the newest mark of that name, and those after it; nothing is undone.
    ///
    /// # Errors
    ///
    /// As [`roll_back_to`](Self::roll_back_to).
    pub async fn release(&self, savepoint: &str) -> Result<()> {
        let transaction = self.transaction().ok_or_else(none_open)?;
        let _in_use = transaction.enter()?;
        let _turn = transaction.turn().await;
        transaction.with_marks(savepoint, |work| work.release(savepoint))
    }

    /// Ends all of its transactions because the client is gone, and warns of writes that are lost by it; the sessions of
    /// those that were driven.
    pub fn close(&self, why: &str) -> Vec<Arc<Self>> {
        let driven = self.take_driven();
        let own = self.transaction_slot().take();
        let others = driven.iter().filter_map(|session| session.transaction());
        own.into_iter().chain(others).for_each(|transaction| transaction.abandon(why));
        driven
    }

    /// As [`close`](Self::close), where only the way to the client is gone: it may come back by another with the id of a
    /// transaction that has lost nothing.
    pub fn lose(&self, why: &str) {
        let driven = self.take_driven().into_iter().filter_map(|session| session.transaction());
        let own = self.transaction_slot().take();
        own.into_iter().chain(driven).filter(|t| t.has_written()).for_each(|t| t.abandon(why));
    }

    /// Takes a driven transaction for one of its own: its client has come by another way than before.
    pub fn adopt(&self, driven: &Arc<Self>) {
        let mut all = self.driven_sessions();
        if !all.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(driven))) {
            all.retain(|known| known.strong_count() > 0);
            all.push(Arc::downgrade(driven));
        }
    }

    fn take_driven(&self) -> Vec<Arc<Self>> {
        let all = std::mem::take(&mut *self.driven_sessions());
        all.iter().filter_map(std::sync::Weak::upgrade).collect()
    }

    /// Adds rows to the transaction.
    ///
    /// # Errors
    ///
    /// As of an `INSERT`; then nothing of them is in it.
    pub async fn append(
        &self,
        request: AppendRequest,
        rows: RowStream,
        read: &ReadOptions,
    ) -> Result<Receipt> {
        let transaction = self.transaction().ok_or_else(none_open)?;
        let within = Within::enter(self, &transaction, Vec::new(), read).await?;
        within.append_told(request, rows).await
    }

    /// Carries out a statement that is about transactions.
    pub(crate) async fn control(
        &self,
        control: &Control,
        request: WriteOptions,
        read: &ReadOptions,
    ) -> Result<UpdateResult> {
        let nothing = || UpdateResult::nothing(self.engine().database().snapshot().seq(), None);
        match control {
            Control::Begin(mode) => {
                let mut slot = self.transaction_slot();
                if slot.is_some() {
                    return Err(Error::invalid("a transaction is open already: COMMIT or ROLLBACK ends it"));
                }
                *slot = Some(Transaction::begin(self.engine(), self.id(), *mode));
            }
            Control::Commit => {
                self.check_ends_by_sql()?;
                return self.commit(request).await;
            }
            Control::Rollback => {
                self.check_ends_by_sql()?;
                self.roll_back()?;
            }
            Control::Savepoint(name) => self.savepoint(name, read).await?,
            Control::RollbackTo(name) => self.roll_back_to(name).await?,
            Control::Release(name) => self.release(name).await?,
        }
        Ok(nothing())
    }

    fn check_ends_by_sql(&self) -> Result<()> {
        match self.is_driven() {
            false => Ok(()),
            true => Err(Error::invalid(
                "the transaction was opened by the client's driver, and ends by the driver's commit or rollback; in Python, \
                 connect with autocommit=True to use BEGIN and COMMIT",
            )),
        }
    }

    /// A transaction by SQL is over; a driven one is still asked for by its id.
    fn leave(&self, transaction: &Arc<Transaction>) {
        if self.is_driven() {
            return;
        }
        let mut slot = self.transaction_slot();
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, transaction)) {
            *slot = None;
        }
    }
}

impl Transaction {
    /// As `with_work`; before anything was read there are no marks.
    fn with_marks<T>(
        &self,
        savepoint: &str,
        change: impl FnOnce(&mut super::Work) -> Result<T>,
    ) -> Result<T> {
        match self.peek() {
            Some(_) => self.with_work(change),
            None => {
                self.state.lock().unwrap_or_else(PoisonError::into_inner).phase.check_open()?;
                Err(Error::not_found(format!("there is no savepoint {savepoint:?} in the transaction")))
            }
        }
    }
}

fn none_open() -> Error {
    Error::invalid("no transaction is open: BEGIN opens one")
}
