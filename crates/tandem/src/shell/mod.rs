//! `tandem sql`: a shell over Flight, for people at a terminal and for scripts.
//!
//! Rows go to standard output, remarks and errors to standard error. The shell knows a database only
//! through [`SqlBackend`].

mod backend;
mod complete;
mod copy;
mod export;
mod format;
mod meta;
mod output;
mod repl;
mod session;
mod split;

use std::io::IsTerminal;

use tandem_client::Client;
use tandem_types::Result;

pub use backend::SqlBackend;
pub use format::Format;

use crate::restore::moment;
use crate::target::Target;
use output::Output;
use session::{Flow, Session, Settings, read_script};

/// Rows of a table that are shown at a terminal.
const TERMINAL_ROWS: usize = 40;

/// Run SQL: a shell, statements or a script
#[derive(clap::Args, Clone, Debug)]
pub struct SqlArgs {
    /// Statements to run, then leave; may be repeated
    #[arg(short, long, value_name = "SQL")]
    pub command: Vec<String>,
    /// Script to run after the commands, then leave; `-` is standard input; may be repeated
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<String>,
    /// How to print rows
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Rows of a result to show in table format, 0 for all [default: 40 at a terminal, else all]
    #[arg(long, value_name = "N")]
    pub maxrows: Option<usize>,
    /// Print how long each statement took [default at a prompt]
    #[arg(long)]
    pub timing: bool,
    /// Read everything as it was then: a time such as 2024-05-01T12:00:00Z, or the seq of a commit, as seq:1234
    #[arg(long, value_name = "TIME|SEQ")]
    pub as_of: Option<String>,
    /// Print nothing but rows and errors
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub target: Target,
}

/// Runs `tandem sql` against the server of `urls`, whatever [`SqlArgs::target`] says.
pub async fn run(args: &SqlArgs, urls: &str) -> Result<()> {
    let at_prompt = args.command.is_empty() && args.file.is_empty() && std::io::stdin().is_terminal();
    let quiet = args.quiet;
    let options = args.target.connect_with_remarks(move |text| {
        if !quiet {
            eprintln!("{text}");
        }
    })?;
    let client = Client::connect_with(urls, options).await?;
    if let Some(as_of) = &args.as_of {
        // The client says it again wherever it goes.
        client.query(&format!("SET tandem.as_of = {}", moment(as_of))).await?.collect().await?;
    }
    let mut session = Session::new(client, settings(args, at_prompt), Output::stdout());
    if at_prompt {
        return repl::run(session).await;
    }
    let done = run_scripts(args, &mut session).await;
    session.tell_open();
    done
}

fn settings(args: &SqlArgs, at_prompt: bool) -> Settings {
    let rows_max = match args.maxrows {
        Some(rows) => Some(rows),
        None if std::io::stdout().is_terminal() => Some(TERMINAL_ROWS),
        None => None,
    };
    Settings {
        format: if args.json { Format::Json } else { args.format },
        timing: args.timing || (at_prompt && !args.quiet),
        quiet: args.quiet,
        rows_max: rows_max.filter(|n| *n > 0),
    }
}

async fn run_scripts<B: SqlBackend>(args: &SqlArgs, session: &mut Session<B>) -> Result<()> {
    for command in &args.command {
        if session.run_text(command).await? == Flow::Quit {
            return Ok(());
        }
    }
    let mut files = args.file.clone();
    if files.is_empty() && args.command.is_empty() {
        files.push("-".to_owned());
    }
    for file in &files {
        let text = read_script(file)?;
        if session.run_text(&text).await.map_err(|e| e.context(file))? == Flow::Quit {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
