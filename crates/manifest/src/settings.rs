//! Settings that live in the log, because every node must read them alike.

use std::time::Duration;

use tandem_types::{Error, PartitionUnit, Result, parse_duration};

use crate::foreign::{Keep, MAX_FOREIGN};

/// The value of `mode` under which one node at a time takes all writes.
const SINGLE_PRIMARY: &str = "single-primary";
const MULTI_PRIMARY: &str = "multi-primary";

/// Who takes writes: the setting `mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Every node.
    #[default]
    MultiPrimary,
    /// The one that was promoted last.
    SinglePrimary,
}

impl Mode {
    /// As it stands in the log; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            MULTI_PRIMARY => Some(Self::MultiPrimary),
            SINGLE_PRIMARY => Some(Self::SinglePrimary),
            _ => None,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::MultiPrimary => MULTI_PRIMARY,
            Self::SinglePrimary => SINGLE_PRIMARY,
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How long tokens of clients are kept, and how many in any case, where nothing else was set. As long as nobody
/// sets them, all nodes go by these: they cannot change.
const TOKEN_WINDOW: &str = "24h";
const TOKEN_COUNT: &str = "1000000";

/// How far the past reaches where nothing else was set.
const HISTORY_WINDOW: &str = "7d";

/// A database setting: its name, what holds when nobody set it, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct SettingDef {
    pub name: &'static str,
    pub default: &'static str,
    pub description: &'static str,
    check: fn(&str) -> bool,
}

/// What `ALTER DATABASE SET` knows.
pub const DATABASE_SETTINGS: &[SettingDef] = &[
    SettingDef {
        name: "checkpoint_commits",
        default: "1000",
        description: "a checkpoint is written after this many commits",
        check: positive,
    },
    SettingDef {
        name: "checkpoint_bytes",
        default: "268435456",
        description: "a checkpoint is written after this many bytes of log",
        check: positive,
    },
    SettingDef {
        name: "mode",
        default: MULTI_PRIMARY,
        description: "who takes writes: multi-primary (every node) or single-primary (the one that was promoted)",
        check: |v| Mode::parse(v).is_some(),
    },
    SettingDef {
        name: "ack",
        default: "store",
        description: "when a write is acknowledged: store, or quorum(k) for k other nodes that have applied it",
        check: ack,
    },
    SettingDef {
        name: "failover_after",
        default: "3s",
        description: "a single primary that was silent for so long is replaced by another node; off: never",
        check: duration_or_off,
    },
    SettingDef {
        name: "history_window",
        default: HISTORY_WINDOW,
        description: "the past can be queried and restored for at least so long",
        check: duration,
    },
    SettingDef {
        name: "token_window",
        default: TOKEN_WINDOW,
        description: "tokens of clients are told apart for at least so long",
        check: duration,
    },
    SettingDef {
        name: "token_count",
        default: TOKEN_COUNT,
        description: "at least this many of clients' tokens are told apart, however old; at most 10000000",
        check: |v| v.parse::<usize>().is_ok_and(|n| (1..=MAX_FOREIGN).contains(&n)),
    },
    SettingDef {
        name: "line_schema",
        default: "create",
        description: "what line protocol may make where neither request nor table says it: create (tables and columns), add \
                      (columns) or strict (nothing)",
        check: |v| matches!(v, "create" | "add" | "strict"),
    },
    SettingDef {
        name: "line_keys",
        default: "none",
        description: "the primary key of tables that line protocol makes: tags (and the timestamp, rows of which merge) or none",
        check: |v| matches!(v, "tags" | "none"),
    },
    SettingDef {
        name: "line_partition_by",
        default: "day",
        description: "partitions of tables that line protocol makes",
        check: |v| PartitionUnit::parse(v).is_some(),
    },
    SettingDef {
        name: "line_ttl",
        default: "off",
        description: "the ttl of tables that line protocol makes",
        check: duration_or_off,
    },
    SettingDef {
        name: "line_dedup_window",
        default: "10m",
        description: "the line_dedup_window of tables without a primary key that line protocol makes; off keeps all that is \
                      sent",
        check: duration_or_off,
    },
    SettingDef {
        name: "line_on_type_conflict",
        default: "reject",
        description: "the on_type_conflict of tables that line protocol makes",
        check: |v| matches!(v, "reject" | "divert"),
    },
];

