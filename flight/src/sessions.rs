//! Which session a request belongs to: cookie, else a bearer that Handshake minted, else the TCP connection.

use std::sync::Arc;
use std::time::Duration;

use tandem_env::{Chance, Clock};
use tandem_sql::{Engine, Session};
use tonic::metadata::MetadataMap;

use crate::connection::ConnectionId;
use crate::expiring::Expiring;

const COOKIE: &str = "tandem-session";

/// The sessions of this node.
pub(crate) struct Sessions {
    engine: Engine,
    chance: Arc<dyn Chance>,
    by_key: Expiring<Arc<Session>>,
    /// Ids of sessions that cookies lead to: they outlive their connections.
    kept: Expiring<()>,
}

/// Which ways lead to a request's session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SessionKey {
    key: String,
    pub has_cookie: bool,
    /// Requests of others lead to the same session: their connections are not known.
    pub is_shared: bool,
}

impl Sessions {
    pub fn new(
        engine: Engine,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        idle: Duration,
        capacity: usize,
    ) -> Self {
        let kept = Expiring::new(clock.clone(), idle, capacity);
        Self { engine, chance, by_key: Expiring::new(clock, idle, capacity), kept }
    }

    /// The session of a request. A cookie or bearer that is unknown here (expired, or another node's) is ignored.
    pub fn of(&self, metadata: &MetadataMap, connection: Option<ConnectionId>) -> (SessionKey, Arc<Session>) {
        let cookie = cookie(metadata).map(|c| (cookie_key(c), true));
        let bearer = bearer(metadata).map(|b| (bearer_key(b), false));
        for (key, has_cookie) in cookie.into_iter().chain(bearer) {
            if let Some(session) = self.by_key.get(&key) {
                if has_cookie {
                    // Its time starts anew with the cookie's.
                    self.kept.insert(session.id(), ());
                }
                return (SessionKey { key, has_cookie, is_shared: false }, session);
            }
        }
        let key = connection_key(connection);
        let session = self.by_key.get(&key).unwrap_or_else(|| self.create(&key));
        (SessionKey { key, has_cookie: false, is_shared: connection.is_none() }, session)
    }

    /// A new session behind a new bearer: the one that `signed` is, or a random one where anybody is let in.
    pub fn mint_bearer(&self, signed: Option<String>) -> String {
        let bearer = signed.unwrap_or_else(|| self.random());
        self.create(&bearer_key(&bearer));
        bearer
    }

    /// A cookie for a session that others may go on reaching by their keys: the value of `set-cookie`.
    pub fn mint_cookie(&self, session: Arc<Session>) -> String {
        let cookie = self.random();
        self.kept.insert(session.id(), ());
        self.by_key.insert(cookie_key(&cookie), session);
        format!("{COOKIE}={cookie}; Path=/; HttpOnly")
    }

    /// Forgets the session; the next request by this way gets a new one. What was driven in it has ended.
    pub fn close(&self, key: &SessionKey) -> Vec<Arc<Session>> {
        let session = self.by_key.remove(&key.key);
        session.map(|session| session.close("its session was closed")).unwrap_or_default()
    }

    pub fn connection_closed(&self, connection: ConnectionId) {
        let session = self.by_key.remove(&connection_key(Some(connection)));
        if let Some(session) = session.filter(|session| self.kept.get(session.id()).is_none()) {
            session.lose("its connection was closed");
        }
    }

    pub fn sweep(&self) {
        self.by_key.sweep();
        self.kept.sweep();
    }

    fn create(&self, key: &str) -> Arc<Session> {
        let session = self.engine.session(&self.random());
        self.by_key.insert(key, session.clone());
        session
    }

    fn random(&self) -> String {
        format!("{:032x}", self.chance.next_u128())
    }
}

fn cookie_key(cookie: &str) -> String {
    format!("cookie {cookie}")
}

fn bearer_key(bearer: &str) -> String {
    format!("bearer {bearer}")
}

fn connection_key(connection: Option<ConnectionId>) -> String {
    connection.map_or_else(|| "no connection".to_owned(), |c| format!("connection {c}"))
}

fn cookie(metadata: &MetadataMap) -> Option<&str> {
    metadata
        .get_all("cookie")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value.trim_matches('"')))
}

fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let (scheme, token) = metadata.get("authorization")?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&'static str, &'static str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (name, value) in pairs {
            metadata.append(*name, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn cookies_are_found_among_others() {
        let both =
            metadata(&[("cookie", "a=b; tandem-session=\"xyz\" ; c=d"), ("authorization", "Bearer t")]);
        assert_eq!(cookie(&both), Some("xyz"));
        assert_eq!(bearer(&both), Some("t"));
        assert_eq!(cookie(&metadata(&[("cookie", "a=b"), ("cookie", "tandem-session=2")])), Some("2"));
        assert_eq!(cookie(&metadata(&[("cookie", "tandem")])), None);
        assert_eq!(bearer(&metadata(&[("authorization", "Basic dTpw")])), None);
    }
}
