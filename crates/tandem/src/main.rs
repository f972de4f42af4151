//! TandemDB in one binary: the shell, the loader and the tools that talk to a node.

mod import;
mod remote;
mod shell;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tandem_types::{Error, ErrorKind, Result};

use crate::target::{Place, Target};

/// A replicated time-series database.
#[derive(Parser)]
#[command(name = "tandem", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run SQL: a shell, statements or a script
    Sql(shell::SqlArgs),
    /// Load files into a table
    Import(import::ImportArgs),
    /// Rewrite a table's tail and small files into large ones
    Compact(remote::CompactArgs),
    /// Write a checkpoint, so that nodes start faster
    Checkpoint(remote::CheckpointArgs),
    /// Say how a node is doing
    Status(remote::StatusArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            exit_code(error.kind())
        }
    }
}

/// The exit codes that scripts rely on; 2, wrong usage, is clap's.
fn exit_code(kind: ErrorKind) -> ExitCode {
    ExitCode::from(match kind {
        ErrorKind::StoreRefused => 3,
        ErrorKind::Damaged | ErrorKind::NewerFormat => 4,
        _ => 1,
    })
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Sql(args) => shell::run(&args, &address(&args.target)?).await,
        Command::Import(args) => import::run(&args, &address(&args.target)?).await,
        Command::Compact(args) => remote::compact(&args, &address(&args.target)?).await,
        Command::Checkpoint(args) => remote::checkpoint(&args, &address(&args.target)?).await,
        Command::Status(args) => remote::status(&args, &address(&args.target)?).await,
    }
}

/// Where the node to talk to listens.
fn address(target: &Target) -> Result<String> {
    match target.place()? {
        Place::Server(urls) => Ok(urls),
        Place::Store(store) => Err(Error::unsupported(format!(
            "opening the store {store:?} directly is not supported yet: start a node on it and use --connect"
        ))),
    }
}
