//! The copy's side: its checkpoint, the floor that its log begins behind, and, last of all, its identity.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tandem_env::{CreateOutcome, Env};
use tandem_format::{
    DATA_DIR, Floor, Identity, LOG_DIR, PartRef, ROOT_DIR, SEGMENT_DIR, encode_identity, encode_part,
    encode_root, identity_path, parse_commit_name, part_path, root_path,
};
use tandem_log::Log;
use tandem_manifest::Manifest;
use tandem_types::{DatabaseId, Error, Result, Seq};

use crate::origin::{Origin, read_origin, write_origin};

/// Parts that are written at once.
const AT_ONCE: usize = 8;

/// How often an object is created before the store is given up.
const ATTEMPTS: u32 = 5;

/// What is there of a copy already.
#[derive(Debug)]
pub(crate) struct Place {
    pub log: Log,
    pub origin: Origin,
    /// The state of a copy that was finished before.
    pub before: Option<Manifest>,
}

impl Place {
    /// Begins a copy, or goes on with one.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if the store holds a database that is no copy of the source, or one that was written to since.
    pub async fn prepare(to: &Env, source: DatabaseId, shared: Option<String>) -> Result<Self> {
        let url = to.store.url();
        let finished = to.store.get(identity_path()).await?.is_some();
        let origin = match read_origin(&to.store).await? {
            Some(origin) if origin.source != source.to_string() => {
                return Err(Error::already_exists(format!(
                    "{url} holds a copy of database {}, not of {source}",
                    origin.source
                )));
            }
            Some(origin) if finished && (shared.is_some() || origin.shared.is_some()) => {
                return Err(Error::already_exists(format!(
                    "{url} holds a fork, database {}",
                    origin.database
                )));
            }
            Some(origin) => Origin { shared, ..origin },
            None if finished => {
                return Err(Error::already_exists(format!(
                    "{url} holds a database that is no copy: choose another place"
                )));
            }
            None if !is_empty(to).await? => {
                return Err(Error::already_exists(format!(
                    "{url} is not empty: choose another place (a database whose {} is lost may lie there)",
                    identity_path()
                )));
            }
            None => Origin::new(source, DatabaseId(to.chance.next_u128()), shared),
        };
        write_origin(&to.store, &origin).await?;
        let log = Log::of(to.clone(), origin.database()?);
        let before = if finished { Some(log.recover().await?.manifest) } else { None };
        let place = Self { log, origin, before };
        place.check_untouched().await?;
        Ok(place)
    }

    /// Refuses a copy that has become a database of its own.
    async fn check_untouched(&self) -> Result<()> {
        let Some(before) = &self.before else { return Ok(()) };
        let store = &self.log.env().store;
        let written = store.list_dir(LOG_DIR).await?;
        if written.iter().filter_map(|name| parse_commit_name(name)).any(|seq| seq > Seq(0)) {
            return Err(Error::already_exists(format!(
                "the copy in {} was written to since it was made at {}, and is a database of its own",
                store.url(),
                before.seq()
            )));
        }
        Ok(())
    }

    /// Makes the copy the database that `state` is.
    pub async fn finish(&self, state: &Manifest) -> Result<()> {
        let env = self.log.env();
        let mut parts: Vec<(PartRef, Bytes)> = Vec::new();
        for entries in state.checkpoint_parts() {
            let (bytes, part) = encode_part(state.seq(), &entries)?;
            parts.push((part, bytes));
        }
        let refs: Vec<PartRef> = parts.iter().map(|(part, _)| *part).collect();
        let writes = parts.into_iter().map(|(part, bytes)| async move {
            env.store.create_data(&part_path(part.base, &part.hash), vec![bytes]).await
        });
        stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let (root, root_hash) = encode_root(&state.checkpoint_root(refs))?;
        env.store.create_data(&root_path(state.seq()), vec![root]).await?;
        let (read, found) = self.log.load_checkpoint(state.seq()).await?;
        if found != root_hash || read.digest() != state.digest() {
            return Err(Error::damaged(format!(
                "{} in {} read back is not what was written",
                root_path(state.seq()),
                env.store.url()
            )));
        }
        // It takes long to get here, and a node may have been started on the copy meanwhile.
        self.check_untouched().await?;
        let floor =
            Floor { database: self.log.database(), seq: state.seq(), checkpoint: state.seq(), root_hash };
        let raised = self.log.raise_floor(floor).await?;
        if raised.seq != state.seq() {
            return Err(Error::invalid(format!(
                "a copy was begun in {} that stands at {}, it cannot be one at {}: copy into another place",
                env.store.url(),
                raised.seq,
                state.seq()
            )));
        }
        if self.before.is_none() {
            self.identify().await?;
        }
        Ok(())
    }

    async fn identify(&self) -> Result<()> {
        let env = self.log.env();
        let bytes = Bytes::from(encode_identity(&Identity { database: self.log.database() }));
        for _ in 0..ATTEMPTS {
            let outcome = env.store.create(identity_path(), vec![bytes.clone()]).await;
            if matches!(outcome, CreateOutcome::Created) {
                return Ok(());
            }
            if let Some(found) = env.store.get(identity_path()).await? {
                return match found == bytes {
                    true => env.store.seen_is_durable("").await,
                    false => Err(Error::already_exists(format!(
                        "{} became another database meanwhile",
                        env.store.url()
                    ))),
                };
            }
        }
        Err(Error::unavailable(format!("cannot create {} in {}", identity_path(), env.store.url())))
    }
}

/// Whether nothing of a database lies there.
async fn is_empty(env: &Env) -> Result<bool> {
    for dir in [LOG_DIR, ROOT_DIR, SEGMENT_DIR, DATA_DIR] {
        if env.store.list_below(dir).try_next().await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}
