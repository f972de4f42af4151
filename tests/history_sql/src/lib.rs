//! Random histories as SQL: a whole node plays them, the naive interpreter of its log says what every query must answer.
//!
//! What `tandem-history` compares below SQL is compared here through all of it: statements are parsed, translated and
//! committed; tables are scanned with their filters, statistics and columns cut away; the past is asked for. Beside the log,
//! the statements themselves are held to their words: what each of them must have made of its table is worked out anew.
//!
//! A seed decides the statements. What it refuses to know: wires, many nodes at once.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use tandem_env::sim::{FaultStore, env, join};
use tandem_history::{
    Expected, Generator, Interpreter, PlainTable, Random, Statement, Tables, Term, Value, difference, eval,
    expected, expr, value_at,
};
use tandem_log::Log;
use tandem_manifest::Manifest;
use tandem_node::{Node, NodeConfig};
use tandem_sql::{Session, UpdateResult};
use tandem_types::{Error, ErrorKind, Result, Seq, TableId};

/// What a history came to.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// Statements that were committed, and those that were refused.
    pub done: u64,
    pub refused: u64,
    /// Queries that were compared, and rows in their answers.
    pub queries: u64,
    pub rows: u64,
    /// Statements that were held to their words.
    pub expected: u64,
    /// Row counts that were said to be exact.
    pub counted: u64,
    /// Why statements were refused, and how often.
    pub reasons: BTreeMap<String, u64>,
}

/// What is wrong, and the statements that led there.
#[derive(Clone, Debug)]
pub struct Violation {
    pub text: String,
    pub listing: String,
}

/// Plays the history of a seed.
pub fn play(seed: u64) -> std::result::Result<Played, Box<Violation>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for the history");
    runtime.block_on(async {
        let mut history = History::open(seed).await.map_err(|e| said(&format!("opening: {e}"), ""))?;
        match history.run().await {
            Ok(()) => Ok(history.played),
            Err(text) => Err(said(&text, &history.listing)),
        }
    })
}

fn said(text: &str, listing: &str) -> Box<Violation> {
    Box::new(Violation { text: text.to_owned(), listing: listing.to_owned() })
}

struct History {
    random: Random,
    seed: u64,
    store: Arc<FaultStore>,
    node: Node,
    session: Arc<Session>,
    log: Log,
    past: Interpreter,
    played: Played,
    listing: String,
}

type Checked<T> = std::result::Result<T, String>;

async fn open(store: &Arc<FaultStore>, seed: u64) -> Result<(Node, Arc<Session>)> {
    let config = NodeConfig { upkeep: false, ..NodeConfig::default() };
    let node = Node::open(join(store, seed), config).await?;
    let session = node.engine().session("history");
    Ok((node, session))
}

fn broken(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Internal | ErrorKind::Damaged | ErrorKind::NewerFormat)
}

impl History {
    async fn open(seed: u64) -> Result<Self> {
        let (_, store) = env(seed);
        let (node, session) = open(&store, seed).await?;
        let log = Log::open(join(&store, seed ^ 0x10c)).await?;
        let past = Interpreter::new(&log);
        let random = Random::new(seed);
        let (played, listing) = (Played::default(), String::new());
        Ok(Self { random, seed, store, node, session, log, past, played, listing })
    }

    async fn run(&mut self) -> Checked<()> {
        let dice = Random::new(self.seed ^ 0x5a1);
        let mut generator = Generator::for_sql(&dice);
        let create = generator.create();
        self.statement(&create).await?;
        for step in 0..10 + self.random.below(12) {
            match self.random.below(100) {
                0..14 => self.upkeep().await?,
                14..18 => {
                    let salt = self.seed.wrapping_mul(91).wrapping_add(step as u64);
                    self.note("-- reopen");
                    (self.node, self.session) = open(&self.store, salt).await.map_err(words)?;
                }
                18..34 => self.compare().await?,
                34..46 => {
                    if let Some((table, condition)) = generator.query() {
                        self.query(&table, &condition).await?;
                    }
                }
                _ => self.statement(&generator.statement()).await?,
            }
        }
        self.compare().await
    }

