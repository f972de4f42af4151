//! Statements: from SQL to a `FlightInfo`, from a ticket to rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use arrow_schema::{Schema, SchemaRef};
use futures::stream::{BoxStream, StreamExt};
use tandem_manifest::Table;
use tandem_sql::{Ack, PlannedQuery, Prepared, Session, UpdateResult, wire};
use tandem_types::{Error, ErrorKind, Result, Seq, TableName};

use crate::encode::encode;
use crate::json_ticket;
use crate::state::{Caller, Held, Reply, State, endpoint, handle_text, schema_message};

/// Messages of a result.
pub(crate) type DataStream = BoxStream<'static, Result<FlightData>>;

impl State {
    /// Plans a query, or runs a statement that changes something: exactly once, here and never in DoGet, because
    /// clients do not wait for a DoGet whose rows they do not need.
    pub async fn statement_info(
        &self,
        caller: &Caller,
        prepared: &Prepared,
        params: Option<RecordBatch>,
        descriptor: FlightDescriptor,
    ) -> Result<Reply<FlightInfo>> {
        if prepared.is_query() {
            let planned = prepared.plan_with(params, &caller.reading()).await?;
            return self.query_info(planned, descriptor);
        }
        let done = run_update(caller, prepared, params).await?;
        self.update_info(done, descriptor)
    }

    fn query_info(&self, planned: PlannedQuery, descriptor: FlightDescriptor) -> Result<Reply<FlightInfo>> {
        let seq = planned.snapshot_seq();
        let info = FlightInfo {
            schema: schema_message(&planned.schema())?,
            flight_descriptor: Some(descriptor),
            endpoint: vec![self.endpoint(Held::Query(planned))],
            total_records: -1,
            total_bytes: -1,
            ordered: true,
            app_metadata: format!("{{\"snapshot_seq\":{seq}}}").into(),
        };
        Ok(Reply::from(info).with("tandem-snapshot-seq", seq))
    }

    fn update_info(&self, done: UpdateResult, descriptor: FlightDescriptor) -> Result<Reply<FlightInfo>> {
        let seq = done.seq;
        let duplicate = if done.duplicate { ",\"duplicate\":true" } else { "" };
        let app_metadata = match done.rows {
            Some(rows) => {
                let exact = done.exact;
                format!("{{\"seq\":{seq},\"rows\":{rows},\"exact\":{exact}{duplicate}}}")
            }
            None => format!("{{\"seq\":{seq}{duplicate}}}"),
        };
        let info = FlightInfo {
            schema: schema_message(&empty_schema())?,
            flight_descriptor: Some(descriptor),
            endpoint: vec![self.endpoint(Held::Update(seq))],
            total_records: record_count(done.rows),
            total_bytes: -1,
            ordered: true,
            app_metadata: app_metadata.into(),
        };
        Ok(written(info, &done))
    }

    /// The rows behind the handle of a `TicketStatementQuery`.
    pub async fn read_handle(&self, caller: &Caller, handle: &[u8]) -> Result<Reply<DataStream>> {
        let handle = handle_text("the ticket", handle)?;
        match self.held(&handle)? {
            Held::Query(planned) => {
                let (seen, wanted) = (planned.snapshot_seq(), caller.options.min_seq);
                if let Some(wanted) = wanted.filter(|wanted| *wanted > seen) {
                    let message = format!(
                        "the ticket reads the state at seq {seen}, and seq {wanted} is asked for: run the query again"
                    );
                    return Err(Error::behind(message).with_seq(seen));
                }
                self.read(caller, &planned, Some(handle)).await
            }
            Held::Update(seq) => {
                let nothing = encode(&empty_schema(), futures::stream::empty().boxed(), None)?;
                Ok(Reply::from(nothing).with("tandem-seq", seq))
            }
        }
    }

    /// The rows of a JSON ticket.
    pub async fn read_json(&self, caller: &Caller, ticket: &[u8]) -> Result<Reply<DataStream>> {
        let request = json_ticket::parse(ticket)?;
        let mut reading = caller.reading();
        reading.min_seq = reading.min_seq.max(request.min_seq);
        reading.as_of = request.as_of.or(reading.as_of);
        let prepared = caller.session.prepare_with(&request.sql, &reading).await?;
        if !prepared.is_query() {
            return Err(Error::invalid(
                "a ticket can only read; statements that change something go through GetFlightInfo or DoPut",
            ));
        }
        let planned = prepared.plan_with(request.params, &reading).await?;
        self.read(caller, &planned, None).await
    }

    /// Runs a query; dropping the stream ends it.
    async fn read(
        &self,
        caller: &Caller,
        planned: &PlannedQuery,
        query_id: Option<String>,
    ) -> Result<Reply<DataStream>> {
        let running = match planned.start(query_id).await {
            // The ticket is being read already, perhaps by a client that has gone away unnoticed.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => planned.start(None).await?,
            running => running?,
        };
        let stream = encode(&running.schema, running.stream, caller.options.compression)?;
        Ok(Reply::from(stream).with("tandem-snapshot-seq", planned.snapshot_seq()))
    }

