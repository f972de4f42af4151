//! What `serve` is told: by flags, then by variables, then by a file, then by default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use tandem_node::{NodeConfig, Prefetch};
use tandem_types::{Error, Result};

use super::failover::FailoverArgs;
use super::roles::RoleArgs;
use super::security::SecurityArgs;

/// Runs a node.
///
/// Without any option: a database in ./tandem-data, Flight on 127.0.0.1:8815, HTTP on 127.0.0.1:9000, PostgreSQL's
/// protocol on 127.0.0.1:8812. Any number of nodes may be started on one store.
#[derive(clap::Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServeArgs {
    /// Where the database lives: a directory, s3://bucket/prefix, gs://…, az://… or memory:// [default: ./tandem-data]
    #[arg(long, env = "TANDEM_STORE", value_name = "URL")]
    store: Option<String>,
    /// Setting of the store's client, such as aws_endpoint=http://… or allow_http=true; may be repeated
    #[arg(long = "store-option", env = "TANDEM_STORE_OPTION", value_name = "K=V", value_delimiter = ',')]
    #[serde(default)]
    store_option: Vec<String>,
    /// Address of the Flight and Flight SQL listener; port 0 picks a free one [default: 127.0.0.1:8815]
    #[arg(long, env = "TANDEM_FLIGHT", value_name = "ADDR")]
    flight: Option<String>,
    /// Address of the HTTP listener (line protocol, health, metrics), or off [default: 127.0.0.1:9000]
    #[arg(long, env = "TANDEM_HTTP", value_name = "ADDR")]
    http: Option<String>,
    /// Address of the listener for PostgreSQL's clients, or off [default: 127.0.0.1:8812, if that port is free]
    #[arg(long, env = "TANDEM_PG", value_name = "ADDR")]
    pg: Option<String>,
    /// Written, as JSON with the bound addresses, once requests are accepted
    #[arg(long, env = "TANDEM_READY_FILE", value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Memory that running queries share before they spill to disk, such as 512MB [default: 256MB]
    #[arg(long, env = "TANDEM_MEMORY_LIMIT", value_name = "SIZE")]
    memory_limit: Option<String>,
    /// A directory of this node alone for parts of data files and segments, kept over restarts; queries spill below it
    /// [default: none; queries spill to the system's directory for temporary files]
    #[arg(long, env = "TANDEM_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// With --cache-dir: bytes of it, at most [default: 4GB]; without: the same as --cache-memory
    #[arg(long, env = "TANDEM_CACHE_SIZE", value_name = "SIZE")]
    cache_size: Option<String>,
    /// Memory for rows that are not compacted yet [default: 128MB]
    #[arg(long, env = "TANDEM_CACHE_MEMORY", value_name = "SIZE")]
    cache_memory: Option<String>,
    /// What is fetched into --cache-dir before a query wants it: recent is what is written from now on [default: none]
    #[arg(long, env = "TANDEM_PREFETCH", value_name = "none|recent|all")]
    prefetch: Option<String>,
    /// How long a group of writes waits for company, such as 5ms: fewer requests, more latency [default: 0ms]
    #[arg(long, env = "TANDEM_COMMIT_WINDOW", value_name = "TIME")]
    commit_window: Option<String>,
    /// Rows that ride in one commit object; larger ones go to segments of their own [default: 8MB]
    #[arg(long, env = "TANDEM_COMMIT_INLINE_BYTES", value_name = "SIZE")]
    commit_inline_bytes: Option<String>,
    /// How long a transaction that has written may be idle before it is rolled back, such as 30s [default: 5m]
    #[arg(long, env = "TANDEM_TRANSACTION_TIMEOUT", value_name = "TIME")]
    transaction_timeout: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    roles: RoleArgs,
    #[command(flatten)]
    #[serde(flatten)]
    failover: FailoverArgs,
    #[command(flatten)]
    #[serde(flatten)]
    security: SecurityArgs,
    /// A TOML file with these options by their long names, without the dashes in front
    #[arg(long, env = "TANDEM_CONFIG", value_name = "FILE.toml")]
    #[serde(skip)]
    config: Option<PathBuf>,
}

