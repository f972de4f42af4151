//! States of the past: how they are named, and how queries come to read them.
//!
//! There are two ways. A read as a whole may be as of a moment, by the request or the session: then the state of that moment
//! takes the place of the newest one, and everything in the query is of one instant. And a table in a query may be: that
//! table alone is looked up in another state ([`versions`]). Whichever way, what is read is a snapshot like any other.

mod versions;

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat};
use tandem_types::{Error, Result, Seq};

pub(crate) use versions::{PastReads, is_versioned, with_versions};

/// A state of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AsOf {
    /// After this commit.
    Seq(Seq),
    /// After the last commit whose commit time is not later than this, in microseconds since 1970.
    Time(i64),
}

/// Times without a zone, which mean UTC.
const NAIVE: [&str; 4] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];

impl AsOf {
    /// `seq:N`, a time of RFC 3339, or a date, which means its beginning. Without a zone, UTC.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let wrong = || {
            Error::invalid(format!(
                "{text:?} is no moment of the past: say seq:1234, 2024-05-01T12:00:00Z or 2024-05-01"
            ))
        };
        if let Some(seq) = text.strip_prefix("seq:").or_else(|| text.strip_prefix("SEQ:")) {
            return seq.trim().parse().map(|seq| Self::Seq(Seq(seq))).map_err(|_| wrong());
        }
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::Time(time.timestamp_micros()));
        }
        let naive = NAIVE.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        let date = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|d| d.and_time(NaiveTime::MIN));
        let time = naive.or_else(date).ok_or_else(wrong)?;
        Ok(Self::Time(time.and_utc().timestamp_micros()))
    }
}

/// As [`AsOf::parse`] reads it.
impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seq(seq) => write!(f, "seq:{seq}"),
            Self::Time(micros) => f.write_str(&show_time(*micros)),
        }
    }
}

/// A time in microseconds since 1970, for people.
pub fn show_time(micros: i64) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        None => format!("{micros} µs since 1970"),
    }
}

/// Why nothing can be written by a request that reads the past.
pub(crate) fn refuse_write(at: AsOf) -> Error {
    Error::invalid(format!(
        "this session or request reads the past, as of {at}, where nothing can be written: reset tandem.as_of first"
    ))
}

#[cfg(test)]
mod tests {
    use tandem_types::ErrorKind;

    use super::*;

    #[test]
    fn moments_read_back_as_they_are_shown() {
        for at in [AsOf::Seq(Seq(0)), AsOf::Seq(Seq(12)), AsOf::Time(0), AsOf::Time(1_704_067_200_500_001)] {
            assert_eq!(AsOf::parse(&at.to_string()), Ok(at));
        }
    }

    #[test]
    fn times_may_be_written_in_several_ways() {
        let second = AsOf::Time(86_401_000_000);
        for text in [
            "1970-01-02T00:00:01Z",
            "1970-01-02T01:00:01+01:00",
            "1970-01-02T00:00:01",
            "1970-01-02 00:00:01",
            " 1970-01-02 00:00:01.000 ",
        ] {
            assert_eq!(AsOf::parse(text), Ok(second), "{text}");
        }
        assert_eq!(AsOf::parse("1970-01-02"), Ok(AsOf::Time(86_400_000_000)));
        assert_eq!(AsOf::parse("1970-01-02 00:01"), Ok(AsOf::Time(86_460_000_000)));
        assert_eq!(AsOf::parse("seq: 7"), Ok(AsOf::Seq(Seq(7))));
        for wrong in ["", "7", "seq:", "seq:-1", "seq:x", "yesterday", "1970-13-01", "12:00"] {
            let error = AsOf::parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
            assert!(error.message().contains(wrong), "{error}");
        }
    }
}
