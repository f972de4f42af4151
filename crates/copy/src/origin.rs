//! `origin.json`: where a copy or a fork came from. Plain JSON, for people.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tandem_env::{Env, Store};
use tandem_types::{DatabaseId, Error, Result};

/// Where it lies.
const PATH: &str = "origin.json";

/// A fork of a fork of a fork: so many stores are looked through, at most.
const MAX_PARENTS: usize = 16;

/// Where a database came from, and by which id it is known since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The database that it was made from.
    pub source: String,
    /// Its own.
    pub database: String,
    /// The source's store, where objects are shared with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<String>,
}

impl Origin {
    pub(crate) fn new(source: DatabaseId, database: DatabaseId, shared: Option<String>) -> Self {
        Self { source: source.to_string(), database: database.to_string(), shared }
    }

    pub(crate) fn database(&self) -> Result<DatabaseId> {
        DatabaseId::parse(&self.database)
            .ok_or_else(|| Error::damaged(format!("{PATH} names no database: {:?}", self.database)))
    }

    /// The id under which the source's log keeps what a fork needs.
    pub fn pin(&self) -> String {
        format!("fork-{}", self.database)
    }
}

/// Where the database in a store came from; `None`: it was made there.
pub async fn read_origin(store: &Store) -> Result<Option<Origin>> {
    let Some(bytes) = store.get(PATH).await? else { return Ok(None) };
    let wrong = |e| Error::damaged(format!("{PATH} in {} is not what was written: {e}", store.url()));
    serde_json::from_slice(&bytes).map(Some).map_err(wrong)
}

pub(crate) async fn write_origin(store: &Store, origin: &Origin) -> Result<()> {
    let mut text = serde_json::to_vec(origin).map_err(|e| Error::internal(format!("writing {PATH}: {e}")))?;
    text.push(b'\n');
    // Written again when a fork is detached; nothing else ever changes it.
    store.put_overwrite(PATH, Bytes::from(text)).await
}

/// The environment of a database with the stores of those it shares objects with behind its own. `open` opens a store by
/// its URL.
///
/// # Errors
///
/// As of `open` and of the stores; `Damaged` if a fork descends from itself.
pub async fn open_parents(env: Env, open: &(dyn Fn(&str) -> Result<Env> + Sync)) -> Result<Env> {
    let mut generations = vec![env.store.clone()];
    while let Some(last) = generations.last() {
        let Some(url) = read_origin(last).await?.and_then(|origin| origin.shared) else { break };
        if generations.len() > MAX_PARENTS {
            return Err(Error::damaged(format!(
                "the database in {} descends through more than {MAX_PARENTS} stores",
                env.store.url()
            )));
        }
        generations.push(open(&url)?.store);
    }
    let over = |parent: Store, store: &Store| store.over(&parent);
    let store = generations
        .iter()
        .rev()
        .skip(1)
        .fold(generations.last().cloned(), |parent, store| parent.map(|parent| over(parent, store)));
    Ok(Env { store: store.unwrap_or_else(|| env.store.clone()), ..env })
}
