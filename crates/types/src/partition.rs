//! Time partitions: which rows live together on disk.

use std::fmt;

use arrow_schema::TimeUnit;
use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};

/// How a table's rows are cut by their designated timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PartitionUnit {
    Hour,
    #[default]
    Day,
    Week,
    Month,
    Year,
    /// One partition holds everything.
    None,
}

impl PartitionUnit {
    pub const ALL: [Self; 6] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year, Self::None];

    /// The word of SQL for it, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
            Self::None => "none",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| text.eq_ignore_ascii_case(unit.name()))
    }

    /// The partition of a timestamp given in `unit` ticks since 1970 (UTC).
    pub fn partition(self, ticks: i64, unit: TimeUnit) -> Partition {
        let seconds = ticks.div_euclid(ticks_per_second(unit));
        let index = match self {
            Self::None => return Partition(0),
            Self::Hour => seconds.div_euclid(3600),
            Self::Day => seconds.div_euclid(86_400),
            // 1970-01-01 was a Thursday; ISO weeks begin on Monday.
            Self::Week => (seconds.div_euclid(86_400) + 3).div_euclid(7),
            Self::Month => civil(seconds)
                .map_or(saturated(seconds), |d| i64::from(d.year()) * 12 + i64::from(d.month0())),
            Self::Year => civil(seconds).map_or(saturated(seconds), |d| i64::from(d.year())),
        };
        Partition(index)
    }

    /// The half-open range of timestamps that `partition` holds, in ticks of `unit`.
    ///
    /// Ends that the unit cannot express are cut to the ends of `i64`.
    pub fn range(self, partition: Partition, unit: TimeUnit) -> TimeRange {
        if self == Self::None {
            return TimeRange { start: i64::MIN, end: i64::MAX };
        }
        let tick = |seconds: Option<i64>, cut: i64| {
            seconds.and_then(|s| s.checked_mul(ticks_per_second(unit))).unwrap_or(cut)
        };
        TimeRange {
            start: tick(self.start_seconds(partition.0), i64::MIN),
            end: tick(partition.0.checked_add(1).and_then(|next| self.start_seconds(next)), i64::MAX),
        }
    }

    fn start_seconds(self, index: i64) -> Option<i64> {
        let midnight = |year: i64, month: u32| {
            let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, 1)?;
            Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp())
        };
        match self {
            Self::None => None,
            Self::Hour => index.checked_mul(3600),
            Self::Day => index.checked_mul(86_400),
            Self::Week => index.checked_mul(7)?.checked_sub(3)?.checked_mul(86_400),
            Self::Month => midnight(index.div_euclid(12), index.rem_euclid(12) as u32 + 1),
            Self::Year => midnight(index, 1),
        }
    }

    /// How a person and a path name the partition: `2013-01-31`, `2013-01-31T05`, `2013-W05`, `2013-01`,
    /// `2013`, `all`. Beyond the calendar's range the bare index stands.
    pub fn label(self, partition: Partition) -> String {
        let Some(date) = self.start_seconds(partition.0).and_then(civil) else {
            return if self == Self::None { "all".to_owned() } else { format!("p{}", partition.0) };
        };
        match self {
            Self::None => "all".to_owned(),
            Self::Hour => format!("{}T{:02}", date.format("%Y-%m-%d"), date.hour()),
            Self::Day => date.format("%Y-%m-%d").to_string(),
            Self::Week => date.format("%G-W%V").to_string(),
            Self::Month => date.format("%Y-%m").to_string(),
            Self::Year => date.format("%Y").to_string(),
        }
    }
}

impl fmt::Display for PartitionUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A partition of a table: how many of its units lie between year 0 or 1970 and it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i64);

/// A half-open range of timestamps, `start <= t < end`, in the ticks of the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    pub start: i64,
    pub end: i64,
}

/// How many ticks of `unit` make a second.
pub const fn ticks_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn civil(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}

/// Stands for a month or year beyond the calendar's ±262,000 years, which only timestamps in seconds reach.
const fn saturated(seconds: i64) -> i64 {
    if seconds < 0 { -10_000_000 } else { 10_000_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: [TimeUnit; 4] =
        [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];

    #[test]
    fn labels_are_what_a_person_expects() {
        let t = 1_359_610_200; // 2013-01-31 05:30:00, a Thursday
        let labels: Vec<String> =
            PartitionUnit::ALL.iter().map(|u| u.label(u.partition(t, TimeUnit::Second))).collect();
        assert_eq!(labels, ["2013-01-31T05", "2013-01-31", "2013-W05", "2013-01", "2013", "all"]);
    }

    #[test]
    fn every_timestamp_lies_in_the_range_of_its_partition() {
        let samples = [i64::MIN, i64::MIN + 1, -1, 0, 1, 86_399, 1_359_610_200_000, i64::MAX - 1];
        for by in PartitionUnit::ALL {
            for unit in UNITS {
                for t in samples {
                    let far = unit == TimeUnit::Second && t.unsigned_abs() > 8_000_000_000_000;
                    if far && matches!(by, PartitionUnit::Month | PartitionUnit::Year) {
                        continue; // beyond the calendar: one partition at each end, without a range
                    }
                    let range = by.range(by.partition(t, unit), unit);
                    assert!(range.start <= t && t < range.end, "{by} {unit:?} {t} {range:?}");
                }
            }
        }
    }
}
