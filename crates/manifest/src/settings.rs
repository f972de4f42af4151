//! Settings that live in the log, because every node must read them alike.

use tandem_types::{Error, PartitionUnit, Result};

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
];

/// Names that later parts of the design reserve.
const RESERVED: &[&str] = &[
    "ack",
    "dedup_window",
    "primary_key",
    "on_duplicate",
    "ttl",
    "schema",
    "on_type_conflict",
    "mode",
    "token_window",
    "token_count",
    "history_window",
    "failover_after",
];

fn positive(value: &str) -> bool {
    value.parse::<u64>().is_ok_and(|n| n > 0)
}

fn check(what: &str, known: &[SettingDef], key: &str, value: Option<&str>) -> Result<()> {
    let Some(def) = known.iter().find(|def| def.name == key) else {
        if RESERVED.contains(&key) {
            return Err(Error::unsupported(format!("{what} {key:?} is not supported yet")));
        }
        let names: Vec<&str> = known.iter().map(|def| def.name).collect();
        return Err(Error::invalid(format!("unknown {what} {key:?}; known are {}", names.join(", "))));
    };
    match value {
        Some(value) if !(def.check)(value) => {
            Err(Error::invalid(format!("{value:?} is no value for {what} {key:?} ({})", def.description)))
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
    if matches!(key, "timestamp" | "partition_by" | "order_by") {
        return Err(Error::unsupported(format!(
            "table option {key:?} is fixed when a table is created: create a new table and copy the rows"
        )));
    }
    check("table option", TABLE_OPTIONS, key, value)
}

/// A partition unit by name.
pub(crate) fn partition_unit(text: &str) -> Result<PartitionUnit> {
    PartitionUnit::parse(text).ok_or_else(|| {
        Error::invalid(format!(
            "{text:?} is no partition unit; known are hour, day, week, month, year and none"
        ))
    })
}
