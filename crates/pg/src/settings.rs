//! The parameters of PostgreSQL that clients set and ask for. Most are there because clients insist on them; what cannot be
//! honoured is refused.

use std::time::Duration;

use tandem_types::{Error, Result};

/// The release of PostgreSQL whose catalogs and messages clients are to expect.
pub(crate) const SERVER_VERSION: &str = "14.0";
pub(crate) const SERVER_VERSION_NUM: &str = "140000";

/// What each is at first, and what it may become.
const KNOWN: &[(&str, &str, Allowed)] = &[
    ("application_name", "", Allowed::Anything),
    ("bytea_output", "hex", Allowed::Only(&["hex"])),
    ("check_function_bodies", "on", Allowed::Anything),
    ("client_encoding", "UTF8", Allowed::Only(&["utf8", "utf-8", "unicode", "sql_ascii"])),
    ("client_min_messages", "notice", Allowed::Anything),
    ("datestyle", "ISO, MDY", Allowed::Only(&["iso", "iso, mdy", "iso, dmy", "iso, ymd", "iso,mdy"])),
    ("default_table_access_method", "heap", Allowed::Never),
    (
        "default_transaction_isolation",
        "repeatable read",
        Allowed::Only(&["read uncommitted", "read committed", "repeatable read"]),
    ),
    ("default_transaction_read_only", "off", Allowed::Only(&["off", "false", "0", "no"])),
    ("extra_float_digits", "1", Allowed::Anything),
    ("idle_in_transaction_session_timeout", "0", Allowed::Anything),
    ("in_hot_standby", "off", Allowed::Never),
    ("integer_datetimes", "on", Allowed::Never),
    ("intervalstyle", "postgres", Allowed::Only(&["postgres"])),
    ("is_superuser", "off", Allowed::Never),
    ("jit", "off", Allowed::Anything),
    ("lc_collate", "C", Allowed::Never),
    ("lc_ctype", "C", Allowed::Never),
    ("lock_timeout", "0", Allowed::Anything),
    ("max_identifier_length", "63", Allowed::Never),
    ("row_security", "on", Allowed::Anything),
    ("server_encoding", "UTF8", Allowed::Never),
    ("server_version", SERVER_VERSION, Allowed::Never),
    ("server_version_num", SERVER_VERSION_NUM, Allowed::Never),
    ("session_authorization", "tandem", Allowed::Never),
    ("standard_conforming_strings", "on", Allowed::Only(&["on", "true", "1", "yes"])),
    ("statement_timeout", "0", Allowed::Anything),
    ("synchronous_commit", "on", Allowed::Only(&["on"])),
    ("timezone", "UTC", Allowed::Only(&["utc", "gmt", "etc/utc", "etc/gmt", "0", "+00", "+00:00", "zulu"])),
    ("transaction_isolation", "repeatable read", Allowed::Never),
    ("transaction_read_only", "off", Allowed::Never),
];

/// As `ParameterStatus` tells them when a connection begins, and those of them that can change when they do.
const TOLD: &[(&str, &str)] = &[
    ("server_version", "server_version"),
    ("server_encoding", "server_encoding"),
    ("client_encoding", "client_encoding"),
    ("application_name", "application_name"),
    ("default_transaction_read_only", "default_transaction_read_only"),
    ("in_hot_standby", "in_hot_standby"),
    ("is_superuser", "is_superuser"),
    ("session_authorization", "session_authorization"),
    ("DateStyle", "datestyle"),
    ("IntervalStyle", "intervalstyle"),
    ("TimeZone", "timezone"),
    ("integer_datetimes", "integer_datetimes"),
    ("standard_conforming_strings", "standard_conforming_strings"),
];

#[derive(Clone, Copy, Debug)]
enum Allowed {
    Anything,
    /// Other spellings of what it is anyway.
    Only(&'static [&'static str]),
    Never,
}

/// One connection's parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    set: Vec<(&'static str, String)>,
}

impl Settings {
    /// Whether it is a parameter of PostgreSQL's.
    pub fn knows(name: &str) -> bool {
        find(name).is_some()
    }

