//! The prompt: lines in, statements run, history kept.

use std::path::PathBuf;

use rustyline::Editor;
use rustyline::config::{CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use tandem_types::{Error, Result};

use super::backend::SqlBackend;
use super::complete::SqlHelper;
use super::session::{Flow, Session};

const PROMPT: &str = "tandem> ";
/// While a transaction is open.
const PROMPT_OPEN: &str = "tandem*> ";
const HISTORY_FILE: &str = ".tandem_history";
const HISTORY_LINES: usize = 10_000;

type Lines = Editor<SqlHelper, DefaultHistory>;

/// Reads and runs until the user leaves. An error is told, and the prompt comes back.
pub async fn run<B: SqlBackend>(mut session: Session<B>) -> Result<()> {
    let mut lines = editor().map_err(|e| terminal_error(&e))?;
    let history = history_path();
    if let Some(path) = &history {
        // Absent at the first start.
        lines.load_history(path).ok();
    }
    if !session.settings.quiet {
        println!("connected to {}, \\? for help, \\q to leave", session.backend().describe());
    }
    loop {
        refresh_names(&mut session, &mut lines).await;
        let prompt = if session.backend().is_in_transaction() { PROMPT_OPEN } else { PROMPT };
        // The terminal blocks; other tasks of this runtime (the connection's) go on elsewhere.
        let line = match tokio::task::block_in_place(|| lines.readline(prompt)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => {
                session.tell_open();
                return Ok(());
            }
            Err(e) => return Err(terminal_error(&e)),
        };
        if line.trim().is_empty() {
            continue;
        }
        remember(&mut lines, history.as_ref(), &line);
        match session.run_text(&line).await {
            Ok(Flow::On) => {}
            Ok(Flow::Quit) => {
                session.tell_open();
                return Ok(());
            }
            Err(error) => eprintln!("error: {error}"),
        }
    }
}

fn editor() -> rustyline::Result<Lines> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .history_ignore_space(true)
        .max_history_size(HISTORY_LINES)?
        .build();
    let mut lines = Editor::with_config(config)?;
    lines.set_helper(Some(SqlHelper::default()));
    Ok(lines)
}

async fn refresh_names<B: SqlBackend>(session: &mut Session<B>, lines: &mut Lines) {
    if !std::mem::take(&mut session.names_changed) {
        return;
    }
    // Completion is a convenience: a server that cannot list names is no reason to stop.
    if let (Ok(names), Some(helper)) = (session.backend().names().await, lines.helper_mut()) {
        helper.set_names(names);
    }
}

fn remember(lines: &mut Lines, history: Option<&PathBuf>, line: &str) {
    let added = lines.add_history_entry(line).unwrap_or(false);
    if let (true, Some(path)) = (added, history) {
        // Saved line by line, so that a crash loses none; a home that cannot be written loses history only.
        lines.append_history(path).ok();
    }
}

fn history_path() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|h| !h.is_empty()).map(|home| PathBuf::from(home).join(HISTORY_FILE))
}

fn terminal_error(e: &ReadlineError) -> Error {
    Error::unavailable(format!("the terminal failed: {e}"))
}
