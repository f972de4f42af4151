//! The extended protocol: statements prepared, bound, described and run by messages of their own.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow_schema::{DataType, SchemaRef};
use tandem_sql::text::statements;
use tandem_types::{Error, Result};

use crate::connection::{Connection, Stop};
use crate::decode::{self, Needs};
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
        if name.is_empty() {
            // Gone even if the new one is none.
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            let error = Error::already_exists(format!("prepared statement {name:?} exists already"));
            return Err(Failure::new("42P05", error).into());
        }
        let held = self.statements.iter().filter(|(name, _)| !name.is_empty());
        self.check_room(
            held.map(|(_, statement)| statement.bytes),
            text.len(),
            &name,
            "prepared statements",
        )?;
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

    /// Whether one more fits: what has no name takes the place of what had none.
    fn check_room(
        &self,
        held: impl Iterator<Item = usize>,
        bytes: usize,
        name: &str,
        what: &str,
    ) -> Result<()> {
        let (most, most_bytes) = (self.server.config.max_statements, self.server.config.max_statements_bytes);
        let (count, all) = held.fold((0, bytes), |(count, all), one| (count + 1, all + one));
        if name.is_empty() || count < most && all <= most_bytes {
            return Ok(());
        }
        Err(Error::overloaded(format!(
            "the connection holds {count} {what}, and with this one they would have {all} bytes, of {most} and {most_bytes} \
             at most: close some, or DISCARD ALL"
        )))
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Stop> {
        let Bind { portal, statement, formats, values, results } = bind;
        if portal.is_empty() {
            self.portals.remove("");
        } else if self.portals.contains_key(&portal) {
            let error = Error::already_exists(format!("portal {portal:?} exists already"));
            return Err(Failure::new("42P03", error).into());
        }
        let bytes = values.iter().flatten().map(bytes::Bytes::len).sum();
        let held = self.portals.iter().filter(|(name, _)| !name.is_empty());
        self.check_room(held.map(|(_, portal)| portal.bytes), bytes, &portal, "portals")?;
        let statement = self.statement(&statement)?;
        self.check_taken(statement.ends_transaction())?;
        // What yields no rows has no columns to tell formats for.
        let columns = statement.schema.as_ref().map_or(results.len(), |schema| schema.fields().len());
        if results.len() > 1 && results.len() != columns {
            let error = Error::invalid(format!(
                "{} formats were told for {columns} columns: it is one for all, or one for each",
                results.len()
            ));
            return Err(Failure::new("08P01", error).into());
        }
        let needed = match &statement.kind {
            Kind::Engine(prepared) => Some(prepared.parameters()),
            _ => None,
        };
        let needs = needed.as_ref().map(|schema| Needs { schema, for_what: statement.uses() });
        let parameters = decode::parameters(&statement.types, &formats, &values, needs)
            .map_err(|error| Failure::new("22P02", error))?;
        let bound = Portal { statement, parameters, results, running: None, done: false, bytes };
        self.portals.insert(portal, bound);
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
        let statement = portal.statement.clone();
        if portal.done && statement.schema.is_some() {
            // All its rows are gone.
            self.output.complete(&counted_tag(&statement.tag, Some(0)));
            self.portals.insert(name.to_owned(), portal);
            return Ok(());
        }
        if portal.done {
            return Err(Error::invalid(format!("portal {name:?} has run: bind it again")).into());
        }
        let mut running = match portal.running.take() {
            Some(running) => Running { until: self.begin_waiting(), ..running },
            None => {
                // What is sent together stands or falls together.
                let joins = statement.can_join() && (self.implicit || self.next_tag().await? != SYNC);
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
        let before = running.sent;
        let all = self.send_rows(&mut running, &portal.results.clone(), &described, max_rows).await?;
        if all {
            self.output.complete(&counted_tag(&statement.tag, Some(running.sent - before)));
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
    // A value that does not fit is an error, not a null.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(described.fields());
    let columns = columns.map(|(array, field)| {
        let known = match field.data_type() {
            // Described as text.
            DataType::Null => &DataType::Utf8,
            // No value is changed for what is the same to the client, such as the digits of a decimal.
            known if oid_of(known) == oid_of(array.data_type()) => return Ok(array.clone()),
            known => known,
        };
        cast_with_options(array, known, &strict).map_err(|_| changed())
    });
    let columns: Vec<_> = columns.collect::<Result<_>>()?;
    let fields = columns.iter().zip(described.fields());
    let fields =
        fields.map(|(array, field)| arrow_schema::Field::new(field.name(), array.data_type().clone(), true));
    let schema = Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns)
        .map_err(|e| Error::internal(format!("a result cannot be told: {e}")))
}
