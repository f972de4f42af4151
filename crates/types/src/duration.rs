//! Spans of time as people write them in settings and headers: `250ms`, `3s`, `24h`, `7d`.

use std::time::Duration;

use crate::{Error, Result};

const UNITS: [(&str, u64); 7] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
    ("w", 604_800_000_000),
];

/// A whole number and a unit: us, ms, s, m, h, d or w. At most 2^63 - 1 microseconds.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::invalid(format!(
            "{text:?} is no duration: a whole number and one of us, ms, s, m, h, d, w, such as 10m or 250ms"
        ))
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, micros) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let micros = number.checked_mul(*micros).filter(|m| i64::try_from(*m).is_ok()).ok_or_else(wrong)?;
    Ok(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_the_rest_refused() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        for wrong in
            ["", "5", "s", "-1s", "+1s", "1.5h", "1 h", "1H", "99999999999999w", "184467440737095516150us"]
        {
            let error = parse_duration(wrong).unwrap_err();
            assert!(error.message().contains("such as 10m"), "{wrong:?}: {error}");
        }
    }
}
