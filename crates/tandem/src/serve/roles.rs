//! What a node is for, and whom it follows.

use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime};
use serde::Deserialize;
use tandem_node::{ApplyLimit, NodeConfig, Until, Upstream, WriterConfig};
use tandem_types::{Error, Result, Seq, parse_duration};

/// The options that say so.
#[derive(clap::Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RoleArgs {
    /// A name for this node: letters, digits, dots, dashes; no two nodes may share one [default: random]
    #[arg(long, env = "TANDEM_NODE_ID", value_name = "NAME", help_heading = "Roles")]
    node_id: Option<String>,
    /// writer takes writes; replica follows and serves reads [default: writer]
    #[arg(long, env = "TANDEM_ROLE", value_name = "writer|replica", help_heading = "Roles")]
    role: Option<String>,
    /// Be a replica of the first of these nodes that answers; `store`: read the log from the store and call no node
    #[arg(long, env = "TANDEM_FOLLOW", value_name = "URL[,URL…]|store", help_heading = "Roles")]
    follow: Option<String>,
    /// Where other nodes and redirected clients reach this one [default: the Flight address, if it names one host]
    #[arg(long, env = "TANDEM_ADVERTISE", value_name = "URL", help_heading = "Roles")]
    advertise: Option<String>,
    /// Replicas: apply commits only once they are this old by their commit time, such as 1h; a net under mistakes
    #[arg(long, env = "TANDEM_APPLY_DELAY", value_name = "TIME", help_heading = "Roles")]
    apply_delay: Option<String>,
    /// Replicas: apply nothing after this commit, or after this time (RFC 3339, or a date for its first moment in UTC)
    #[arg(long, env = "TANDEM_UNTIL", value_name = "SEQ|TIME", help_heading = "Roles")]
    until: Option<String>,
    /// Hand writes that this node cannot commit to a node that can, instead of refusing them with its address
    #[arg(long, env = "TANDEM_FORWARD_WRITES", help_heading = "Roles")]
    #[serde(default)]
    forward_writes: bool,
}

impl RoleArgs {
    /// What is not given here is as the file says.
    pub fn or(self, file: Self) -> Self {
        Self {
            node_id: self.node_id.or(file.node_id),
            role: self.role.or(file.role),
            follow: self.follow.or(file.follow),
            advertise: self.advertise.or(file.advertise),
            apply_delay: self.apply_delay.or(file.apply_delay),
            until: self.until.or(file.until),
            forward_writes: self.forward_writes || file.forward_writes,
        }
    }

    /// The configuration of a node that is called so if nobody says otherwise.
    pub fn node(&self, node_id: impl FnOnce() -> String) -> Result<NodeConfig> {
        let limit = ApplyLimit {
            until: self.until.as_deref().map(until).transpose()?,
            delay: match &self.apply_delay {
                Some(text) => parse_duration(text.trim()).map_err(|e| e.context("--apply-delay"))?,
                None => Duration::ZERO,
            },
        };
        let (upstream, follows) = match self.follow.as_deref().map(str::trim) {
            None => (Upstream::Found, false),
            Some("store") => (Upstream::Store, true),
            Some(urls) => (Upstream::Addresses(addresses(urls)?), true),
        };
        let replica = match (self.role.as_deref(), follows) {
            (None, follows) => follows,
            (Some("replica"), _) => true,
            (Some("writer"), false) => false,
            (Some("writer"), true) => {
                return Err(Error::invalid(
                    "--role writer --follow: only a replica follows; writers find each other by themselves",
                ));
            }
            (Some(other), _) => {
                return Err(Error::invalid(format!("--role {other:?} is no role: say writer or replica")));
            }
        };
        if !limit.is_none() && !replica {
            return Err(Error::invalid(
                "--until and --apply-delay are for replicas: a node that writes applies everything; say --role replica",
            ));
        }
        if !limit.is_none() && self.forward_writes {
            return Err(Error::invalid(
                "--forward-writes: a write is answered once this node has applied it, and with --until or --apply-delay that \
                 would be late or never: leave one of them out",
            ));
        }
        let advertise = self.advertise.as_deref().map(address).transpose()?;
        let node_id = self.node_id.clone().unwrap_or_else(node_id);
        let forward_writes = self.forward_writes;
        let writer = WriterConfig { limit, ..WriterConfig::default() };
        Ok(NodeConfig {
            node_id,
            replica,
            upstream,
            forward_writes,
            advertise,
            writer,
            ..NodeConfig::default()
        })
    }
}

/// A seq, a time or a date.
fn until(text: &str) -> Result<Until> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let found = if is_number {
        text.parse().ok().filter(|seq| *seq > 0).map(|seq| Until::Seq(Seq(seq)))
    } else if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Some(Until::Time(date.and_time(NaiveTime::MIN).and_utc().timestamp_micros()))
    } else {
        DateTime::parse_from_rfc3339(text).ok().map(|time| Until::Time(time.timestamp_micros()))
    };
    found.ok_or_else(|| {
        Error::invalid(format!(
            "--until {text:?} is no seq and no time: say 1234, 2024-05-01T12:00:00Z or 2024-05-01"
        ))
    })
}

