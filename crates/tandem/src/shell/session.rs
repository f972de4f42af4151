//! A run of statements: settings, what is done with each statement, and what is said about it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use tandem_client::Written;
use tandem_env::{Clock, SystemClock};
use tandem_types::{Error, ErrorKind, Result};

use super::backend::SqlBackend;
use super::copy::{self, Copy};
use super::export::export;
use super::format::{Format, Printed, Printer};
use super::meta::{self, Described, Meta};
use super::output::Output;
use super::split::{Piece, next_piece};

/// What a user may change while the shell runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub format: Format,
    pub timing: bool,
    /// Say nothing but results and errors.
    pub quiet: bool,
    /// The most rows to show of a result in table format.
    pub rows_max: Option<usize>,
}

/// Whether the shell goes on after a piece of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    On,
    Quit,
}

/// Scripts may include scripts, but not for ever.
const INCLUDE_DEPTH_MAX: usize = 16;

/// A connection with its settings and the place where rows go.
pub struct Session<B> {
    backend: B,
    pub settings: Settings,
    out: Output,
    /// Set when a statement may have changed what names there are.
    pub names_changed: bool,
}

impl<B: SqlBackend> Session<B> {
    pub fn new(backend: B, settings: Settings, out: Output) -> Self {
        Self { backend, settings, out, names_changed: true }
    }

    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Runs all statements and meta commands of a text; the last statement needs no semicolon.
    /// The first error ends it.
    pub async fn run_text(&mut self, text: &str) -> Result<Flow> {
        self.run_included(text, 0).await
    }

    fn run_included<'a>(
        &'a mut self,
        text: &'a str,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Result<Flow>> + Send + 'a>> {
        Box::pin(async move {
            let mut left = text;
            loop {
                let (piece, after) = next_piece(left);
                left = after;
                match piece {
                    Piece::Rest("") => return Ok(Flow::On),
                    Piece::Statement(sql) | Piece::Rest(sql) => self.statement(sql).await?,
                    Piece::Meta(line) => {
                        if self.meta(line, depth).await? == Flow::Quit {
                            return Ok(Flow::Quit);
                        }
                    }
                }
                if self.out.is_closed() {
                    return Ok(Flow::Quit);
                }
            }
        })
    }

