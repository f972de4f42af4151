//! `tandem copy`, `tandem backup` and `tandem fork`: databases made out of another one's state.

use std::io::Write;

use serde_json::{Value, json};
use tandem_copy::{Copied, Progress};
use tandem_format::Pin;
use tandem_manifest::{Manifest, Step};
use tandem_types::{Error, ErrorKind, Result};
use tandem_verify::verify;
use tandem_writer::{Writer, WriterConfig};

use crate::bar::Bar;
use crate::place::{self, state_at};

/// From where, to where, and as of when.
#[derive(clap::Args, Clone, Debug)]
pub struct CopyArgs {
    /// Store of the database; nodes may go on writing to it
    #[arg(long, value_name = "URL", default_value = "./tandem-data")]
    pub from: String,
    /// Store of the copy
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// The moment: a time such as 2024-05-01T12:00:00Z, or the seq of a commit, as seq:1234 [default: now]
    #[arg(long, value_name = "TIME|SEQ")]
    pub as_of: Option<String>,
    /// Setting of the stores' clients; may be repeated
    #[arg(long = "store-option", value_name = "K=V")]
    pub store_options: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A fork to be made, to be made independent, or to be forgotten.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  tandem fork --from ./data --to ./what-if                  writable at once
  tandem fork --from ./data --to ./then --as-of seq:1234    as of a moment of the past
  tandem fork --detach ./what-if                            fetch what it shares
  tandem fork --from ./data --release fork-4f1c…            its store was deleted")]
pub struct ForkArgs {
    /// Store of the database; nodes may go on writing to it
    #[arg(long, value_name = "URL", required_unless_present = "detach")]
    pub from: Option<String>,
    /// Store of the fork
    #[arg(long, value_name = "URL", required_unless_present_any = ["detach", "release"])]
    pub to: Option<String>,
    /// The moment: a time such as 2024-05-01T12:00:00Z, or the seq of a commit, as seq:1234 [default: now]
    #[arg(long, value_name = "TIME|SEQ", conflicts_with = "detach")]
    pub as_of: Option<String>,
    /// Store of a fork that is to fetch what it shares, so that it needs its parent no more
    #[arg(long, value_name = "URL", conflicts_with_all = ["from", "to"])]
    pub detach: Option<String>,
    /// Fork whose store is gone, as system.forks names it: nothing has to be kept for it any more
    #[arg(long, value_name = "FORK_ID", conflicts_with_all = ["detach", "to", "as_of"])]
    pub release: Option<String>,
    /// Setting of the stores' clients; may be repeated
    #[arg(long = "store-option", value_name = "K=V")]
    pub store_options: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Copies, and, where `check` says so, walks the copy afterwards.
pub async fn copy(args: &CopyArgs, check: bool) -> Result<()> {
    let source = place::open(&args.from, &args.store_options).await?;
    let log = place::log_of(&source).await?;
    let moment = args.as_of.as_deref().map(place::moment).transpose()?;
    let head = log.recover().await?.manifest;
    let state = state_at(&log, head, moment).await?;
    let to = place::open_own(&args.to, &args.store_options)?;
    let bar = Bar::new("copied", args.json);
    let tell = |p: Progress| bar.tell(p.objects_done, p.objects, p.bytes_done);
    let copied = tandem_copy::copy(&log, &state, &to, &tell).await;
    bar.end();
    let copied = copied?;
    if check {
        let report = verify(&to, false, &|_| {}).await?;
        if let Some(problem) = report.problems.first() {
            return Err(Error::new(
                ErrorKind::Damaged,
                format!("the copy is not whole: {} {}", problem.object, problem.what),
            ));
        }
    }
    print(&args.json, &copied, &args.to, "holds")
}

/// Makes a fork, detaches one, or lets go what is kept for one.
pub async fn fork(args: &ForkArgs) -> Result<()> {
    if let Some(fork) = &args.detach {
        return detach(args, fork).await;
    }
    if let (Some(id), Some(from)) = (&args.release, &args.from) {
        return forget(args, from, id).await;
    }
    let (Some(from), Some(to)) = (&args.from, &args.to) else {
        return Err(Error::invalid("--from and --to say where the database is and where the fork shall be"));
    };
    // A fork opens its parent by this name, from wherever it is opened.
    let source = place::open(&place::absolute(from)?, &args.store_options).await?;
    let log = place::log_of(&source).await?;
    let moment = args.as_of.as_deref().map(place::moment).transpose()?;
    let head = log.recover().await?.manifest;
    let state = state_at(&log, head.clone(), moment).await?;
    let to_env = place::open_own(to, &args.store_options)?;
    let mut id = String::new();
    let pin = |pin: Pin| {
        id.clone_from(&pin.id);
        commit(&log, head, Step::Pin(pin))
    };
    let copied = tandem_copy::fork(&log, &state, &to_env, pin).await?;
    if args.json {
        return say(&json!({ "store": to, "fork_id": id, "copied": copied }).to_string());
    }
    print(&args.json, &copied, to, "is a fork with")?;
    say(&format!(
        "{from} keeps what it shares as {id}, until tandem fork --detach {to} or, once {to} is deleted, \
         tandem fork --from {from} --release {id}"
    ))
}

async fn detach(args: &ForkArgs, fork: &str) -> Result<()> {
    let shared = place::open(fork, &args.store_options).await?;
    let log = place::log_of(&shared).await?;
    let state = log.recover().await?.manifest;
    let own = place::open_own(fork, &args.store_options)?;
    let bar = Bar::new("fetched", args.json);
    let tell = |p: Progress| bar.tell(p.objects_done, p.objects, p.bytes_done);
    let detached = tandem_copy::detach(&log, &state, &own, &tell).await;
    bar.end();
    let (origin, copied) = detached?;
    if let Some(parent) = &origin.shared {
        release(parent, &origin, &args.store_options).await;
    }
    print(&args.json, &copied, fork, "shares nothing any more and has")
}

/// The fork's store is gone: its parent need not keep anything for it.
async fn forget(args: &ForkArgs, from: &str, id: &str) -> Result<()> {
    let env = place::open(from, &args.store_options).await?;
    let log = place::log_of(&env).await?;
    let head = log.recover().await?.manifest;
    let pin = head.pins().find(|pin| pin.id == id && pin.store.is_some()).cloned();
    let unknown = || Error::not_found(format!("{from} keeps nothing for {id}: system.forks lists its forks"));
    let store = pin.ok_or_else(unknown)?.store.unwrap_or_default();
    // One that is there would lose its rows.
    let origin = tandem_copy::read_origin(&place::open_own(&store, &args.store_options)?.store).await?;
    if origin.is_some_and(|origin| origin.shared.is_some() && origin.pin() == id) {
        return Err(Error::invalid(format!(
            "the fork in {store} is there, and reads what {from} keeps: detach it, or delete its store first"
        )));
    }
    commit(&log, head, Step::Unpin { id: id.to_owned() }).await?;
    let text = match args.json {
        true => json!({ "store": from, "released": id }).to_string(),
        false => format!("{from} keeps nothing for {id} any more"),
    };
    say(&text)
}

/// The parent need not keep anything for the fork. It may be gone.
async fn release(parent: &str, origin: &tandem_copy::Origin, options: &[String]) {
    let released = async {
        let env = place::open(parent, options).await?;
        let log = place::log_of(&env).await?;
        let head = log.recover().await?.manifest;
        commit(&log, head, Step::Unpin { id: origin.pin() }).await
    };
    if let Err(error) = released.await {
        eprintln!("the database in {parent} still keeps what the fork needed: {error}");
    }
}

/// Commits a step of upkeep without a node.
async fn commit(log: &tandem_log::Log, head: Manifest, step: Step) -> Result<()> {
    let base = head.seq();
    let writer = Writer::start(log.clone(), head, WriterConfig::default());
    writer.submit_upkeep(base, vec![step]).await.map(|_| ())
}

fn print(as_json: &bool, copied: &Copied, to: &str, holds: &str) -> Result<()> {
    let text = match as_json {
        true => {
            let value: Value = json!({ "store": to, "copied": copied });
            value.to_string()
        }
        false => format!(
            "{to} {holds} {} tables and {} rows as of seq {}: {} of {} objects fetched, {} MiB\n\
             tandem serve --store {to} opens it",
            copied.tables,
            copied.rows,
            copied.seq,
            copied.objects_fetched,
            copied.objects,
            copied.bytes_fetched >> 20
        ),
    };
    say(&text)
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}")
        .map_err(|e| Error::unavailable(format!("cannot write to standard output: {e}")))
}