/// Where a node is reached that was told nothing: where it listens, unless that is on all addresses at once.
pub fn reached_at(scheme: &str, listens: SocketAddr) -> Option<String> {
    if listens.ip().is_unspecified() {
        tracing::warn!(
            %listens,
            "other nodes and redirected clients do not know where to reach this node: say --advertise {scheme}://HOST:PORT"
        );
        return None;
    }
    Some(format!("{scheme}://{listens}"))
}

fn addresses(urls: &str) -> Result<Vec<String>> {
    let listed: Vec<&str> = urls.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
    if listed.is_empty() {
        return Err(Error::invalid("--follow names nobody: say grpc://HOST:PORT or store"));
    }
    listed.into_iter().map(|url| address(url).map_err(|e| e.context("--follow"))).collect()
}

fn address(url: &str) -> Result<String> {
    let url = url.trim().trim_end_matches('/');
    let (scheme, authority) = url.split_once("://").unwrap_or(("grpc", url));
    let known = matches!(scheme, "grpc" | "grpc+tcp" | "grpc+tls" | "http" | "https");
    if !known || authority.is_empty() || authority.contains(['/', ' ', ',', '@', '?', '#']) {
        return Err(Error::invalid(format!("{url:?} is not of the form grpc://HOST:PORT")));
    }
    Ok(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(role: Option<&str>, follow: Option<&str>) -> Result<NodeConfig> {
        let (role, follow) = (role.map(str::to_owned), follow.map(str::to_owned));
        RoleArgs { role, follow, ..RoleArgs::default() }.node(|| "n".to_owned())
    }

    #[test]
    fn who_follows_is_a_replica() {
        assert!(!node(None, None).unwrap().replica);
        assert!(node(Some("replica"), None).unwrap().replica);
        let store = node(None, Some("store")).unwrap();
        assert!(store.replica && store.upstream == Upstream::Store);
        let two = node(Some("replica"), Some("grpc://a:1, b:2/")).unwrap();
        assert_eq!(two.upstream, Upstream::Addresses(vec!["grpc://a:1".into(), "grpc://b:2".into()]));
        for (role, follow) in
            [(Some("writer"), Some("store")), (Some("boss"), None), (None, Some("")), (None, Some("ftp://x"))]
        {
            assert!(node(role, follow).is_err(), "{role:?} {follow:?}");
        }
    }

    #[test]
    fn a_replica_may_be_kept_behind() {
        let limited = |until: Option<&str>, delay: Option<&str>, follow: Option<&str>| {
            let [until, apply_delay, follow] = [until, delay, follow].map(|text| text.map(str::to_owned));
            RoleArgs { until, apply_delay, follow, ..RoleArgs::default() }.node(|| "n".to_owned())
        };
        let limit = |until: &str| limited(Some(until), None, Some("store")).unwrap().writer.limit;
        assert_eq!(limit("12").until, Some(Until::Seq(Seq(12))));
        assert_eq!(limit("1970-01-02").until, Some(Until::Time(86_400_000_000)));
        assert_eq!(limit("1970-01-01T01:00:00.5+01:00").until, Some(Until::Time(500_000)));
        let delayed = limited(None, Some("1h"), Some("store")).unwrap().writer.limit;
        assert_eq!((delayed.delay, delayed.until), (Duration::from_secs(3600), None));
        for wrong in ["0", "-1", "", "now", "2024-13-01", "2024-01-01T00:00:00", "99999999999999999999"] {
            let error = limited(Some(wrong), None, Some("store")).unwrap_err();
            assert!(error.message().contains("--until"), "{wrong}: {error}");
        }
        let error = limited(None, Some("soon"), Some("store")).unwrap_err();
        assert!(error.message().contains("--apply-delay"), "{error}");
        for (until, delay) in [(Some("5"), None), (None, Some("1h"))] {
            let error = limited(until, delay, None).unwrap_err();
            assert!(error.message().contains("replica"), "{error}");
        }
        assert!(limited(None, Some("0s"), None).is_ok(), "no delay is no limit");

        let file = "follow = \"store\"\nuntil = \"7\"\napply-delay = \"5m\"";
        let from_file = toml::from_str::<RoleArgs>(file).unwrap();
        let flags = RoleArgs { until: Some("9".into()), ..RoleArgs::default() };
        let node = flags.or(from_file).node(|| "n".to_owned()).unwrap();
        let limit = ApplyLimit { until: Some(Until::Seq(Seq(9))), delay: Duration::from_secs(300) };
        assert_eq!((node.writer.limit, node.forward_writes, node.replica), (limit, false, true));
        let from_file = || toml::from_str::<RoleArgs>("role = \"replica\"\nforward-writes = true").unwrap();
        assert!(from_file().node(|| "n".to_owned()).unwrap().forward_writes);
        let both = RoleArgs { apply_delay: Some("1h".into()), ..RoleArgs::default() }.or(from_file());
        let error = both.node(|| "n".to_owned()).unwrap_err();
        assert!(error.message().contains("--forward-writes"), "{error}");
    }

    #[test]
    fn a_node_is_reached_where_it_listens_unless_that_is_everywhere() {
        let at = |text: &str| reached_at("grpc", text.parse().unwrap());
        assert_eq!(at("127.0.0.1:5").as_deref(), Some("grpc://127.0.0.1:5"));
        assert_eq!(at("0.0.0.0:5"), None);
        let given = RoleArgs { advertise: Some("h:1".into()), ..RoleArgs::default() };
        assert_eq!(given.node(String::new).unwrap().advertise.as_deref(), Some("grpc://h:1"));
    }
}
