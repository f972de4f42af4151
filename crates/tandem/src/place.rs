//! Databases in stores, opened without a node.

use tandem_env::Env;
use tandem_log::Log;
use tandem_manifest::Manifest;
use tandem_types::{Error, Result, Seq};

use crate::serve::key_value;

/// The environment of the database in a store; of a fork, with what it shares behind it.
pub async fn open(url: &str, options: &[String]) -> Result<Env> {
    let own = open_own(url, options)?;
    let options: Vec<_> = options.iter().map(|text| key_value(text)).collect::<Result<_>>()?;
    tandem_copy::open_parents(own, &move |url: &str| Env::open(url, &options)).await
}

/// The environment of a store, without what a fork there shares.
pub fn open_own(url: &str, options: &[String]) -> Result<Env> {
    let options: Vec<_> = options.iter().map(|text| key_value(text)).collect::<Result<_>>()?;
    Env::open(url, &options)
}

/// A directory's full path; URLs are whole already.
pub fn absolute(url: &str) -> Result<String> {
    if url.contains("://") {
        return Ok(url.to_owned());
    }
    let path =
        std::path::absolute(url).map_err(|e| Error::invalid(format!("{url:?} is no directory: {e}")))?;
    path.into_os_string().into_string().map_err(|_| Error::invalid(format!("{url:?} is not UTF-8")))
}

/// The log of a database that is there.
pub async fn log_of(env: &Env) -> Result<Log> {
    if env.store.get(tandem_format::identity_path()).await?.is_none() {
        return Err(Error::not_found(format!("there is no database in {}", env.store.url())));
    }
    Log::open(env.clone()).await
}

/// A moment of the past, as people say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    Seq(Seq),
    /// Microseconds since 1970.
    Time(i64),
}

impl Moment {
    /// `seq:N`, a bare number, or a time of RFC 3339.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let number = text.strip_prefix("seq:").unwrap_or(text);
        if let Ok(seq) = number.parse() {
            return Ok(Self::Seq(Seq(seq)));
        }
        let time = chrono::DateTime::parse_from_rfc3339(text).map_err(|e| {
            Error::invalid(format!("{text:?} is neither seq:N nor a time such as 2024-05-01T12:00:00Z: {e}"))
        })?;
        Ok(Self::Time(time.timestamp_micros()))
    }
}

/// The state of a database at a moment; without one, the newest. `head` is the newest.
pub async fn state_at(log: &Log, head: Manifest, moment: Option<&Moment>) -> Result<Manifest> {
    let seq = match moment {
        None => return Ok(head),
        Some(Moment::Seq(seq)) => *seq,
        Some(Moment::Time(time)) if *time >= head.commit_time() => return Ok(head),
        Some(Moment::Time(time)) => {
            let floor = log.floor().await?;
            let before_all = (floor.max(Seq(head.history_start().0.saturating_sub(1))), i64::MIN);
            let (found, _) = log.moments_around(*time, before_all, (head.seq(), head.commit_time())).await?;
            if found == before_all {
                return Err(Error::new(
                    tandem_types::ErrorKind::HistoryGone,
                    "the moment lies before the history that is kept".to_owned(),
                ));
            }
            found.0
        }
    };
    if seq > head.seq() {
        return Err(Error::invalid(format!("seq {seq} is not there yet: the log ends at {}", head.seq())));
    }
    head.check_kept(seq)?;
    log.state_at(seq, None).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_seqs_or_times() {
        assert_eq!(Moment::parse("seq:12").unwrap(), Moment::Seq(Seq(12)));
        assert_eq!(Moment::parse(" 12 ").unwrap(), Moment::Seq(Seq(12)));
        assert_eq!(Moment::parse("1970-01-01T00:00:01Z").unwrap(), Moment::Time(1_000_000));
        assert!(Moment::parse("yesterday").unwrap_err().message().contains("yesterday"));
    }
}
