//! One client's standing: its default schema, its options, what it wrote last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_schema::DataType;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::scalar::ScalarValue;
use tandem_manifest::{Manifest, SchemaPolicy};
use tandem_types::{DEFAULT_CATALOG, DEFAULT_SCHEMA, Error, Result, Seq};

use crate::engine::Engine;
use crate::error::IntoTandem;
use crate::prepared::Prepared;

/// Options that the design reserves for later.
const RESERVED: &[&str] = &["ack", "ack_timeout", "min_seq", "read", "as_of", "token"];

/// One client's session. Its methods may be called from several threads at once.
#[derive(Debug)]
pub struct Session {
    engine: Engine,
    id: String,
    options: Mutex<Options>,
    last_seq: AtomicU64,
}

#[derive(Clone, Debug)]
struct Options {
    schema: String,
    policy: SchemaPolicy,
}

impl Default for Options {
    fn default() -> Self {
        Self { schema: DEFAULT_SCHEMA.to_owned(), policy: SchemaPolicy::Strict }
    }
}

impl Session {
    pub(crate) fn new(engine: Engine, id: &str) -> Self {
        Self { engine, id: id.to_owned(), options: Mutex::default(), last_seq: AtomicU64::new(0) }
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

    /// Notes a write of this session that was not a statement.
    pub fn wrote(&self, seq: Seq) {
        self.last_seq.fetch_max(seq.0, Ordering::Relaxed);
    }

    /// Parses and plans one statement.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for what is no statement or more than one, `NotFound` for names that mean nothing.
    pub async fn prepare(self: &Arc<Self>, sql: &str) -> Result<Prepared> {
        Prepared::new(Arc::clone(self), sql).await
    }

    /// Sets an option, or resets it to its default (`None`).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an unknown option or value, `Unsupported` for one that is reserved or read-only.
    pub fn set_option(&self, name: &str, value: Option<&str>) -> Result<()> {
        let name = name.to_ascii_lowercase();
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
            ("tandem.last_seq".to_owned(), self.last_seq().to_string()),
        ]
    }

    /// What DataFusion needs for one statement of this session.
    pub(crate) fn state(&self, snapshot: &Arc<Manifest>) -> Result<SessionState> {
        let mut state = self.engine.state(snapshot, &self.default_schema());
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
    if name.strip_prefix("tandem.").is_some_and(|rest| RESERVED.contains(&rest)) {
        return Error::unsupported(format!("session option {name:?} is not supported yet"));
    }
    Error::invalid(format!(
        "unknown session option {name:?}; known are catalog, schema, tandem.schema and tandem.last_seq"
    ))
}