    fn note(&mut self, text: &str) {
        let _ = writeln!(self.listing, "  {text};");
    }

    fn head(&self) -> (Arc<Manifest>, Tables) {
        let head = self.past.head();
        let manifest = self.past.manifest(head).cloned();
        (manifest.expect("a state at the head"), self.past.tables(head).cloned().unwrap_or_default())
    }

    async fn upkeep(&mut self) -> Checked<()> {
        let (_, tables) = self.head();
        let names: Vec<String> = tables.values().map(|t| t.name.table.clone()).collect();
        let sql = match names.is_empty() || self.random.percent(20) {
            true => "CHECKPOINT".to_owned(),
            false => format!("OPTIMIZE TABLE {}", self.random.pick(&names)),
        };
        self.note(&sql);
        self.update(&sql).await.map_err(|e| format!("{sql}: {:?}: {e}", e.kind()))?;
        self.past.catch_up(&self.log).await.map_err(words)
    }

    async fn update(&self, sql: &str) -> Result<UpdateResult> {
        self.session.prepare(sql).await?.update(None).await
    }

    /// Several statements one after the other; the first refusal ends it.
    async fn transaction(&mut self, statements: &[Statement]) -> Result<Option<UpdateResult>> {
        self.update("BEGIN").await?;
        for statement in statements {
            let sql = statement.to_string();
            if let Err(e) = self.update(&sql).await {
                self.update("ROLLBACK").await?;
                return Err(e);
            }
        }
        self.update("COMMIT").await.map(Some)
    }

    async fn statement(&mut self, statement: &Statement) -> Checked<()> {
        let (before, tables) = self.head();
        let mut sql = statement.to_string();
        if let Statement::Restore(table, back) = statement {
            let name = tandem_types::TableName::public(table.as_str());
            sql = match before.table_named(&name) {
                Some(_) => {
                    format!("RESTORE TABLE {table} TO SEQ {}", before.seq().0.saturating_sub(*back).max(1))
                }
                None => format!("UNDROP TABLE {table}"),
            };
        }
        self.note(&sql);
        let answer = match statement {
            Statement::Transaction(statements) => self.transaction(statements).await,
            _ => self.update(&sql).await.map(Some),
        };
        self.past.catch_up(&self.log).await.map_err(words)?;
        match answer {
            Ok(answer) => {
                self.played.done += 1;
                self.check_words(statement, &before, &tables, answer)
            }
            Err(e) if broken(&e) => Err(format!("{sql}\n  is answered {:?}: {e}", e.kind())),
            Err(e) => {
                self.note(&format!("-- refused, {:?}: {e}", e.kind()));
                self.played.refused += 1;
                *self.played.reasons.entry(e.to_string().chars().take(90).collect()).or_default() += 1;
                let unchanged = self.past.tables(self.past.head()).is_some_and(|now| same(now, &tables));
                if unchanged { Ok(()) } else { Err(format!("{sql}\n  is refused ({e}), and changed rows")) }
            }
        }
    }