/// What a table's `WITH` and `ALTER TABLE SET` know, beside the parts of its definition.
pub const TABLE_OPTIONS: &[SettingDef] = &[
    SettingDef {
        name: "target_file_size",
        default: "134217728",
        description: "compaction aims at data files of this many bytes",
        check: positive,
    },
    SettingDef {
        name: "compression",
        default: "zstd",
        description: "of data files: zstd, lz4 or none",
        check: |v| matches!(v, "zstd" | "lz4" | "none"),
    },
    SettingDef {
        name: "ack",
        default: "",
        description: "when a write to the table is acknowledged: store or quorum(k); else as for the database",
        check: ack,
    },
    SettingDef {
        name: "dedup_window",
        default: "off",
        description: "a write without a token that equals one of so short a time before is taken for the same",
        check: duration_or_off,
    },
    SettingDef {
        name: "line_dedup_window",
        default: "off",
        description: "the same, of requests of line protocol alone, by the same client; where dedup_window does not say it",
        check: duration_or_off,
    },
    SettingDef {
        name: "on_duplicate",
        default: "replace",
        description: "what a row does to an earlier one of equal primary key: replace, ignore (gives way) or merge (where not \
                      null)",
        check: |v| matches!(v, "replace" | "ignore" | "merge"),
    },
    SettingDef {
        name: "ttl",
        default: "off",
        description: "partitions older than this are dropped whole",
        check: duration_or_off,
    },
    SettingDef {
        name: "schema",
        default: "",
        description: "what line protocol may do to the table's columns: add or strict (nothing); else as for the database",
        check: |v| matches!(v, "add" | "strict"),
    },
    SettingDef {
        name: "on_type_conflict",
        default: "reject",
        description: "what becomes of a line with a value that does not go into its column: reject, or divert to \
                      system.rejected",
        check: |v| matches!(v, "reject" | "divert"),
    },
];

fn duration_or_off(value: &str) -> bool {
    value == "off" || duration(value)
}

fn positive(value: &str) -> bool {
    value.parse::<u64>().is_ok_and(|n| n > 0)
}

fn duration(value: &str) -> bool {
    parse_duration(value).is_ok_and(|d| d > Duration::ZERO)
}

fn ack(value: &str) -> bool {
    let k = value.strip_prefix("quorum(").and_then(|rest| rest.strip_suffix(')'));
    value == "store" || k.is_some_and(|k| k.parse::<u32>().is_ok_and(|k| k > 0))
}

/// What two settings, as they stand in the log, mean. What cannot be read means the default, on every node.
pub(crate) fn kept_tokens(window: Option<&str>, count: Option<&str>) -> Keep {
    let micros = |text: &str| {
        let window = parse_duration(text).ok()?;
        i64::try_from(window.as_micros()).ok()
    };
    let window = window.and_then(micros).or_else(|| micros(TOKEN_WINDOW)).unwrap_or(i64::MAX);
    let count = count.and_then(|n| n.parse().ok()).or_else(|| TOKEN_COUNT.parse().ok());
    Keep { window, count: count.unwrap_or(MAX_FOREIGN) }
}

/// How far history reaches, in microseconds of the log's age.
pub(crate) fn history_window(value: Option<&str>) -> i64 {
    let micros = |text: &str| i64::try_from(parse_duration(text).ok()?.as_micros()).ok();
    value.and_then(micros).or_else(|| micros(HISTORY_WINDOW)).unwrap_or(i64::MAX)
}

fn check(what: &str, known: &[SettingDef], key: &str, value: Option<&str>) -> Result<()> {
    let Some(def) = known.iter().find(|def| def.name == key) else {
        let names: Vec<&str> = known.iter().map(|def| def.name).collect();
        return Err(Error::invalid(format!("unknown {what} {key:?}; known are {}", names.join(", "))));
    };
    match value {
        Some(value) if !(def.check)(value) => {
            // Whatever takes this takes times.
            let example =
                if (def.check)("10m") { ": say a whole number and a unit, such as 10m" } else { "" };
            Err(Error::invalid(format!(
                "{value:?} is no value for {what} {key:?} ({}){example}",
                def.description
            )))
        }
        _ => Ok(()),
    }
}

/// Refuses an unknown database setting or a value it cannot have; `None` resets one.
pub fn check_setting(key: &str, value: Option<&str>) -> Result<()> {
    check("database setting", DATABASE_SETTINGS, key, value)
}

/// Refuses an unknown table option or a value it cannot have; `None` takes one away.
pub fn check_table_option(key: &str, value: Option<&str>) -> Result<()> {
    if matches!(key, "timestamp" | "partition_by" | "order_by" | "primary_key") {
        return Err(Error::unsupported(format!(
            "table option {key:?} is fixed when a table is created: create a new table and copy the rows"
        )));
    }
    let checked = check("table option", TABLE_OPTIONS, key, value);
    if TABLE_OPTIONS.iter().any(|def| def.name == key) {
        return checked;
    }
    checked.map_err(|e| {
        let made = "and, when a table is created, timestamp, partition_by, order_by and primary_key";
        Error::invalid(format!("{}, {made}", e.message()))
    })
}

/// A partition unit by name.
pub(crate) fn partition_unit(text: &str) -> Result<PartitionUnit> {
    PartitionUnit::parse(text).ok_or_else(|| {
        Error::invalid(format!(
            "{text:?} is no partition unit; known are hour, day, week, month, year and none"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_have_worked_is_said() {
        let said = |key, value| check_table_option(key, Some(value)).unwrap_err().message().to_owned();
        let unknown = said("tttl", "1d");
        for known in ["ttl", "dedup_window", "ack", "timestamp", "partition_by", "order_by", "primary_key"] {
            assert!(unknown.contains(known), "{known}: {unknown}");
        }
        assert!(said("ttl", "1 day").contains("such as 10m"));
        assert!(!said("compression", "1 day").contains("10m"));
        assert!(check_setting("history_window", Some("soon")).unwrap_err().message().contains("such as 10m"));
    }
}
