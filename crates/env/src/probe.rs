//! Whether a store keeps put-if-absent, found out by trying: many servers say so and do not.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use object_store::PutPayload;
use tandem_types::{Error, ErrorKind, Result};

use crate::clock::within;
use crate::retry::{describe, says_exists, wait};
use crate::{Chance, Store};

/// Rounds × writers. Over a network few: honest servers exist whose losers wait for seconds.
const RACES_LOCAL: (u32, u32) = (8, 16);
const RACES_REMOTE: (u32, u32) = (4, 4);
const DEADLINE: Duration = Duration::from_secs(60);
/// How often a race is run again, under a new name, because every one of its answers was lost.
const ATTEMPTS: u32 = 5;

/// Tests the store before it is trusted: two creates of one name in turn, then races. In each,
/// exactly one may win, and its bytes must be there; anything else is an error of kind
/// `StoreRefused`. A store that cannot be reached is `Unavailable`.
///
/// Writes a few small objects below `probe/`, under random names, and removes them.
pub async fn probe(store: &Store, chance: &dyn Chance) -> Result<()> {
    let mut probe =
        Probe { store, chance, prefix: format!("probe/{:032x}", chance.next_u128()), names: vec![] };
    let verdict = within(store.clock(), DEADLINE, probe.run()).await.unwrap_or_else(|| {
        let seconds = DEADLINE.as_secs();
        Err(Error::unavailable(format!("testing {} took longer than {seconds} s", store.url())))
    });
    probe.clean().await;
    verdict
}

struct Probe<'a> {
    store: &'a Store,
    chance: &'a dyn Chance,
    /// Of this test's names: no folder of its own, which would stay behind on a local disk.
    prefix: String,
    names: Vec<String>,
}

impl Probe<'_> {
    async fn run(&mut self) -> Result<()> {
        let first = self.settled(1).await?;
        self.second_create_loses(&first).await?;
        let (rounds, writers) = if self.store.is_remote() { RACES_REMOTE } else { RACES_LOCAL };
        for _ in 0..rounds {
            self.settled(writers).await?;
        }
        Ok(())
    }

    /// Runs races of `writers` until one has a winner; the winner's name and bytes.
    async fn settled(&mut self, writers: u32) -> Result<(String, Bytes)> {
        let mut attempt = 1;
        loop {
            let name = format!("{}-{}", self.prefix, self.names.len());
            self.names.push(name.clone());
            match self.race(&name, writers).await? {
                Ok(bytes) => return Ok((name, bytes)),
                Err(reason) if attempt >= ATTEMPTS => {
                    let url = self.store.url();
                    return Err(Error::unavailable(format!("nothing can be created in {url}: {reason}")));
                }
                Err(_) => self.store.clock().sleep(wait(self.chance, attempt)).await,
            }
            attempt += 1;
        }
    }

    /// One race for `name`: the winner's bytes, or the reason why nobody won.
    async fn race(&self, name: &str, writers: u32) -> Result<Result<Bytes, String>> {
        let bodies: Vec<Bytes> = (0..writers)
            .map(|writer| Bytes::from(format!("{writer} {:032x}", self.chance.next_u128())))
            .collect();
        let creates = bodies.iter().map(|body| self.store.try_create(name, PutPayload::from(body.clone())));
        let answers = join_all(creates).await;

        let mut told: Vec<&Bytes> = vec![];
        let mut reason = String::from("it says that a fresh name exists");
        for (answer, body) in answers.iter().zip(&bodies) {
            match answer {
                Ok(()) => told.push(body),
                Err(error) if says_exists(error) => {}
                Err(error) => {
                    if never_conditional(error) {
                        return Err(self.refused(&describe(error)));
                    }
                    reason = describe(error);
                }
            }
        }
        if told.len() > 1 {
            let told = told.len();
            return Err(
                self.refused(&format!("of {writers} concurrent creates of one name, {told} succeeded"))
            );
        }
        match (self.store.get(name).await?, told.first()) {
            (Some(stored), Some(winner)) if stored == **winner => Ok(Ok(stored)),
            (Some(_), Some(_)) => Err(self.refused("a create succeeded, and the object has other bytes")),
            (None, Some(_)) => Err(self.refused("a create succeeded, and the object is not there")),
            // The winner's answer was lost; only its bytes tell.
            (Some(stored), None) if bodies.contains(&stored) => Ok(Ok(stored)),
            (Some(_), None) => Err(self.refused("a fresh object has bytes that nobody wrote")),
            (None, None) => Ok(Err(reason)),
        }
    }

    async fn second_create_loses(&self, (name, bytes): &(String, Bytes)) -> Result<()> {
        let other = PutPayload::from(format!("second {:032x}", self.chance.next_u128()));
        if self.store.try_create(name, other).await.is_ok() {
            return Err(self.refused("a second create of one name succeeded"));
        }
        match self.store.get(name).await? {
            Some(stored) if stored == bytes => Ok(()),
            _ => Err(self.refused("a second create of one name changed the object")),
        }
    }

    fn refused(&self, why: &str) -> Error {
        let url = self.store.url();
        Error::new(
            ErrorKind::StoreRefused,
            format!("{url} does not keep put-if-absent, without which commits would be lost: {why}"),
        )
    }

    async fn clean(&self) {
        for name in &self.names {
            if let Err(error) = self.store.delete(name).await {
                tracing::debug!(%name, %error, "could not remove an object of the store test");
            }
        }
    }
}

fn never_conditional(error: &object_store::Error) -> bool {
    use object_store::Error::{NotImplemented, NotSupported};
    matches!(error, NotImplemented { .. } | NotSupported { .. })
}
