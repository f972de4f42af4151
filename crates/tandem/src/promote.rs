//! `tandem promote`: says who the primary is to be.

use std::io::Write;

use serde_json::{Value, json};
use tandem_client::Client;
use tandem_types::{Error, Result};

use crate::target::Target;

/// Make a node the primary of a database in single-primary mode
///
/// Without --force this is orderly: the present primary commits what waits in its queue, then hands over, and nothing is
/// lost, doubled or refused for good; clients are sent to the new primary. The request may go to any node.
///
/// With --force the present primary is not asked. Use it when it is gone or cannot be reached and no other node has
/// taken over by itself (failover_after = off, or --failover-priority never). What it acknowledged is in the log, so nothing
/// acknowledged is lost even if it is still alive: it can commit nothing from then on, sends its clients to the new
/// primary, and follows it.
///
/// A node becomes a candidate by being started without --role replica. `ALTER DATABASE SET (mode = 'single-primary')`
/// brings a database into this mode and makes the node that runs it the primary; 'multi-primary' lets all nodes write again.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  tandem promote --connect grpc://b:8815           the node that listens there becomes the primary
  tandem promote --node-id b                       node b does; any node may be asked
  tandem promote --connect grpc://b:8815 --force   although the old primary does not answer
  tandem sql -c \"SELECT node_id, role, epoch, lag_commits FROM system.nodes\"")]
pub struct PromoteArgs {
    /// The node that is to be the primary [default: the one that is asked]
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,
    /// Do not ask the present primary: it is gone, or cannot be reached
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
}

/// Asks the server of `urls`.
pub async fn run(args: &PromoteArgs, urls: &str) -> Result<()> {
    let client = Client::connect_with(urls, args.target.connect_options()?).await?;
    let mut body = json!({ "force": args.force });
    if let Some(node_id) = &args.node_id {
        body["node_id"] = json!(node_id);
    }
    let answers = client.action("tandem.Promote", body.to_string()).await?;
    let answer = answers.first().and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    let answer = answer.ok_or_else(|| Error::internal("the server answered in an unknown form"))?;
    let line = if args.json { answer.to_string() } else { sentence(&answer) };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").map_err(|e| Error::unavailable(format!("cannot write to standard output: {e}")))
}

fn sentence(answer: &Value) -> String {
    let text = |name: &str| match answer.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let (node_id, address, epoch, seq) = (text("node_id"), text("address"), text("epoch"), text("seq"));
    match answer.get("changed").and_then(Value::as_bool) {
        Some(false) => format!("node {node_id} at {address} is the primary already, in epoch {epoch}"),
        _ => format!("node {node_id} at {address} is the primary now: epoch {epoch}, from commit {seq} on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_a_sentence() {
        let mut answer =
            json!({ "node_id": "b", "address": "grpc://b:1", "epoch": 2, "seq": 9, "changed": true });
        assert_eq!(sentence(&answer), "node b at grpc://b:1 is the primary now: epoch 2, from commit 9 on");
        answer["changed"] = json!(false);
        assert!(sentence(&answer).contains("already"));
    }
}