    /// Runs one statement; Ctrl-C cancels it.
    async fn statement(&mut self, sql: &str) -> Result<()> {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err(Error::new(ErrorKind::Cancelled, "cancelled")),
            outcome = self.uncancelled(sql) => outcome,
        }
    }

    async fn uncancelled(&mut self, sql: &str) -> Result<()> {
        let clock = SystemClock;
        let begun = clock.monotonic();
        let said = match copy::parse(sql)? {
            Some(copy) => self.copy(&copy).await?,
            None => self.answer(sql, self.settings.rows_max).await?,
        };
        self.say(said.as_deref(), clock.monotonic().saturating_sub(begun));
        Ok(())
    }

    async fn copy(&mut self, copy: &Copy) -> Result<Option<String>> {
        let result = self.backend.execute(&copy.query).await?;
        let rows = export(copy, result).await?;
        Ok(Some(format!("{} written to {}", counted(rows), copy.path)))
    }

    async fn answer(&mut self, sql: &str, rows_max: Option<usize>) -> Result<Option<String>> {
        let mut result = self.backend.execute(sql).await?;
        if let Some(written) = result.written().cloned() {
            self.names_changed |= written.rows.is_none();
            return self.tell_written(&written, verb(sql));
        }
        if result.schema().fields().is_empty() {
            return Ok(Some("done".to_owned()));
        }
        let mut printer = Printer::new(&mut self.out, result.schema(), self.settings.format, rows_max);
        while let Some(batch) = result.next_batch().await {
            printer.write(&batch?)?;
            if printer.is_closed() {
                return Ok(None);
            }
            // Rows that are always there already would never let Ctrl-C be looked at.
            tokio::task::yield_now().await;
        }
        let Printed { rows, hidden } = printer.finish()?;
        Ok(Some(match hidden {
            0 => counted(rows as u64),
            _ => format!("{}, the last {hidden} not shown (\\maxrows 0 shows all)", counted(rows as u64)),
        }))
    }

    fn tell_written(&mut self, written: &Written, verb: &str) -> Result<Option<String>> {
        // A duplicate of what this shell itself sent before a connection was lost is what its user asked for.
        let duplicate = written.duplicate && !written.repeated;
        let acked = written.acked.as_deref().filter(|level| *level != "store");
        if self.settings.format.is_json() {
            let mut object = serde_json::json!({ "seq": written.seq, "rows": written.rows });
            if written.estimated {
                object["exact"] = false.into();
            }
            if duplicate {
                object["duplicate"] = true.into();
            }
            if let Some(level) = acked {
                object["acked"] = level.into();
            }
            self.out.line(&object.to_string())?;
            self.out.finish()?;
            return Ok(None);
        }
        let mut said = match self.backend.is_in_transaction() {
            true => "in the transaction".to_owned(),
            false => format!("seq {}", written.seq),
        };
        if let Some(level) = acked {
            said.push_str(&format!(", {level}"));
        }
        if duplicate {
            said.push_str(", committed before under this token");
        }
        Ok(Some(match written.rows.and_then(|n| u64::try_from(n).ok()) {
            Some(rows) => {
                let about = if written.estimated { "about " } else { "" };
                format!("{about}{} {verb} ({said})", counted(rows))
            }
            None => format!("done ({said})"),
        }))
    }

    /// Remarks go to standard error: standard output carries rows alone.
    fn say(&self, said: Option<&str>, took: Duration) {
        let said = said.filter(|_| !self.settings.quiet);
        let time = self.settings.timing.then(|| format!("{:.3} s", took.as_secs_f64()));
        let parts: Vec<&str> = said.into_iter().chain(time.as_deref()).collect();
        if !parts.is_empty() {
            eprintln!("{}", parts.join(", "));
        }
    }

    async fn meta(&mut self, line: &str, depth: usize) -> Result<Flow> {
        match meta::parse(line)? {
            Meta::Help => self.out.line(meta::HELP).and_then(|()| self.out.finish())?,
            Meta::Quit => return Ok(Flow::Quit),
            Meta::Connection => self.remark(&format!("connected to {}", self.backend.describe())),
            Meta::Relations => self.show(meta::RELATIONS).await?,
            Meta::Tables => self.show(meta::TABLES).await?,
            Meta::Schemas => self.show(meta::SCHEMAS).await?,
            Meta::Describe(table) => self.describe(&table).await?,
            Meta::Timing(on) => {
                self.settings.timing = on.unwrap_or(!self.settings.timing);
                self.remark(if self.settings.timing { "timing is on" } else { "timing is off" });
            }
            Meta::Format(Some(format)) => self.settings.format = format,
            Meta::Format(None) => {
                self.remark(&format!("format is {:?}", self.settings.format).to_lowercase())
            }
            Meta::RowsMax(rows) => self.settings.rows_max = Some(rows).filter(|n| *n > 0),
            Meta::Output(path) => {
                self.out.finish()?;
                self.out = path.as_deref().map_or_else(|| Ok(Output::stdout()), Output::file)?;
            }
            Meta::Include(path) => {
                if depth >= INCLUDE_DEPTH_MAX {
                    return Err(Error::invalid(format!("{path:?} is included too deep, perhaps by itself")));
                }
                return self.run_included(&read_script(&path)?, depth + 1).await;
            }
        }
        Ok(Flow::On)
    }

    /// Says that a transaction was left open, which is lost when the shell ends.
    pub fn tell_open(&self) {
        if self.backend.is_in_transaction() {
            self.remark("the open transaction is rolled back: COMMIT would have kept it");
        }
    }

    fn remark(&self, text: &str) {
        if !self.settings.quiet {
            eprintln!("{text}");
        }
    }

    async fn show(&mut self, sql: &str) -> Result<()> {
        self.answer(sql, None).await.map(drop)
    }

    async fn describe(&mut self, table: &str) -> Result<()> {
        let Described { table, columns, storage } = meta::describe(table)?;
        let (schema, batches) = match all_rows(&self.backend, &table).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Perhaps it is in a schema that has to be named in statements.
                let (schema, batches) = all_rows(&self.backend, &columns).await?;
                if batches.iter().all(|b| b.num_rows() == 0) {
                    return Err(error);
                }
                (schema, batches)
            }
            found => found?,
        };
        let mut printer = Printer::new(&mut self.out, schema, self.settings.format, None);
        for batch in &batches {
            printer.write(batch)?;
        }
        printer.finish()?;
        // How it is stored is for people; a view or a system table has nothing to say here.
        if self.settings.format != Format::Table {
            return Ok(());
        }
        let Ok(stored) = self.backend.execute(&storage).await else { return Ok(()) };
        let schema = stored.schema();
        let batches = stored.collect().await?;
        if batches.iter().any(|b| b.num_rows() > 0) {
            let mut printer = Printer::new(&mut self.out, schema, self.settings.format, None);
            for batch in &batches {
                printer.write(batch)?;
            }
            printer.finish()?;
        }
        Ok(())
    }
}

/// A whole answer.
async fn all_rows(backend: &impl SqlBackend, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let found = backend.execute(sql).await?;
    Ok((found.schema(), found.collect().await?))
}

/// Reads a script; `-` is standard input.
pub fn read_script(path: &str) -> Result<String> {
    let text =
        if path == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    text.map_err(|e| Error::invalid(format!("cannot read {path:?}: {e}")))
}

/// What a statement does to the rows that are counted.
fn verb(sql: &str) -> &'static str {
    let first = sql.split_whitespace().next().unwrap_or_default();
    match first {
        _ if first.eq_ignore_ascii_case("update") => "updated",
        _ if first.eq_ignore_ascii_case("delete") => "deleted",
        _ => "written",
    }
}

fn counted(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}