/// All of it decided.
#[derive(Clone, Debug)]
pub struct Options {
    pub store: String,
    pub store_options: Vec<(String, String)>,
    pub flight: String,
    pub http: String,
    /// `None`: nobody asked for it, and it is wanted if its port is free.
    pub pg: Option<String>,
    pub ready_file: Option<PathBuf>,
    pub security: SecurityArgs,
    pub node: NodeConfig,
}

impl ServeArgs {
    /// Fills in the file and the defaults.
    pub fn resolve(self) -> Result<Options> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => Self::default(),
        };
        let mut node = self.roles.or(file.roles).node(super::random_node_id)?;
        self.failover.or(file.failover).apply(&mut node)?;
        if let Some(text) = self.memory_limit.or(file.memory_limit) {
            node.engine.memory_limit = size("--memory-limit", &text)?;
        }
        node.cache_dir = self.cache_dir.or(file.cache_dir);
        node.engine.spill_dir = node.cache_dir.as_ref().map(|dir| dir.join("spill"));
        if let Some(text) = self.cache_size.or(file.cache_size) {
            let bytes = size("--cache-size", &text)?;
            match &node.cache_dir {
                Some(_) => node.cache_bytes = bytes as u64,
                None => node.writer.tail_cache_bytes = bytes,
            }
        }
        if let Some(text) = self.cache_memory.or(file.cache_memory) {
            node.writer.tail_cache_bytes = size("--cache-memory", &text)?;
        }
        if let Some(text) = self.prefetch.or(file.prefetch) {
            node.prefetch = prefetch(&text, node.cache_dir.is_some())?;
        }
        if let Some(text) = self.commit_window.or(file.commit_window) {
            node.writer.window = duration("--commit-window", &text)?;
        }
        if let Some(text) = self.commit_inline_bytes.or(file.commit_inline_bytes) {
            node.writer.inline_bytes = size("--commit-inline-bytes", &text)? as u64;
        }
        if let Some(text) = self.transaction_timeout.or(file.transaction_timeout) {
            node.engine.transaction_idle = duration("--transaction-timeout", &text)?;
        }
        let store_option = if self.store_option.is_empty() { file.store_option } else { self.store_option };
        Ok(Options {
            store: self.store.or(file.store).unwrap_or_else(|| "./tandem-data".to_owned()),
            store_options: store_option.iter().map(|text| key_value(text)).collect::<Result<_>>()?,
            flight: self.flight.or(file.flight).unwrap_or_else(|| "127.0.0.1:8815".to_owned()),
            http: self.http.or(file.http).unwrap_or_else(|| "127.0.0.1:9000".to_owned()),
            pg: self.pg.or(file.pg),
            ready_file: self.ready_file.or(file.ready_file),
            security: self.security.or(file.security),
            node,
        })
    }
}

fn read_file(path: &Path) -> Result<ServeArgs> {
    let invalid = |e: &dyn std::fmt::Display| Error::invalid(format!("--config {}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| invalid(&e))?;
    let table: toml::Table = toml::from_str(&text).map_err(|e| invalid(&e))?;
    // serde cannot say so where options come in groups.
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let known = |key: &str| key != "config" && command.get_arguments().any(|a| a.get_long() == Some(key));
    if let Some(unknown) = table.keys().find(|key| !known(key)) {
        return Err(invalid(&format!("unknown option {unknown:?}")));
    }
    ServeArgs::deserialize(table).map_err(|e| invalid(&e))
}

/// `K=V`.
pub fn key_value(text: &str) -> Result<(String, String)> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Error::invalid(format!("--store-option {text:?} is not of the form K=V")))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// A number of bytes, with a unit or without.
fn size(flag: &str, text: &str) -> Result<usize> {
    const UNITS: [(&str, usize); 7] = [
        ("KB", 1 << 10),
        ("MB", 1 << 20),
        ("GB", 1 << 30),
        ("K", 1 << 10),
        ("M", 1 << 20),
        ("G", 1 << 30),
        ("B", 1),
    ];
    let upper = text.trim().to_ascii_uppercase().replace("IB", "B");
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| upper.strip_suffix(name).map(|digits| (digits, *unit)))
        .unwrap_or((upper.as_str(), 1));
    let number = digits.trim().parse::<usize>().ok().and_then(|n| n.checked_mul(unit)).filter(|n| *n > 0);
    number.ok_or_else(|| Error::invalid(format!("{flag} {text:?} is no size: say 512MB or 2GB")))
}