    /// Holds a statement to its words.
    fn check_words(
        &mut self,
        statement: &Statement,
        before: &Manifest,
        tables: &Tables,
        answer: Option<UpdateResult>,
    ) -> Checked<()> {
        let (after, now_tables) = self.head();
        eval::has_overflowed();
        let wanted = expected(statement, before, tables, after.commit_time());
        if eval::has_overflowed() {
            return Ok(());
        }
        let wanted = match wanted {
            // Types that SQL brings together, and those who wrote the statement did not mean.
            Err(e) if !broken(&e) => return Ok(()),
            Err(e) => return Err(format!("{statement}\n  is taken, and makes no sense: {e}")),
            Ok(wanted) => wanted,
        };
        let Some(Expected { table, acts_on }) = wanted else { return Ok(()) };
        let found = now_tables.values().find(|t| t.name == table.name);
        let found = found.ok_or_else(|| format!("{statement}\n  and its table is gone"))?;
        self.played.expected += 1;
        if let Some(text) = difference(&table, found.rows.clone()) {
            return Err(format!("{statement}\n  made of table {}:\n{text}", table.name));
        }
        if let (Some(acts_on), Some(answer)) = (acts_on, answer)
            && answer.exact
            && let Some(rows) = answer.rows
        {
            self.played.counted += 1;
            if rows != acts_on {
                return Err(format!("{statement}\n  is answered exactly {rows} rows, {acts_on} are right"));
            }
        }
        Ok(())
    }

    async fn rows(&self, sql: &str) -> Checked<(Vec<String>, Vec<Vec<Value>>)> {
        let asked = async {
            let planned = self.session.prepare(sql).await?.plan(None).await?;
            let running = planned.start(None).await?;
            let names: Vec<String> = running.schema.fields().iter().map(|f| f.name().clone()).collect();
            let batches: Vec<RecordBatch> = running.stream.try_collect().await?;
            let mut rows = Vec::new();
            for batch in &batches {
                for row in 0..batch.num_rows() {
                    let values = batch.columns().iter().map(|column| value_at(column, row));
                    rows.push(values.collect::<Result<Vec<_>>>()?);
                }
            }
            Ok::<_, Error>((names, rows))
        };
        asked.await.map_err(|e| format!("{sql}\n  is answered {:?}: {e}", e.kind()))
    }

    /// All tables now, and one of the past.
    async fn compare(&mut self) -> Checked<()> {
        let (manifest, tables) = self.head();
        for (id, table) in &tables {
            let name = &table.name.table;
            self.check(&format!("SELECT * FROM {name}"), table).await?;
            self.totals(table).await?;
            self.replay(*id, table).await?;
            let back = self.random.below(8) as u64;
            let then = Seq(manifest.seq().0.saturating_sub(back));
            if back > 0
                && let Some(old) = self.as_of(*id, name, then)
            {
                self.check(&format!("SELECT * FROM {name} VERSION AS OF {}", then.0), &old).await?;
            }
        }
        Ok(())
    }

    /// Whoever is told of all changes of a table has what the table has.
    async fn replay(&mut self, id: TableId, right: &PlainTable) -> Checked<()> {
        let (manifest, _) = self.head();
        let created = manifest.table(id).map_or(Seq(1), |table| table.created());
        let first = self.past.manifest(created).and_then(|m| m.table_named(&right.name));
        // Its name of today may have been another's then.
        if first.is_some_and(|table| table.id() != id) {
            return Ok(());
        }
        let sql = format!(
            "SELECT * FROM system.changes('{}', {created}, {}, 'both')",
            right.name.table,
            manifest.seq()
        );
        let (_, told) = self.rows(&sql).await?;
        let mut have: BTreeMap<Vec<Value>, i64> = BTreeMap::new();
        for mut row in told {
            let own = row.split_off(row.len() - 3);
            let count = match own.get(1) {
                Some(Value::Text(op)) => match op.as_str() {
                    "insert" | "update_after" => 1,
                    "delete" | "update_before" => -1,
                    // Dropped: whoever has its rows throws them away; else its rows are as they were.
                    _ => {
                        let Some(Value::Int(seq)) = own.first() else {
                            return Err(format!("{sql}: {own:?}"));
                        };
                        let seq = Seq(u64::try_from(*seq).unwrap_or_default());
                        if self.past.manifest(seq).is_some_and(|m| m.table(id).is_none()) {
                            have.clear();
                        }
                        continue;
                    }
                },
                other => return Err(format!("{sql}: {other:?} is no operation")),
            };
            let rows = have.entry(row).or_default();
            *rows += count;
            // Rows that were dropped columns apart may be one now, so that only the end counts.
        }
        let mut rows = Vec::new();
        for (row, count) in have {
            let count =
                usize::try_from(count).map_err(|_| format!("{sql}\n  takes {row:?} away too often"))?;
            rows.extend(std::iter::repeat_n(row, count));
        }
        self.played.queries += 1;
        match difference(right, rows) {
            None => Ok(()),
            Some(text) => Err(format!("{sql}\n  comes to:\n{text}")),
        }
    }

