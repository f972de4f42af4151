//! The extended protocol: statements prepared, bound, described and run by messages of their own.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow_schema::SchemaRef;
use tandem_sql::text::statements;
use tandem_types::{Error, Result};

use crate::connection::{Connection, Stop};
use crate::decode;
use crate::encode::Rows;
use crate::errors::Failure;
use crate::message::{Bind, Format, Message, Target};
use crate::statement::{Kind, Outcome, Portal, Running, Statement, counted_tag};
use crate::types::oid_of;

/// The type of the message that ends what belongs together.
const SYNC: u8 = b'S';

impl Connection {
    pub async fn extended(&mut self, message: Message) -> Result<(), Stop> {
        let done = match message {
            Message::Sync => return self.sync().await,
            _ if self.skipping => Ok(()),
            Message::Parse { name, sql, types } => self.parse(name, &sql, &types).await,
            Message::Bind(bind) => self.bind(bind),
            Message::Describe { target, name } => self.describe(target, &name),
            Message::Execute { portal, max_rows } => self.execute(&portal, max_rows).await,
            Message::Close { target, name } => {
                match target {
                    Target::Statement => self.statements.remove(&name).is_some(),
                    Target::Portal => self.portals.remove(&name).is_some(),
                };
                self.output.close_complete();
                Ok(())
            }
            Message::Flush => self.send().await,
            Message::FunctionCall => {
                Err(Error::unsupported("functions are called by SELECT here, not by a message").into())
            }
            // A client that did not know yet that its COPY had failed.
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => Ok(()),
            Message::Password(_) | Message::Query(_) | Message::Terminate => {
                Err(Failure::new("08P01", Error::invalid("a message that has no place here")).into())
            }
        };
        match done {
            Err(Stop::Failed(failure)) => {
                self.fail(&failure);
                self.skipping = true;
                self.send_much().await
            }
            done => done,
        }
    }

    async fn sync(&mut self) -> Result<(), Stop> {
        self.skipping = false;
        match self.commit_implicit().await {
            Err(Stop::Failed(failure)) => self.fail(&failure),
            done => done?,
        }
        if !self.session.is_in_transaction() {
            self.portals.clear();
        }
        self.ready().await
    }

