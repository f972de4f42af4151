//! One client's standing: its default schema, its options, what it wrote last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arrow_schema::DataType;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::scalar::ScalarValue;
use tandem_manifest::{Manifest, SchemaPolicy};
use tandem_types::{DEFAULT_CATALOG, DEFAULT_SCHEMA, Error, Result, Seq, parse_duration};

use crate::as_of::{AsOf, refuse_write};
use crate::engine::Engine;
use crate::error::IntoTandem;
use crate::options::{Ack, ClientToken, ReadOptions, WriteOptions, parse_read, parse_seq, show_duration};
use crate::prepared::Prepared;
use crate::transaction::Transaction;

const KNOWN: &str = "catalog, schema, tandem.schema, tandem.ack, tandem.ack_timeout, tandem.min_seq, tandem.read, \
                     tandem.as_of, tandem.token and tandem.last_seq";

/// One client's session. Its methods may be called from several threads at once.
#[derive(Debug)]
pub struct Session {
    engine: Engine,
    id: String,
    options: Arc<Mutex<Options>>,
    last_seq: Arc<AtomicU64>,
    /// What its statements are part of.
    transaction: Mutex<Option<Arc<Transaction>>>,
    /// It was made for a transaction that its client drives.
    is_driven: bool,
    /// Those that were made so for this one.
    driven: Mutex<Vec<Weak<Session>>>,
}

#[derive(Clone, Debug)]
struct Options {
    schema: String,
    policy: SchemaPolicy,
    /// What is `None` is for the table, the database or the engine to say.
    ack: Option<Ack>,
    ack_timeout: Option<Duration>,
    min_seq: Option<Seq>,
    latest: bool,
    /// Reads see this state; `None`: the newest.
    as_of: Option<AsOf>,
    /// For the next write.
    token: Option<ClientToken>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema: DEFAULT_SCHEMA.to_owned(),
            policy: SchemaPolicy::Strict,
            ack: None,
            ack_timeout: None,
            min_seq: None,
            latest: false,
            as_of: None,
            token: None,
        }
    }
}

impl Session {
    pub(crate) fn new(engine: Engine, id: &str) -> Self {
        Self {
            engine,
            id: id.to_owned(),
            options: Arc::default(),
            last_seq: Arc::default(),
            transaction: Mutex::default(),
            is_driven: false,
            driven: Mutex::default(),
        }
    }

    /// The same session, with all statements in a transaction that its client drives.
    pub(crate) fn with_transaction(&self, transaction: Arc<Transaction>) -> Self {
        Self {
            engine: self.engine.clone(),
            id: self.id.clone(),
            options: Arc::clone(&self.options),
            last_seq: Arc::clone(&self.last_seq),
            transaction: Mutex::new(Some(transaction)),
            is_driven: true,
            driven: Mutex::default(),
        }
    }

    pub(crate) fn is_driven(&self) -> bool {
        self.is_driven
    }

    pub(crate) fn transaction_slot(&self) -> MutexGuard<'_, Option<Arc<Transaction>>> {
        // An assignment cannot leave it half changed.
        self.transaction.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn driven_sessions(&self) -> MutexGuard<'_, Vec<Weak<Self>>> {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// What unqualified names mean.
    pub fn default_schema(&self) -> String {
        self.options_now().schema.clone()
    }

    /// What a write of rows may do to its table, unless the request says otherwise. SQL's own `INSERT`
    /// is always strict.
    pub fn schema_policy(&self) -> SchemaPolicy {
        self.options_now().policy
    }

    /// The seq of this session's last write; zero before the first.
    pub fn last_seq(&self) -> Seq {
        Seq(self.last_seq.load(Ordering::Relaxed))
    }