    pub fn get(&self, name: &str) -> Option<String> {
        let (name, default, _) = find(name)?;
        let set = self.set.iter().find(|(known, _)| known == name);
        Some(set.map_or_else(|| (*default).to_owned(), |(_, value)| value.clone()))
    }

    /// # Errors
    ///
    /// `Unsupported` for a value that would have to change what results look like, `NotFound` for an unknown name.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let (name, default, allowed) = find(name)
            .ok_or_else(|| Error::invalid(format!("unrecognized configuration parameter {name:?}")))?;
        let Some(value) = value else {
            self.set.retain(|(known, _)| known != name);
            return Ok(());
        };
        match allowed {
            Allowed::Anything => {}
            Allowed::Only(values) if values.contains(&value.to_ascii_lowercase().as_str()) => return Ok(()),
            Allowed::Only(_) | Allowed::Never => {
                return Err(Error::unsupported(format!(
                    "parameter {name:?} cannot be {value:?}: here it is {default:?}"
                )));
            }
        }
        if name.ends_with("_timeout") {
            timeout(value).ok_or_else(|| {
                Error::invalid(format!(
                    "{value:?} is no time for parameter {name:?}: say 5000 (milliseconds) or 5s"
                ))
            })?;
        }
        self.set.retain(|(known, _)| known != name);
        self.set.push((name, value.to_owned()));
        Ok(())
    }

    /// How long a query may take, if that is limited.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.get("statement_timeout").and_then(|text| timeout(&text)).filter(|limit| !limit.is_zero())
    }

    /// What the client is told when the connection begins.
    pub fn told(&self) -> Vec<(&'static str, String)> {
        TOLD.iter().filter_map(|(shown, name)| Some((*shown, self.get(name)?))).collect()
    }

    /// The name by which clients are told of changes, if they are.
    pub fn told_as(name: &str) -> Option<&'static str> {
        TOLD.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(shown, _)| *shown)
    }

    pub fn all(&self) -> Vec<(&'static str, String)> {
        KNOWN.iter().filter_map(|(name, ..)| Some((*name, self.get(name)?))).collect()
    }
}

fn find(name: &str) -> Option<&'static (&'static str, &'static str, Allowed)> {
    KNOWN.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))
}

/// Milliseconds, or a number with its unit.
fn timeout(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text.get(digits.len()..)?.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use tandem_types::ErrorKind;

    use super::*;

    #[test]
    fn what_would_change_results_is_refused_and_the_rest_is_kept() {
        let mut settings = Settings::default();
        settings.set("Application_Name", Some("psql")).unwrap();
        assert_eq!(settings.get("application_name").as_deref(), Some("psql"));
        settings.set("client_encoding", Some("utf-8")).unwrap();
        assert_eq!(settings.get("client_encoding").as_deref(), Some("UTF8"));
        settings.set("TimeZone", Some("Etc/UTC")).unwrap();
        for (name, value) in
            [("timezone", "Europe/Berlin"), ("client_encoding", "LATIN1"), ("server_version", "1")]
        {
            let error = settings.set(name, Some(value)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}");
            assert!(error.message().contains(value), "{error}");
        }
        assert!(settings.set("nonsense", Some("1")).is_err() && !Settings::knows("nonsense"));
        settings.set("application_name", None).unwrap();
        assert_eq!(settings.get("application_name").as_deref(), Some(""));
    }

    #[test]
    fn times_have_units() {
        let mut settings = Settings::default();
        assert_eq!(settings.statement_timeout(), None);
        for (text, millis) in [("250", 250), ("5s", 5_000), ("2 min", 120_000)] {
            settings.set("statement_timeout", Some(text)).unwrap();
            assert_eq!(settings.statement_timeout(), Some(Duration::from_millis(millis)));
        }
        assert!(settings.set("statement_timeout", Some("soon")).is_err());
    }

    #[test]
    fn everything_that_is_told_is_known() {
        assert_eq!(Settings::default().told().len(), TOLD.len());
        assert_eq!(Settings::told_as("timezone"), Some("TimeZone"));
    }
}