    async fn parse(&mut self, name: String, text: &str, types: &[u32]) -> Result<(), Stop> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            let error = Error::already_exists(format!("prepared statement {name:?} exists already"));
            return Err(Failure::new("42P05", error).into());
        }
        self.check_room(self.statements.len(), "prepared statements")?;
        let all = statements(text);
        if all.len() > 1 {
            let error = Error::invalid("a prepared statement is one statement, and the text has several");
            return Err(Failure::new("42601", error).into());
        }
        let statement = self.understand(all.first().copied().unwrap_or_default(), types).await?;
        self.statements.insert(name, Arc::new(statement));
        self.output.parse_complete();
        Ok(())
    }

    fn check_room(&self, held: usize, what: &str) -> Result<()> {
        let most = self.server.config.max_statements;
        if held < most {
            return Ok(());
        }
        Err(Error::overloaded(format!("the connection holds {most} {what}: close some, or DISCARD ALL")))
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Stop> {
        let Bind { portal, statement, formats, values, results } = bind;
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            let error = Error::already_exists(format!("portal {portal:?} exists already"));
            return Err(Failure::new("42P03", error).into());
        }
        self.check_room(self.portals.len(), "portals")?;
        let statement = self.statement(&statement)?;
        let parameters = decode::parameters(&statement.types, &formats, &values)
            .map_err(|error| Failure::new("22P02", error))?;
        self.portals.insert(portal, Portal { statement, parameters, results, running: None, done: false });
        self.output.bind_complete();
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<Arc<Statement>, Stop> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let error = Error::not_found(format!("prepared statement {name:?} does not exist"));
            Failure::new("26000", error).into()
        })
    }

    fn describe(&mut self, target: Target, name: &str) -> Result<(), Stop> {
        let (statement, formats) = match target {
            Target::Statement => {
                let statement = self.statement(name)?;
                self.output.parameters(&statement.types);
                (statement, Vec::new())
            }
            Target::Portal => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (portal.statement.clone(), portal.results.clone())
            }
        };
        match statement.columns() {
            Some(columns) => self.output.row_description(&columns, &formats),
            None => self.output.no_data(),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, max_rows: usize) -> Result<(), Stop> {
        let mut portal = self.portals.remove(name).ok_or_else(|| no_portal(name))?;
        if portal.done {
            return Err(Error::invalid(format!("portal {name:?} has run: bind it again")).into());
        }
        let statement = portal.statement.clone();
        let mut running = match portal.running.take() {
            Some(running) => running,
            None => {
                // What is sent together stands or falls together.
                let joins = matches!(&statement.kind, Kind::Engine(prepared) if !prepared.is_query())
                    && (self.implicit || self.next_tag().await? != SYNC);
                match self.start(&statement, portal.parameters.take(), joins).await? {
                    Outcome::Rows(running) => running,
                    Outcome::Done(tag) => {
                        match statement.kind {
                            Kind::Empty => self.output.empty_query(),
                            _ => self.output.complete(&tag),
                        }
                        portal.done = true;
                        self.portals.insert(name.to_owned(), portal);
                        return self.send_much().await;
                    }
                }
            }
        };
        let described = statement.schema.as_ref().unwrap_or(&running.schema).clone();
        let all = self.send_rows(&mut running, &portal.results.clone(), &described, max_rows).await?;
        if all {
            self.output.complete(&counted_tag(&statement.tag, Some(running.sent)));
            portal.done = true;
        } else {
            self.output.suspended();
            portal.running = Some(running);
        }
        self.portals.insert(name.to_owned(), portal);
        self.send_much().await
    }

    /// Sends rows, at most `max_rows` if that is not zero; whether those were all.
    async fn send_rows(
        &mut self,
        running: &mut Running,
        formats: &[Format],
        described: &SchemaRef,
        max_rows: usize,
    ) -> Result<bool, Stop> {
        let mut left = if max_rows == 0 { usize::MAX } else { max_rows };
        loop {
            let (batch, from) = match running.pending.take() {
                Some(pending) => pending,
                None => match self.next_batch(running).await? {
                    Some(batch) => (as_described(batch, described)?, 0),
                    None => return Ok(true),
                },
            };
            let count = left.min(batch.num_rows() - from);
            let rows = Rows::new(&batch, formats)?;
            for row in from..from + count {
                rows.write(row, &mut self.output)?;
                self.send_much().await?;
            }
            running.sent += count as u64;
            left -= count;
            if from + count < batch.num_rows() {
                running.pending = Some((batch, from + count));
            }
            if left == 0 {
                return Ok(false);
            }
        }
    }
}

fn no_portal(name: &str) -> Stop {
    Failure::new("34000", Error::not_found(format!("portal {name:?} does not exist"))).into()
}

/// Rows in the types that the client was told. They differ where only the parameters' values told a type, or where the table
/// has changed since.
fn as_described(batch: RecordBatch, described: &SchemaRef) -> Result<RecordBatch> {
    let schema = batch.schema();
    let same = |(a, b): (&Arc<arrow_schema::Field>, &Arc<arrow_schema::Field>)| {
        oid_of(a.data_type()) == oid_of(b.data_type())
    };
    let fits = schema.fields().len() == described.fields().len();
    if fits && schema.fields().iter().zip(described.fields()).all(same) {
        return Ok(batch);
    }
    let changed = || {
        Error::unsupported(
            "the result's columns are not those that were described: prepare the statement again",
        )
    };
    if !fits {
        return Err(changed());
    }
    let columns = batch.columns().iter().zip(described.fields());
    let columns = columns.map(|(array, field)| match field.data_type() {
        // Described as text.
        arrow_schema::DataType::Null => cast(array, &arrow_schema::DataType::Utf8).map_err(|_| changed()),
        known => cast(array, known).map_err(|_| changed()),
    });
    let columns: Vec<_> = columns.collect::<Result<_>>()?;
    let fields = columns.iter().zip(described.fields());
    let fields =
        fields.map(|(array, field)| arrow_schema::Field::new(field.name(), array.data_type().clone(), true));
    let schema = Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns)
        .map_err(|e| Error::internal(format!("a result cannot be told: {e}")))
}
