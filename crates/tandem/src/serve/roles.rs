//! What a node is for, and whom it follows.

use std::net::SocketAddr;

use serde::Deserialize;
use tandem_node::{NodeConfig, Upstream};
use tandem_types::{Error, Result};

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
    /// Apply commits only once they are this old
    #[arg(long, env = "TANDEM_APPLY_DELAY", value_name = "TIME", help_heading = "Roles")]
    apply_delay: Option<String>,
    /// Apply nothing after this commit or time
    #[arg(long, env = "TANDEM_UNTIL", value_name = "SEQ|TIME", help_heading = "Roles")]
    until: Option<String>,
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
        }
    }

    /// The configuration of a node that is called so if nobody says otherwise.
    pub fn node(&self, node_id: impl FnOnce() -> String) -> Result<NodeConfig> {
        for (flag, value) in [("--apply-delay", &self.apply_delay), ("--until", &self.until)] {
            if value.is_some() {
                return Err(Error::unsupported(format!("{flag} is not supported yet")));
            }
        }
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
        let advertise = self.advertise.as_deref().map(address).transpose()?;
        let node_id = self.node_id.clone().unwrap_or_else(node_id);
        Ok(NodeConfig { node_id, replica, upstream, advertise, ..NodeConfig::default() })
    }
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
    fn a_node_is_reached_where_it_listens_unless_that_is_everywhere() {
        let at = |text: &str| reached_at("grpc", text.parse().unwrap());
        assert_eq!(at("127.0.0.1:5").as_deref(), Some("grpc://127.0.0.1:5"));
        assert_eq!(at("0.0.0.0:5"), None);
        let given = RoleArgs { advertise: Some("h:1".into()), ..RoleArgs::default() };
        assert_eq!(given.node(String::new).unwrap().advertise.as_deref(), Some("grpc://h:1"));
    }
}
