//! Databases in stores, opened without a node.

use tandem_env::Env;
use tandem_log::Log;
use tandem_manifest::Manifest;
use tandem_sql::{AsOf, show_time};
use tandem_types::{Error, ErrorKind, Result, Seq};

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

/// A moment of the past, as SQL says it; a bare number is a seq.
pub fn moment(text: &str) -> Result<AsOf> {
    AsOf::parse(&spelled(text))
}

/// A moment as SQL spells it.
pub fn spelled(text: &str) -> String {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { format!("seq:{text}") } else { text.to_owned() }
}

/// The state of a database at a moment; without one, the newest. `head` is the newest.
pub async fn state_at(log: &Log, head: Manifest, moment: Option<AsOf>) -> Result<Manifest> {
    let seq = match moment {
        None => return Ok(head),
        Some(AsOf::Seq(seq)) => seq,
        Some(AsOf::Time(time)) if time >= head.commit_time() => return Ok(head),
        Some(AsOf::Time(time)) => {
            let floor = log.floor().await?;
            let before_all = (floor.max(Seq(head.history_start().0.saturating_sub(1))), i64::MIN);
            let (found, next) =
                log.moments_around(time, before_all, (head.seq(), head.commit_time())).await?;
            if found == before_all {
                let (at, (seq, since)) = (AsOf::Time(time), next);
                let message = format!(
                    "{at} lies before the history that is kept, which begins at seq {seq} ({})",
                    show_time(since)
                );
                return Err(Error::new(ErrorKind::HistoryGone, message).with_seq(seq));
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
        assert_eq!(moment("seq:12").unwrap(), AsOf::Seq(Seq(12)));
        assert_eq!(moment(" 12 ").unwrap(), AsOf::Seq(Seq(12)));
        assert_eq!(moment("1970-01-01T00:00:01Z").unwrap(), AsOf::Time(1_000_000));
        assert_eq!(moment("1970-01-02").unwrap(), AsOf::Time(86_400_000_000));
        assert_eq!(moment("1970-01-01 00:00:01").unwrap(), AsOf::Time(1_000_000));
        assert!(moment("yesterday").unwrap_err().message().contains("yesterday"));
    }
}
