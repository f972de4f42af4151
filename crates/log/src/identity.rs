//! Making a prefix a database, once.

use bytes::Bytes;
use tandem_env::Env;
use tandem_format::{Identity, decode_identity, encode_identity, identity_path};
use tandem_types::{DatabaseId, Error, Result};

use crate::Log;

/// How often an absent identity is created before giving up on the store.
const CREATE_ATTEMPTS: u32 = 10;

impl Log {
    /// Opens the log of the database in the environment's store, and creates the database if there is none.
    pub async fn open(env: Env) -> Result<Self> {
        let path = identity_path();
        for _ in 0..CREATE_ATTEMPTS {
            if let Some(bytes) = env.store.get(path).await? {
                let identity = decode_identity(&bytes).map_err(|e| e.context(env.store.url()))?;
                env.store.seen_is_durable("").await?;
                return Ok(Self { env, database: identity.database, floors: Default::default() });
            }
            // Whoever's create wins: the next round reads what is there.
            let identity = Identity { database: DatabaseId(env.chance.next_u128()) };
            let bytes = Bytes::from(encode_identity(&identity));
            let outcome = env.store.create(path, vec![bytes]).await;
            tracing::debug!(?outcome, "creating the database's identity");
        }
        Err(Error::unavailable(format!("cannot create {path} in {}", env.store.url())))
    }
}