    pub(crate) fn last_seq_cell(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.last_seq)
    }

    /// Notes a write of this session that was not a statement.
    pub fn wrote(&self, seq: Seq) {
        self.last_seq.fetch_max(seq.0, Ordering::Relaxed);
    }

    /// What holds for a write: the request's own options, and the session's where it has none.
    ///
    /// The session's token is used up by this, whatever becomes of the write, unless the request brought one.
    pub fn write_options(&self, request: WriteOptions) -> WriteOptions {
        let mut options = self.options_now();
        WriteOptions {
            token: request.token.or_else(|| options.token.take()),
            ack: request.ack.or(options.ack),
            ack_timeout: request.ack_timeout.or(options.ack_timeout),
        }
    }

    /// How long a write waits for its quorum, where the session says so.
    pub fn ack_timeout(&self) -> Option<Duration> {
        self.options_now().ack_timeout
    }

    /// What holds for a read: what the request says, else the session.
    pub fn read_options(
        &self,
        min_seq: Option<Seq>,
        latest: Option<bool>,
        deadline: Option<Duration>,
    ) -> ReadOptions {
        let options = self.options_now();
        ReadOptions {
            min_seq: min_seq.or(options.min_seq),
            latest: latest.unwrap_or(options.latest),
            deadline,
            as_of: options.as_of,
        }
    }

    /// The state that a read sees, once it is what the read demands; in a transaction that reads one already, that one.
    ///
    /// # Errors
    ///
    /// `Behind` if it does not come in time; `HistoryGone` if it is not kept any more.
    pub async fn state_for(&self, read: &ReadOptions) -> Result<Arc<Manifest>> {
        match self.seen() {
            Some(seen) => Ok(seen.view),
            None => self.committed_state(read).await,
        }
    }

    pub(crate) async fn committed_state(&self, read: &ReadOptions) -> Result<Arc<Manifest>> {
        self.settle(read).await?;
        let database = self.engine.database();
        match read.as_of {
            Some(at) => database.state_as_of(at, read.deadline).await,
            None => Ok(database.snapshot()),
        }
    }

    /// Waits until the state that queries see is what the read demands.
    ///
    /// # Errors
    ///
    /// `Behind`, naming both seqs, if it is not in time.
    pub async fn settle(&self, read: &ReadOptions) -> Result<()> {
        let database = self.engine.database();
        if read.demands_more_than(database.snapshot().seq()) { database.settle(read).await } else { Ok(()) }
    }

    /// Refuses to write where the past is read.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, saying how to come back.
    pub fn check_present(&self, read: &ReadOptions) -> Result<()> {
        read.as_of.map_or(Ok(()), |at| Err(refuse_write(at)))
    }

    /// Whether something was committed after `seen`, on whichever node; it is applied here then.
    ///
    /// A name that is not known here is refused only after this was asked: it may have been created elsewhere a moment ago.
    pub async fn has_news_since(&self, seen: Seq) -> bool {
        let database = self.engine.database();
        let newest = ReadOptions { latest: true, ..ReadOptions::default() };
        // A store that cannot be asked now has no news.
        database.settle(&newest).await.is_ok() && database.snapshot().seq() > seen
    }

    /// As [`prepare_with`](Self::prepare_with), reading as the session's options say.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn prepare(self: &Arc<Self>, sql: &str) -> Result<Prepared> {
        self.prepare_with(sql, &self.read_options(None, None, None)).await
    }

    /// Parses and plans one statement on a state that is what the read demands.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for what is no statement or more than one, `NotFound` for names that mean nothing, `Behind` if
    /// the state does not come in time.
    pub async fn prepare_with(self: &Arc<Self>, sql: &str, read: &ReadOptions) -> Result<Prepared> {
        Prepared::new(Arc::clone(self), sql, read).await
    }

    /// Sets an option, or resets it to its default (`None`).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an unknown option or value, `Unsupported` for one that is reserved or read-only.
    pub fn set_option(&self, name: &str, value: Option<&str>) -> Result<()> {
        let name = name.to_ascii_lowercase();
        // As it is shown: empty where nothing is set.
        let value = value.filter(|v| !v.is_empty());
        let wrong = |error: Error| error.context(format!("session option {name:?}"));
        match name.as_str() {
            "catalog" => match value {
                None | Some(DEFAULT_CATALOG) => Ok(()),
                Some(other) => Err(Error::not_found(format!(
                    "catalog {other:?} does not exist; the only one is {DEFAULT_CATALOG:?}"
                ))),
            },
            "schema" => {
                let schema = value.unwrap_or(DEFAULT_SCHEMA);
                let known = self.engine.database().snapshot().has_schema(schema)
                    || matches!(schema, crate::catalog::SYSTEM_SCHEMA | "information_schema");
                if !known {
                    return Err(Error::not_found(format!("schema {schema:?} does not exist")));
                }
                schema.clone_into(&mut self.options_now().schema);
                Ok(())
            }
            "tandem.schema" => {
                self.options_now().policy = value.map_or(Ok(SchemaPolicy::Strict), parse_policy)?;
                Ok(())
            }
            "tandem.ack" => {
                let ack = value.map(Ack::parse).transpose().map_err(wrong)?;
                self.options_now().ack = ack;
                Ok(())
            }
            "tandem.ack_timeout" => {
                let timeout = value.map(parse_duration).transpose().map_err(wrong)?;
                self.options_now().ack_timeout = timeout;
                Ok(())
            }
            "tandem.min_seq" => {
                let seq = value.map(parse_seq).transpose().map_err(wrong)?;
                self.options_now().min_seq = seq.filter(|seq| *seq > Seq(0));
                Ok(())
            }
            "tandem.read" => {
                let latest = value.map_or(Ok(false), parse_read).map_err(wrong)?;
                self.options_now().latest = latest;
                Ok(())
            }
            "tandem.as_of" => {
                let at = value.map(AsOf::parse).transpose().map_err(wrong)?;
                if self.seen().is_some_and(|seen| seen.past != at) {
                    return Err(Error::invalid(
                        "tandem.as_of cannot be changed in a transaction that has read or written: end it first",
                    ));
                }
                self.options_now().as_of = at;
                Ok(())
            }
            "tandem.token" => {
                let token = value.map(ClientToken::parse).transpose().map_err(wrong)?;
                self.options_now().token = token;
                Ok(())
            }
            "tandem.last_seq" => {
                Err(Error::unsupported("session option \"tandem.last_seq\" can only be read"))
            }
            other => Err(unknown(other)),
        }
    }

    /// One option's present value.
    ///
    /// # Errors
    ///
    /// As [`set_option`](Self::set_option).
    pub fn option(&self, name: &str) -> Result<String> {
        let name = name.to_ascii_lowercase();
        let known = self.options().into_iter().find(|(known, _)| *known == name);
        known.map(|(_, value)| value).ok_or_else(|| unknown(&name))
    }

    /// All options with their present values.
    pub fn options(&self) -> Vec<(String, String)> {
        let options = self.options_now().clone();
        let policy = match options.policy {
            SchemaPolicy::Strict => "strict",
            SchemaPolicy::Add => "add",
            SchemaPolicy::Create => "create",
        };
        vec![
            ("catalog".to_owned(), DEFAULT_CATALOG.to_owned()),
            ("schema".to_owned(), options.schema),
            ("tandem.schema".to_owned(), policy.to_owned()),
            ("tandem.ack".to_owned(), options.ack.map(|ack| ack.to_string()).unwrap_or_default()),
            ("tandem.ack_timeout".to_owned(), options.ack_timeout.map(show_duration).unwrap_or_default()),
            ("tandem.min_seq".to_owned(), options.min_seq.map(|seq| seq.to_string()).unwrap_or_default()),
            ("tandem.read".to_owned(), if options.latest { "latest" } else { "applied" }.to_owned()),
            ("tandem.as_of".to_owned(), options.as_of.map(|at| at.to_string()).unwrap_or_default()),
            ("tandem.token".to_owned(), options.token.map(|token| token.text).unwrap_or_default()),
            ("tandem.last_seq".to_owned(), self.last_seq().to_string()),
        ]
    }

    /// What DataFusion needs for one statement of this session.
    pub(crate) fn state(&self, snapshot: &Arc<Manifest>) -> Result<SessionState> {
        let own = self.transaction().and_then(|transaction| transaction.own());
        let mut state = self.engine.state_within(snapshot, &self.default_schema(), own);
        let last = self.last_seq().0;
        let last_seq = create_udf(
            "tandem_last_seq",
            vec![],
            DataType::UInt64,
            Volatility::Stable,
            Arc::new(move |_| Ok(ColumnarValue::Scalar(ScalarValue::UInt64(Some(last))))),
        );
        state.register_udf(Arc::new(last_seq)).tandem()?;
        Ok(state)
    }

    fn options_now(&self) -> MutexGuard<'_, Options> {
        // Assignments cannot leave the options half changed.
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The schema policy of that name.
fn parse_policy(text: &str) -> Result<SchemaPolicy> {
    match text.to_ascii_lowercase().as_str() {
        "strict" => Ok(SchemaPolicy::Strict),
        "add" => Ok(SchemaPolicy::Add),
        "create" => Ok(SchemaPolicy::Create),
        other => Err(Error::invalid(format!(
            "{other:?} is no value for session option \"tandem.schema\"; known are strict, add and create"
        ))),
    }
}

fn unknown(name: &str) -> Error {
    Error::invalid(format!("unknown session option {name:?}; known are {KNOWN}"))
}