fn prefetch(text: &str, has_cache: bool) -> Result<Prefetch> {
    let policy = Prefetch::parse(text.trim());
    let policy = policy.ok_or_else(|| {
        Error::invalid(format!("--prefetch {text:?} is no policy: say none, recent or all"))
    })?;
    if policy != Prefetch::None && !has_cache {
        return Err(Error::invalid(format!(
            "--prefetch {text}: what is fetched ahead goes to the disk: name a directory with --cache-dir"
        )));
    }
    Ok(policy)
}

/// A time, with its unit.
fn duration(flag: &str, text: &str) -> Result<Duration> {
    let invalid = || Error::invalid(format!("{flag} {text:?} is no time: say 5ms or 1s"));
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').ok_or_else(invalid)?, 1_000),
    };
    let number: u64 = digits.trim().parse().map_err(|_| invalid())?;
    Ok(Duration::from_millis(number.checked_mul(unit).ok_or_else(invalid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_with_their_units_and_refused_with_the_flag() {
        assert_eq!(size("--x", "512MB").unwrap(), 512 << 20);
        assert_eq!(size("--x", "2 GiB").unwrap(), 2 << 30);
        assert_eq!(size("--x", "4096").unwrap(), 4096);
        assert!(size("--cache-size", "much").unwrap_err().message().contains("--cache-size"));
        assert!(size("--x", "0").is_err() && size("--x", "99999999999GB").is_err());
        assert_eq!(duration("--x", "5ms").unwrap(), Duration::from_millis(5));
        assert_eq!(duration("--x", "1s").unwrap(), Duration::from_secs(1));
        assert!(duration("--commit-window", "5").unwrap_err().message().contains("--commit-window"));
    }

    #[test]
    fn the_cache_is_in_memory_without_a_directory_and_on_disk_with_one() {
        let resolved =
            |dir: Option<&str>, size: Option<&str>, memory: Option<&str>, prefetch: Option<&str>| {
                let [cache_size, cache_memory, prefetch] =
                    [size, memory, prefetch].map(|t| t.map(str::to_owned));
                let cache_dir = dir.map(PathBuf::from);
                let args = ServeArgs { cache_dir, cache_size, cache_memory, prefetch, ..Default::default() };
                args.resolve().map(|options| options.node)
            };
        let memory = resolved(None, Some("5MB"), None, None).unwrap();
        assert_eq!((memory.writer.tail_cache_bytes, memory.cache_dir), (5 << 20, None));
        let disk = resolved(Some("c"), Some("5MB"), Some("7MB"), Some("recent")).unwrap();
        assert_eq!((disk.writer.tail_cache_bytes, disk.cache_bytes), (7 << 20, 5 << 20));
        assert_eq!(
            (disk.prefetch, disk.engine.spill_dir),
            (Prefetch::Recent, Some(Path::new("c/spill").into()))
        );
        assert_eq!(resolved(Some("c"), None, None, None).unwrap().cache_bytes, 4 << 30);
        for (dir, prefetch) in [(None, "all"), (Some("c"), "some")] {
            let error = resolved(dir, None, None, Some(prefetch)).unwrap_err();
            assert!(error.message().contains("--prefetch"), "{error}");
        }
        assert!(resolved(None, None, None, Some("none")).is_ok());
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tandem.toml");
        std::fs::write(&path, "flight = \"127.0.0.1:1\"\nhttp = \"off\"\nstore-option = [\"a=b\"]\n")
            .unwrap();
        let args = ServeArgs {
            flight: Some("127.0.0.1:2".into()),
            config: Some(path.clone()),
            ..Default::default()
        };
        let options = args.resolve().unwrap();
        assert_eq!((options.flight.as_str(), options.http.as_str()), ("127.0.0.1:2", "off"));
        assert_eq!(options.store, "./tandem-data");
        assert_eq!(options.store_options, [("a".to_owned(), "b".to_owned())]);

        std::fs::write(&path, "fligth = \"x\"\n").unwrap();
        let error = ServeArgs { config: Some(path), ..Default::default() }.resolve().unwrap_err();
        assert!(error.message().contains("fligth"), "an unknown option is named: {error}");
    }
}