    /// The table at a seq, if it had the same name then.
    fn as_of(&self, id: TableId, name: &str, seq: Seq) -> Option<Arc<PlainTable>> {
        let table = self.past.tables(seq)?.get(&id)?;
        (table.name.table == name).then(|| table.clone())
    }

    async fn check(&mut self, sql: &str, right: &PlainTable) -> Checked<()> {
        let (names, rows) = self.rows(sql).await?;
        let columns: Vec<&str> = right.columns.iter().map(|c| c.name.as_str()).collect();
        if names != columns {
            return Err(format!("{sql}\n  has the columns {names:?}, not {columns:?}"));
        }
        self.played.queries += 1;
        self.played.rows += rows.len() as u64;
        match difference(right, rows) {
            None => Ok(()),
            Some(text) => Err(format!("{sql}\n  is answered:\n{text}")),
        }
    }

    /// What statistics may answer.
    async fn totals(&mut self, table: &PlainTable) -> Checked<()> {
        let column = self.random.below(table.columns.len());
        let name = &table.columns[column].name;
        let is_float = table.columns[column].data_type.is_floating();
        let is_bool = table.columns[column].data_type == arrow::datatypes::DataType::Boolean;
        let values: Vec<&Value> =
            table.rows.iter().map(|row| &row[column]).filter(|v| !v.is_null()).collect();
        let count = |n: usize| Value::Int(n as i128);
        let mut sql = format!("SELECT count(*), count({name})");
        let mut right = vec![count(table.rows.len()), count(values.len())];
        // Who is the least of numbers that are none is not asked.
        if !is_float && !is_bool {
            let _ = write!(sql, ", min({name}), max({name})");
            right.push(values.iter().min().map_or(Value::Null, |v| (*v).clone()));
            right.push(values.iter().max().map_or(Value::Null, |v| (*v).clone()));
        }
        let _ = write!(sql, " FROM {}", table.name.table);
        let (_, rows) = self.rows(&sql).await?;
        self.played.queries += 1;
        match rows == [right.clone()] {
            true => Ok(()),
            false => Err(format!("{sql}\n  is answered {rows:?}, {right:?} is right")),
        }
    }

    async fn query(&mut self, table: &str, condition: &Term) -> Checked<()> {
        let (manifest, tables) = self.head();
        let name = tandem_types::TableName::public(table);
        let Some(known) = manifest.table_named(&name) else { return Ok(()) };
        let Some(plain) = tables.get(&known.id()) else { return Ok(()) };
        // It may be about columns that the statements before it did not make.
        let Ok(bound) = expr(condition, known) else { return Ok(()) };
        let mut right = (**plain).clone();
        right.keep(&bound).map_err(words)?;
        self.check(&format!("SELECT * FROM {table} WHERE {condition}"), &right).await?;
        let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
        let (_, rows) = self.rows(&sql).await?;
        self.played.queries += 1;
        match rows == [vec![Value::Int(right.rows.len() as i128)]] {
            true => Ok(()),
            false => Err(format!("{sql}\n  is answered {rows:?}, {} is right", right.rows.len())),
        }
    }
}

fn words(error: Error) -> String {
    format!("{:?}: {error}", error.kind())
}

/// Whether the rows of all tables are the same.
fn same(one: &Tables, other: &Tables) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((a, x), (b, y))| a == b && x.rows == y.rows && x.columns == y.columns)
}
