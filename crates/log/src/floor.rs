//! Floors: how far the log was trimmed.
//!
//! Numbers that were deleted can be created again, by a writer that slept. What keeps such objects from counting is that
//! floors are created before anything below them is deleted, that they are never deleted themselves, and that
//! whoever has read or created an object of the log asks for the floor afterwards.

use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use tandem_env::Mutant;
use tandem_format::{Floor, decode_floor, encode_floor, floor_path};
use tandem_types::{Error, ErrorKind, Result, Seq};

use crate::Log;

/// How often a floor is created before that is given up for now.
const CREATE_ATTEMPTS: u32 = 10;

/// The newest floor that was seen, and its number; 0: none.
#[derive(Debug, Default)]
pub(crate) struct Known {
    number: u64,
    floor: Option<Floor>,
}

impl Log {
    /// The highest seq whose log object may have been deleted. One request if it did not move.
    pub async fn floor(&self) -> Result<Seq> {
        Ok(self.newest_floor().await?.map_or(Seq(0), |floor| floor.seq))
    }

    /// The newest floor, if the log was ever trimmed. One request if it did not move.
    pub async fn newest_floor(&self) -> Result<Option<Floor>> {
        let (mut number, mut floor) = self.known_floor();
        let Some(first) = self.floor_object(number + 1).await? else { return Ok(floor) };
        // Their numbers have no gaps: the last one is found in as many steps as its number has digits, or so.
        let (mut newest, mut step) = (first, 1);
        number += 1;
        while let Some(object) = self.floor_object(number + step).await? {
            (newest, number, step) = (object, number + step, step * 2);
        }
        while step > 1 {
            step /= 2;
            if let Some(object) = self.floor_object(number + step).await? {
                (newest, number) = (object, number + step);
            }
        }
        let path = floor_path(number);
        let found = decode_floor(&newest).map_err(|e| e.context(&path))?;
        if found.database != self.database {
            return Err(Error::damaged(format!(
                "{path} belongs to database {}, this is database {}",
                found.database, self.database
            )));
        }
        if floor.is_some_and(|floor: Floor| floor.seq > found.seq) {
            return Err(Error::damaged(format!("{path} says {}, below the floor before it", found.seq)));
        }
        floor = Some(found);
        let mut known = self.floors();
        if known.number < number {
            *known = Known { number, floor };
        }
        Ok(floor)
    }

    /// Says that the log up to `floor.seq` may be deleted from now on; the floor that then holds, which another collector
    /// may have raised further. The checkpoint must be recorded, and readable.
    pub async fn raise_floor(&self, floor: Floor) -> Result<Floor> {
        for _ in 0..CREATE_ATTEMPTS {
            if let Some(present) = self.newest_floor().await?
                && present.seq >= floor.seq
            {
                // Perhaps another's: what is deleted behind it must not outlive it in a crash of this machine.
                self.env.store.seen_is_durable("log/floor").await?;
                return Ok(present);
            }
            // Whatever the answer is, the next round reads what is there. A create that lands late finds its number taken,
            // or says what this one would have said.
            let path = floor_path(self.known_floor().0 + 1);
            let outcome = self.env.store.create(&path, vec![encode_floor(&floor)?]).await;
            tracing::debug!(?outcome, floor = %floor.seq, "raising the log's floor");
        }
        Err(Error::unavailable(format!("the log's floor cannot be raised to {}", floor.seq)))
    }

    /// Refuses what begins below the floor, or at it.
    pub(crate) async fn check_floor(&self, first: Seq) -> Result<()> {
        if self.env.mutant(Mutant::NoFloorCheckInReader) {
            return Ok(());
        }
        match self.newest_floor().await? {
            Some(floor) if floor.seq >= first => Err(Error::new(
                ErrorKind::HistoryGone,
                format!(
                    "the log up to {} was deleted; it goes on from the checkpoint at {}",
                    floor.seq, floor.checkpoint
                ),
            )),
            _ => Ok(()),
        }
    }

    async fn floor_object(&self, number: u64) -> Result<Option<Bytes>> {
        self.env.store.get(&floor_path(number)).await
    }

    fn known_floor(&self) -> (u64, Option<Floor>) {
        let known = self.floors();
        (known.number, known.floor)
    }

    fn floors(&self) -> MutexGuard<'_, Known> {
        // Replaced as a whole: there are no two steps to panic between.
        self.floors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