    /// `FlightInfo` of a table by its path: the query that reads all of it, and how large it is.
    pub async fn path_info(
        &self,
        caller: &Caller,
        descriptor: FlightDescriptor,
    ) -> Result<Reply<FlightInfo>> {
        let name = caller.table_name(&descriptor.path)?;
        let planned = caller.prepare_table(&name).await?.plan_with(None, &caller.reading()).await?;
        let reply = self.query_info(planned, descriptor)?;
        let manifest = caller.session.state_for(&caller.reading()).await?;
        Ok(match manifest.table_named(&name) {
            Some(table) => reply.map(|info| sized(info, table)),
            None => reply,
        })
    }

    /// All tables, with tickets that name them and so never expire.
    pub async fn table_infos(&self, caller: &Caller) -> Result<Vec<FlightInfo>> {
        let reading = caller.reading();
        let manifest = caller.session.state_for(&reading).await?;
        let as_of = reading.as_of.map(|_| manifest.seq());
        manifest.named_tables().map(|table| table_info(table, as_of)).collect()
    }
}

fn table_info(table: &Table, as_of: Option<Seq>) -> Result<FlightInfo> {
    let name = table.name();
    let schema = SchemaRef::new(wire::wire_schema(&table.schema().arrow()));
    let info = FlightInfo {
        schema: schema_message(&schema)?,
        flight_descriptor: Some(FlightDescriptor::new_path(vec![name.schema.clone(), name.table.clone()])),
        endpoint: vec![endpoint(json_ticket::of_table(&name.schema, &name.table, as_of))],
        ..FlightInfo::default()
    };
    Ok(sized(info, table))
}

fn sized(info: FlightInfo, table: &Table) -> FlightInfo {
    FlightInfo {
        total_records: signed(table.rows()),
        total_bytes: signed(table.file_bytes().saturating_add(table.tail_bytes())),
        ..info
    }
}

impl Caller {
    /// The table that a descriptor's path names: `["t"]` or `["schema", "t"]`.
    pub fn table_name(&self, path: &[String]) -> Result<TableName> {
        match path {
            [table] => Ok(TableName::new(self.session.default_schema(), table)),
            [schema, table] => Ok(TableName::new(schema, table)),
            _ => Err(Error::invalid(format!(
                "path {path:?} names no table: it is [\"table\"] or [\"schema\", \"table\"]"
            ))),
        }
    }

    /// Refuses a table that is on no node.
    pub async fn require_table(&self, name: &TableName) -> Result<()> {
        let database = self.session.engine().database();
        let state = database.snapshot();
        match state.require(name) {
            Err(unknown) if !self.session.has_news_since(state.seq()).await => Err(unknown),
            Err(_) => database.snapshot().require(name).map(|_| ()),
            Ok(_) => Ok(()),
        }
    }

    /// The query that reads a whole table.
    pub async fn prepare_table(&self, name: &TableName) -> Result<Prepared> {
        let sql = json_ticket::select(&[name.schema.clone(), name.table.clone()], None)?;
        self.prepare(&sql).await
    }

    /// Prepares a statement on a state that is what the request demands.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        self.prepare_in(&self.session, sql).await
    }

    /// As [`prepare`](Self::prepare), as a statement of a session.
    pub async fn prepare_in(&self, session: &Arc<Session>, sql: &str) -> Result<Prepared> {
        session.prepare_with(sql, &self.reading()).await
    }
}

/// Runs a statement that changes something, once per row of parameters, if the caller may.
pub(crate) async fn run_update(
    caller: &Caller,
    prepared: &Prepared,
    params: Option<RecordBatch>,
) -> Result<UpdateResult> {
    if prepared.is_query() {
        return Err(Error::invalid("the statement returns rows: run it as a query"));
    }
    caller.may_run(prepared)?;
    prepared.update_with(params, caller.writing(), &caller.reading()).await
}

/// Rows as Flight counts them; -1: not counted.
pub(crate) fn record_count(rows: Option<u64>) -> i64 {
    rows.map_or(-1, signed)
}

pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn empty_schema() -> SchemaRef {
    SchemaRef::new(Schema::empty())
}

/// An answer with the headers of a finished write.
pub(crate) fn written<T>(reply: T, done: &UpdateResult) -> Reply<T> {
    let acked = match done.acked {
        Ack::Store => "store".to_owned(),
        // The wait ends when the last one of them has it.
        Ack::Quorum(k) => format!("quorum({k}/{k})"),
    };
    let reply = Reply::from(reply).with("tandem-seq", done.seq).with("tandem-acked", acked);
    // A count of rows that is an estimate says so where the message itself has no room for it.
    let reply = if done.exact { reply } else { reply.with("tandem-exact", false) };
    if done.duplicate { reply.with("tandem-duplicate", true) } else { reply }
}
