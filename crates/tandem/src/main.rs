//! TandemDB in one binary: the server, the shell, the loader and the tools that talk to a node.

mod bar;
mod copies;
mod gc;
mod import;
mod place;
mod promote;
mod remote;
mod repair;
mod restore;
mod serve;
mod shell;
mod target;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

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
    /// Start a node
    Serve(Box<serve::ServeArgs>),
    /// Run SQL: a shell, statements or a script
    Sql(shell::SqlArgs),
    /// Load files into a table
    Import(import::ImportArgs),
    /// Rewrite a table's tail and small files into large ones
    Compact(remote::CompactArgs),
    /// Write a checkpoint, so that nodes start faster
    Checkpoint(remote::CheckpointArgs),
    // Its own words are longer than a line.
    Gc(gc::GcArgs),
    // Likewise.
    Promote(promote::PromoteArgs),
    // Likewise.
    Restore(restore::RestoreArgs),
    /// Make a database that begins as another one was, sharing its objects
    ///
    /// It takes as long as the metadata do, whatever the size, and is writable at once. The parent's log keeps what the
    /// fork needs until the fork is detached.
    Fork(copies::ForkArgs),
    /// Copy a database as of a moment into another store
    ///
    /// The copy is a database of its own. Interrupted, the same command goes on where it ended; run again later, it fetches what
    /// is new. Every object is verified as it is read.
    Copy(copies::CopyArgs),
    /// As copy, and look at the copy afterwards
    Backup(copies::CopyArgs),
    // Its own words are longer than a line.
    Verify(verify::VerifyArgs),
    // Likewise.
    Repair(repair::RepairArgs),
    /// Say how a node is doing
    Status(remote::StatusArgs),
}

/// When a command is done, what its threads still compute, read or write counts for nothing: it gets this long to end.
const LEFT_WITHIN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    tandem_heap::share_arenas();
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime
        .map_err(|e| Error::internal(format!("the threads of the program cannot be started: {e}")))
        .and_then(|runtime| {
            let done = runtime.block_on(run(command));
            runtime.shutdown_timeout(LEFT_WITHIN);
            done
        });
    match done {
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
        Command::Serve(args) => serve::run(*args).await,
        Command::Sql(args) => {
            let server = Server::reach(&args.target).await?;
            let done = shell::run(&args, &server.urls).await;
            server.end(done).await
        }
        Command::Import(args) => {
            let server = Server::reach(&args.target).await?;
            let done = import::run(&args, &server.urls).await;
            server.end(done).await
        }
        Command::Compact(args) => {
            let server = Server::reach(&args.target).await?;
            let done = remote::compact(&args, &server.urls).await;
            server.end(done).await
        }
        Command::Checkpoint(args) => {
            let server = Server::reach(&args.target).await?;
            let done = remote::checkpoint(&args, &server.urls).await;
            server.end(done).await
        }
        Command::Gc(args) => {
            let server = Server::reach(&args.target).await?;
            let done = gc::run(&args, &server.urls).await;
            server.end(done).await
        }
        Command::Promote(args) => {
            let server = Server::reach(&args.target).await?;
            let done = promote::run(&args, &server.urls).await;
            server.end(done).await
        }
        Command::Restore(args) => {
            let server = Server::reach(&args.target).await?;
            let done = restore::run(&args, &server.urls).await;
            server.end(done).await
        }
        Command::Fork(args) => copies::fork(&args).await,
        Command::Copy(args) => copies::copy(&args, false).await,
        Command::Backup(args) => copies::copy(&args, true).await,
        Command::Verify(args) => verify::run(&args).await,
        Command::Repair(args) => repair::run(&args).await,
        Command::Status(args) => {
            let server = Server::reach(&args.target).await?;
            let done = remote::status(&args, &server.urls).await;
            server.end(done).await
        }
    }
}

/// The server to talk to: one that runs, or one that this process starts on a store for as long as the command takes.
struct Server {
    urls: String,
    private: Option<serve::Private>,
}

impl Server {
    async fn reach(target: &Target) -> Result<Self> {
        match target.place()? {
            Place::Server(urls) => Ok(Self { urls, private: None }),
            Place::Store(store) => {
                let private = serve::Private::start(&store, &target.store_options).await?;
                Ok(Self { urls: private.url.clone(), private: Some(private) })
            }
        }
    }

    async fn end<T>(self, done: Result<T>) -> Result<T> {
        if let Some(private) = self.private {
            private.stop().await;
        }
        done
    }
}
