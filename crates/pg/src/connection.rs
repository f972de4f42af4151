//! One client's connection, and its session.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_schema::{DataType, Field, Schema};
use bytes::BytesMut;
use futures::StreamExt;
use tandem_access::{Grant, Right, Wire};
use tandem_sql::{Session, UpdateResult};
use tandem_types::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;

use crate::cancel::CancelKey;
use crate::catalog::{Facts, Question, View};
use crate::decode;
use crate::errors::{Failure, write_error, write_warning};
use crate::local::{self, Control, Local};
use crate::message::{self, Message, Output};
use crate::server::Server;
use crate::settings::Settings;
use crate::statement::{Kind, Outcome, Portal, Running, Statement, counted_tag, tag_of};
use crate::types::{oid, oid_of};

/// What is written is sent once it is this large.
const SEND_BYTES: usize = 64 << 10;
/// Room for one read.
const READ_BYTES: usize = 16 << 10;
/// What a client sends while its statement runs is read up to here.
const AHEAD_BYTES: usize = 64 << 10;

/// Why a statement did not come to its end.
pub(crate) enum Stop {
    Failed(Failure),
    /// The client is gone, or has to go.
    Gone,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// What holds again once a transaction is over that had parameters of its own.
struct Outside {
    settings: Settings,
    schema: Option<String>,
}

/// What a connection was begun with, and comes back to.
#[derive(Default)]
struct Initial {
    settings: Settings,
    /// Of the engine's session.
    options: Vec<(String, String)>,
}

pub(crate) struct Connection {
    pub server: Arc<Server>,
    pub session: Arc<Session>,
    pub grant: Grant,
    pub settings: Settings,
    pub output: Output,
    pub statements: HashMap<String, Arc<Statement>>,
    pub portals: HashMap<String, Portal>,
    /// The transaction that is open was opened by the protocol.
    pub implicit: bool,
    /// The open transaction has failed: nothing but its end is taken.
    pub failed: bool,
    /// After an error, up to the next `Sync`.
    pub skipping: bool,
    initial: Initial,
    outside: Option<Outside>,
    input: BytesMut,
    reader: ReadHalf<Wire>,
    writer: WriteHalf<Wire>,
    key: CancelKey,
    stopping: watch::Receiver<bool>,
}

impl Connection {
    /// `ahead` is what was read already.
    pub fn new(server: Arc<Server>, wire: Wire, grant: Grant, ahead: BytesMut) -> Self {
        let (reader, writer) = tokio::io::split(wire);
        Self {
            session: server.engine.session(&format!("{:032x}", server.chance.next_u128())),
            key: server.cancels.register(),
            stopping: server.stopping.subscribe(),
            server,
            grant,
            settings: Settings::default(),
            output: Output::default(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            implicit: false,
            failed: false,
            skipping: false,
            initial: Initial::default(),
            outside: None,
            input: ahead,
            reader,
            writer,
        }
    }

    /// From the greeting to the end.
    pub async fn run(mut self, parameters: Vec<(String, String)>) {
        // A client that is gone has nothing more to be told.
        let _ = self.serve(parameters).await;
        self.portals.clear();
        self.session.close("its connection was closed");
        let _ = self.writer.shutdown().await;
    }

    async fn serve(&mut self, parameters: Vec<(String, String)>) -> Result<(), Stop> {
        if let Err(stop) = self.greet(&parameters) {
            return self.fatal(stop).await;
        }
        self.ready().await?;
        loop {
            let message = match self.receive().await {
                Ok(message) => message,
                Err(stop) => return self.fatal(stop).await,
            };
            // What a statement takes while it runs is large.
            match message {
                Message::Terminate => return Ok(()),
                Message::Query(text) => Box::pin(self.simple(&text)).await?,
                other => Box::pin(self.extended(other)).await?,
            }
        }
    }

    fn greet(&mut self, parameters: &[(String, String)]) -> Result<(), Stop> {
        self.output.authentication_ok();
        for (name, value) in parameters {
            match name.as_str() {
                // Results do not depend on them: moments are told with their offset, and text is UTF-8.
                "user" | "database" | "replication" | "TimeZone" | "timezone" => {}
                "options" => self.startup_options(value)?,
                name if Settings::knows(name) => self.settings.set(name, Some(value))?,
                "search_path" => self.run_local_now(&format!("SET search_path TO {value}"))?,
                name => self.session.set_option(name, Some(value))?,
            }
        }
        for (name, value) in self.settings.told() {
            self.output.parameter(name, &value);
        }
        self.initial = Initial { settings: self.settings.clone(), options: self.session.options() };
        self.output.key(self.key.process, self.key.secret);
        Ok(())
    }

    /// `-c name=value` and `--name=value`, as in the environment variable `PGOPTIONS`.
    fn startup_options(&mut self, options: &str) -> Result<(), Stop> {
        let mut words = options.split_whitespace();
        while let Some(word) = words.next() {
            let pair = match word {
                "-c" => words.next(),
                other => other.strip_prefix("--").or_else(|| other.strip_prefix("-c")),
            };
            let pair = pair.and_then(|pair| pair.split_once('='));
            let (name, value) = pair.ok_or_else(|| {
                Error::invalid(format!("options {options:?} are not of the form -c name=value"))
            })?;
            if Settings::knows(name) {
                self.settings.set(name, Some(value))?;
            } else if name == "search_path" {
                self.run_local_now(&format!("SET search_path TO {value}"))?;
            } else {
                self.session.set_option(name, Some(value))?;
            }
        }
        Ok(())
    }

    fn run_local_now(&mut self, sql: &str) -> Result<(), Stop> {
        if let Some(Local::SearchPath(schema)) = local::understand(sql)? {
            self.session.set_option("schema", schema.as_deref())?;
        }
        Ok(())
    }

    // The wire.

    /// The next whole message; all that was written is sent before it is waited for only if the protocol says so.
    pub async fn receive(&mut self) -> Result<Message, Stop> {
        loop {
            let taken = message::take(&mut self.input, self.server.config.max_message_bytes);
            match taken.map_err(|error| Failure::new("08P01", error))? {
                Some(message) => return Ok(message),
                None => self.read().await?,
            }
        }
    }

    /// The type of the message after this one, once it has begun to come.
    pub async fn next_tag(&mut self) -> Result<u8, Stop> {
        loop {
            if let Some(tag) = self.input.first() {
                return Ok(*tag);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), Stop> {
        let Self { reader, input, stopping, .. } = self;
        input.reserve(READ_BYTES);
        tokio::select! {
            read = reader.read_buf(input) => match read? {
                0 => Err(Stop::Gone),
                _ => Ok(()),
            },
            // An error means that the server is gone.
            _ = stopping.wait_for(|stop| *stop) => {
                let error = Error::unavailable("the node is shutting down");
                Err(Failure::new("57P01", error).into())
            }
        }
    }

    pub async fn send(&mut self) -> Result<(), Stop> {
        if self.output.len() > 0 {
            self.writer.write_all(&self.output.take()).await?;
        }
        self.writer.flush().await?;
        Ok(())
    }

    /// The end of a connection that cannot go on.
    async fn fatal(&mut self, stop: Stop) -> Result<(), Stop> {
        if let Stop::Failed(failure) = stop {
            write_error(&mut self.output, &failure, true);
            self.send().await?;
        }
        Err(Stop::Gone)
    }

    pub async fn ready(&mut self) -> Result<(), Stop> {
        if !self.session.is_in_transaction() {
            self.leave_transaction();
        }
        let status = match () {
            () if self.failed => b'E',
            () if self.session.is_in_transaction() && !self.implicit => b'T',
            () => b'I',
        };
        self.output.ready(status);
        self.send().await
    }

    /// Tells the client of an error, and what PostgreSQL makes of it: the open transaction is lost.
    pub fn fail(&mut self, failure: &Failure) {
        write_error(&mut self.output, failure, false);
        if self.implicit {
            self.implicit = false;
            // Whatever is wrong with it, it ends.
            let _ = self.session.roll_back();
        } else if self.session.is_in_transaction() {
            self.failed = true;
        }
        self.portals.clear();
    }

    // Statements.

    /// Understands a statement; `told` are types of parameters that the client knows, zero where it does not.
    pub async fn understand(&mut self, sql: &str, told: &[u32]) -> Result<Statement, Stop> {
        self.key.asked.mark_unchanged();
        let mut tag = tag_of(sql);
        if tag.is_empty() {
            return Ok(Statement { kind: Kind::Empty, tag, types: Vec::new(), schema: None, bytes: 0 });
        }
        let bytes = sql.len();
        let local = match local::understand(sql) {
            Ok(local @ Some(Local::Transaction(_))) => local,
            local => {
                self.check_taken(false)?;
                local?
            }
        };
        if let Some(local) = local {
            if let Local::Copy(_) = local {
                "COPY".clone_into(&mut tag);
            }
            let schema = local_schema(&local);
            let statement = Statement { kind: Kind::Local(local), tag, types: Vec::new(), schema, bytes };
            self.check_taken(statement.ends_transaction())?;
            return Ok(statement);
        }
        if let Some(question) = Question::of(sql)? {
            let (server, view) = (self.server.clone(), self.view().await?);
            let work = server.catalog.plan(question.clone(), view, told.to_vec());
            let planned = self.attended(None, work).await?;
            let schema = Some(planned.schema);
            return Ok(Statement { kind: Kind::Catalog(question), tag, types: planned.types, schema, bytes });
        }
        let session = self.session.clone();
        let prepared = self.attended(None, async move { session.prepare(sql).await }).await?;
        let needed = prepared.parameters();
        let types = needed.fields().iter().enumerate();
        let types = types.map(|(at, field)| match told.get(at) {
            Some(known) if *known != 0 && *known != oid::UNKNOWN => *known,
            _ => oid_of(field.data_type()),
        });
        let types: Vec<u32> = types.collect();
        let mut schema = prepared.is_query().then(|| prepared.schema());
        if schema.is_some()
            && let Some(nulls) = decode::typed_nulls(&types, &needed)
        {
            let prepared = prepared.clone();
            // What cannot be planned so says why when it is run.
            let planned =
                async move { Ok(prepared.plan(Some(nulls)).await.ok().map(|planned| planned.schema())) };
            schema = self.attended(None, planned).await?.or(schema);
        }
        Ok(Statement { kind: Kind::Engine(prepared), tag, types, schema, bytes })
    }

    /// Refuses what a transaction that has failed does not take.
    pub fn check_taken(&self, ends: bool) -> Result<(), Stop> {
        if !self.failed || ends {
            return Ok(());
        }
        let error = Error::invalid("the transaction has failed: nothing but ROLLBACK is taken until its end");
        Err(Failure::new("25P02", error).into())
    }

    /// What questions about the schema are asked of: the state that the session reads.
    async fn view(&mut self) -> Result<View> {
        let state = self.session.state_for(&self.session.read_options(None, None, None)).await?;
        let facts = Facts {
            schema: self.session.default_schema(),
            user: self.grant.name().to_owned(),
            process: self.key.process,
            settings: self.settings.all(),
        };
        Ok(View { state, facts })
    }

    /// Begins a statement. `joins`: others of the same implicit transaction follow.
    pub async fn start(
        &mut self,
        statement: &Statement,
        parameters: Option<RecordBatch>,
        joins: bool,
    ) -> Result<Outcome, Stop> {
        self.check_taken(statement.ends_transaction())?;
        let until = self.begin_waiting();
        if joins && statement.can_join() {
            self.grant.require(Right::Write, &statement.tag)?;
            self.begin_implicit().await?;
        }
        let running =
            |schema, stream| Outcome::Rows(Running { schema, stream, pending: None, sent: 0, until });
        match &statement.kind {
            Kind::Empty => Ok(Outcome::Done(String::new())),
            Kind::Local(local) => self.run_local(local).await,
            Kind::Catalog(question) => {
                let (server, view) = (self.server.clone(), self.view().await?);
                let work = server.catalog.ask(question.clone(), view, parameters);
                let batches = self.attended(until, work).await?;
                let schema = statement.schema.clone().unwrap_or_else(|| Arc::new(Schema::empty()));
                Ok(running(schema, futures::stream::iter(batches.into_iter().map(Ok)).boxed()))
            }
            Kind::Engine(prepared) if prepared.is_query() => {
                let prepared = prepared.clone();
                let work = async move { prepared.plan(parameters).await?.start(None).await };
                let rows = self.attended(until, work).await?;
                Ok(running(rows.schema.clone(), rows.stream))
            }
            Kind::Engine(prepared) => {
                if !prepared.only_for_its_session() {
                    self.grant.require(Right::Write, &statement.tag)?;
                }
                if self.implicit && !statement.can_join() {
                    self.commit_implicit().await?;
                }
                let done: UpdateResult = prepared.update(parameters).await?;
                Ok(Outcome::Done(counted_tag(&statement.tag, done.rows)))
            }
        }
    }

    /// Begins to listen for who cancels, and to look at the clock: until when what follows may take.
    pub fn begin_waiting(&mut self) -> Option<Duration> {
        self.key.asked.mark_unchanged();
        self.settings.statement_timeout().map(|limit| self.server.clock.monotonic() + limit)
    }

    /// Waits for work that reads, for as long as the client is there, has not cancelled it, and the time is not over.
    pub async fn attended<T>(
        &mut self,
        until: Option<Duration>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T, Stop> {
        let Self { reader, input, key, server, .. } = self;
        let clock = &server.clock;
        let timeout = async {
            match until {
                Some(until) => clock.sleep(until.saturating_sub(clock.monotonic())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = key.asked.changed() => {
                Err(Error::new(ErrorKind::Cancelled, "the statement was cancelled as the client asked").into())
            }
            () = timeout => Err(Error::new(
                ErrorKind::DeadlineExceeded,
                "the statement took longer than the session's statement_timeout",
            ).into()),
            () = gone(reader, input) => Err(Stop::Gone),
            done = work => Ok(done?),
        }
    }

    /// The next rows, if there are more.
    pub async fn next_batch(&mut self, running: &mut Running) -> Result<Option<RecordBatch>, Stop> {
        let until = running.until;
        let stream = &mut running.stream;
        self.attended(until, async move { stream.next().await.transpose() }).await
    }

    /// Sends what has gathered, if it is much.
    pub async fn send_much(&mut self) -> Result<(), Stop> {
        if self.output.len() < SEND_BYTES { Ok(()) } else { self.send().await }
    }

    // Transactions.

    /// Opens the transaction that statements between two `Sync`s are part of.
    async fn begin_implicit(&mut self) -> Result<(), Stop> {
        if !self.session.is_in_transaction() {
            self.engine("BEGIN").await?;
            self.implicit = true;
        }
        Ok(())
    }

    pub async fn commit_implicit(&mut self) -> Result<(), Stop> {
        if std::mem::take(&mut self.implicit) && self.session.is_in_transaction() {
            self.engine("COMMIT").await?;
        }
        Ok(())
    }

    async fn engine(&mut self, sql: &str) -> Result<UpdateResult, Stop> {
        Ok(self.session.prepare(sql).await?.update(None).await?)
    }

    async fn control(&mut self, control: &Control) -> Result<String, Stop> {
        let open = self.session.is_in_transaction();
        match control {
            Control::Begin(sql) if open && !local::is_plain(sql) => {
                let error = Error::invalid(format!(
                    "{sql}: a transaction has begun already, and it is too late to say how: say it in its BEGIN"
                ));
                return Err(Failure::new("25001", error).into());
            }
            Control::Begin(_) if self.implicit => self.implicit = false,
            Control::Begin(_) if open => {
                write_warning(&mut self.output, "25001", "there is already a transaction in progress");
            }
            Control::Begin(sql) => {
                self.engine(sql).await?;
            }
            Control::Commit | Control::Rollback if !open => {
                write_warning(&mut self.output, "25P01", "there is no transaction in progress");
            }
            Control::Rollback => self.roll_back()?,
            Control::Commit if self.failed => {
                self.roll_back()?;
                return Ok("ROLLBACK".to_owned());
            }
            Control::Commit => {
                self.implicit = false;
                self.engine("COMMIT").await?;
                self.leave_transaction();
            }
            Control::RollbackTo(sql) => {
                self.engine(sql).await?;
                self.failed = false;
            }
            Control::Mark(_, sql) => {
                self.engine(sql).await?;
            }
        }
        let tag = match control {
            Control::Begin(_) => "BEGIN",
            Control::Commit => "COMMIT",
            Control::Rollback | Control::RollbackTo(_) => "ROLLBACK",
            Control::Mark(tag, _) => tag,
        };
        Ok(tag.to_owned())
    }

    fn roll_back(&mut self) -> Result<(), Stop> {
        self.implicit = false;
        let ended = self.session.has_ended_transaction();
        let done = self.session.roll_back();
        self.leave_transaction();
        // One that was lost before has left nothing behind either.
        if !std::mem::take(&mut self.failed) && !ended {
            done?;
        }
        Ok(())
    }

    /// Sets a parameter.
    fn assign(&mut self, local: &Local) -> Result<()> {
        match local {
            Local::SearchPath(schema) => self.session.set_option("schema", schema.as_deref()),
            Local::Set { name, value } => {
                self.settings.set(name, value.as_deref())?;
                if let (Some(told), Some(now)) = (Settings::told_as(name), self.settings.get(name)) {
                    self.output.parameter(told, &now);
                }
                Ok(())
            }
            _ => Err(Error::internal("a statement that sets nothing was to set something")),
        }
    }

    /// Takes all parameters back to what they were when the connection began.
    fn reset(&mut self) -> Result<()> {
        for (name, value) in &self.initial.options {
            if name != "tandem.last_seq" {
                self.session.set_option(name, Some(value))?;
            }
        }
        self.outside = None;
        self.replace_settings(self.initial.settings.clone());
        Ok(())
    }

    fn replace_settings(&mut self, settings: Settings) {
        let before = std::mem::replace(&mut self.settings, settings);
        for ((name, now), (_, before)) in self.settings.told().into_iter().zip(before.told()) {
            if now != before {
                self.output.parameter(name, &now);
            }
        }
    }

    /// Takes back the parameters that were set for a transaction alone.
    fn leave_transaction(&mut self) {
        if let Some(outside) = self.outside.take() {
            self.replace_settings(outside.settings);
            // A schema that is gone by now is looked for in vain with the next statement.
            let _ = self.session.set_option("schema", outside.schema.as_deref());
        }
    }

    async fn run_local(&mut self, local: &Local) -> Result<Outcome, Stop> {
        let done = |tag: &str| Ok(Outcome::Done(tag.to_owned()));
        match local {
            Local::Nothing(tag) => done(tag),
            Local::Set { .. } | Local::SearchPath(_) => {
                self.assign(local)?;
                match (&mut self.outside, local) {
                    (Some(outside), Local::Set { name, value }) => {
                        outside.settings.set(name, value.as_deref())?;
                    }
                    (Some(outside), Local::SearchPath(schema)) => outside.schema.clone_from(schema),
                    _ => {}
                }
                done("SET")
            }
            Local::ForTransaction(_) if !self.session.is_in_transaction() => {
                let message = "SET LOCAL holds for a transaction, and there is none";
                write_warning(&mut self.output, "25P01", message);
                done("SET")
            }
            Local::ForTransaction(inner) => {
                self.outside.get_or_insert_with(|| Outside {
                    settings: self.settings.clone(),
                    schema: Some(self.session.default_schema()),
                });
                self.assign(inner)?;
                done("SET")
            }
            Local::ResetAll => {
                self.reset()?;
                done("RESET")
            }
            Local::Discard => {
                if self.session.is_in_transaction() {
                    let error = Error::invalid("DISCARD ALL cannot run in a transaction");
                    return Err(Failure::new("25001", error).into());
                }
                self.reset()?;
                self.statements.clear();
                self.portals.clear();
                done("DISCARD ALL")
            }
            Local::Deallocate(name) => {
                match name {
                    None => self.statements.clear(),
                    Some(name) if self.statements.remove(name).is_some() => {}
                    Some(name) => {
                        let error = Error::not_found(format!("prepared statement {name:?} does not exist"));
                        return Err(Failure::new("26000", error).into());
                    }
                }
                done("DEALLOCATE")
            }
            Local::Show(name) => {
                let value = match name.as_str() {
                    "search_path" => Some(self.session.default_schema()),
                    name => self.settings.get(name),
                };
                Ok(Outcome::Rows(one_row(local, vec![vec![value]])?))
            }
            Local::ShowAll => {
                let own = self.session.options();
                let theirs = self.settings.all().into_iter().map(|(name, value)| (name.to_owned(), value));
                let rows = own.into_iter().chain(theirs).map(|(name, value)| vec![Some(name), Some(value)]);
                Ok(Outcome::Rows(one_row(local, rows.collect())?))
            }
            Local::Transaction(control) => Ok(Outcome::Done(self.control(control).await?)),
            Local::Copy(copy) => self.copy(copy).await.map(Outcome::Done),
        }
    }
}

/// Resolves once the client is gone. What it sends meanwhile is kept.
async fn gone(reader: &mut ReadHalf<Wire>, input: &mut BytesMut) {
    while input.len() < AHEAD_BYTES {
        input.reserve(READ_BYTES);
        match reader.read_buf(input).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending().await
}

/// The columns of a statement that is answered here.
fn local_schema(local: &Local) -> Option<Arc<Schema>> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    match local {
        Local::Show(name) => Some(Arc::new(Schema::new(vec![text(name)]))),
        Local::ShowAll => Some(Arc::new(Schema::new(vec![text("name"), text("setting")]))),
        _ => None,
    }
}

fn one_row(local: &Local, rows: Vec<Vec<Option<String>>>) -> Result<Running> {
    let schema = local_schema(local).ok_or_else(|| Error::internal("a statement without rows has some"))?;
    let columns = (0..schema.fields().len()).map(|at| {
        let values = rows.iter().map(|row| row.get(at).cloned().flatten());
        Arc::new(values.collect::<arrow::array::StringArray>()) as arrow::array::ArrayRef
    });
    let batch = RecordBatch::try_new(schema.clone(), columns.collect())
        .map_err(|e| Error::internal(format!("parameters cannot be shown: {e}")))?;
    let stream = futures::stream::once(async move { Ok(batch) }).boxed();
    Ok(Running { schema, stream, pending: None, sent: 0, until: None })
}
