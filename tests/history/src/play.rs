//! A history from its first to its last round, compared with the interpreter on the way.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::future::join_all;
use tandem_compact::Output;
use tandem_env::sim::{Fault, FaultPlan, FaultStore, SimClock};
use tandem_manifest::{Manifest, Step};
use tandem_types::{Error, ErrorKind, Result, Seq};

use crate::compaction;
use crate::interpreter::{Interpreter, PlainTable};
use crate::node::Node;
use crate::plan::{Action, How, Plan, Random};
use crate::read::{self, Slip};
use crate::value::Value;

/// What is wrong, and with which table.
#[derive(Clone, Debug)]
pub struct Violation {
    pub table: Option<String>,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Violation {
    fn from(error: Error) -> Self {
        Self { table: None, text: format!("{:?}: {error}", error.kind()) }
    }
}

fn wrong(table: Option<&str>, text: impl Into<String>) -> Violation {
    Violation { table: table.map(str::to_owned), text: text.into() }
}

/// What a history came to.
#[derive(Clone, Debug, Default)]
pub struct Played {
    pub commits: u64,
    /// Statements that were committed.
    pub done: u64,
    /// Statements that their node or the log refused.
    pub refused: u64,
    pub compactions: u64,
    /// Compactions that came too late.
    pub late: u64,
    pub checkpoints: u64,
    pub reopened: u64,
    /// Objects that were deleted.
    pub collected: u64,
    /// Tables that were compared, and their rows.
    pub tables: u64,
    pub rows: u64,
    pub void: u64,
    /// Tables that were read with mutations pending.
    pub pending: u64,
    pub violation: Option<Violation>,
    /// Why statements were refused.
    pub reasons: Vec<String>,
}

/// Plays a plan in a runtime of its own.
pub fn play(plan: &Plan) -> Played {
    play_with(plan, None)
}

/// As [`play`], with a mistake in how tables are read.
pub fn play_with(plan: &Plan, slip: Option<Slip>) -> Played {
    let clock = Arc::new(SimClock::manual());
    let store = Arc::new(FaultStore::new(clock.clone()));
    let mut delays = FaultPlan::none();
    if plan.delays {
        let r = Random::new(plan.seed ^ 0xde1a);
        let slow = |plan: FaultPlan, number| {
            let delay = Duration::from_millis(r.below(30) as u64);
            if r.percent(30) { plan.call(number, Fault::Delay(delay)) } else { plan }
        };
        delays = (1..3000).fold(delays, slow);
    }
    store.set_plan(delays.clone());
    // Files are encoded on other threads: time stands still meanwhile, for nothing else decides how long that takes.
    let computing = Arc::new(AtomicUsize::new(0));
    let stands = computing.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(move || {
            if stands.load(Relaxed) == 0 {
                clock.jump();
            }
        })
        .build()
        .expect("a runtime");
    let mut history = History {
        plan,
        slip,
        store,
        delays,
        computing,
        nodes: Vec::new(),
        held: Vec::new(),
        played: Played::default(),
    };
    let result = runtime.block_on(history.run());
    history.played.violation = result.err();
    history.played
}

/// A compaction that waits to be committed.
struct Held {
    node: usize,
    due: usize,
    output: Output,
}

struct History<'a> {
    plan: &'a Plan,
    slip: Option<Slip>,
    store: Arc<FaultStore>,
    delays: FaultPlan,
    computing: Arc<AtomicUsize>,
    nodes: Vec<Node>,
    held: Vec<Held>,
    played: Played,
}

type Checked<T> = std::result::Result<T, Violation>;

/// Whether an error says that the system is broken, and not that a statement is wrong or came too late.
fn is_broken(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Internal | ErrorKind::Damaged | ErrorKind::NewerFormat)
}

impl History<'_> {
    async fn run(&mut self) -> Checked<()> {
        for node in 0..self.plan.nodes {
            let seed = self.plan.seed.wrapping_mul(31).wrapping_add(node as u64);
            self.nodes.push(Node::open(&self.store, seed, self.plan.segments).await?);
        }
        let mut past = Interpreter::new(&self.nodes[0].log);
        for (at, round) in self.plan.rounds.iter().enumerate() {
            // Ages are counted by clocks.
            self.store.clock().advance(Duration::from_millis(20));
            if round.fresh {
                for node in &self.nodes {
                    node.writer.catch_up_now().await?;
                }
            }
            past.catch_up(&self.nodes[0].log).await?;
            self.statements(&round.actions, &past).await?;
            past.catch_up(&self.nodes[0].log).await?;
            for (node, action) in &round.actions {
                self.other(at, *node, action, &past).await?;
                past.catch_up(&self.nodes[0].log).await?;
            }
            self.commit_held(at).await?;
        }
        self.commit_held(usize::MAX).await?;
        past.catch_up(&self.nodes[0].log).await?;
        self.finish(&mut past).await?;
        self.played.commits = past.head().0;
        self.played.void = past.void;
        Ok(())
    }

    /// All statements of a round, at the same time.
    async fn statements(&mut self, actions: &[(usize, Action)], past: &Interpreter) -> Checked<()> {
        let nodes = &self.nodes;
        let sent = actions.iter().filter_map(|(node, action)| match action {
            Action::Statement(statement) => {
                let index = node % nodes.len();
                let node = &nodes[index];
                let behind = self.is_behind(index, past);
                Some(async move { (statement, behind, node.execute(statement, past).await) })
            }
            _ => None,
        });
        for (statement, behind, answer) in join_all(sent).await {
            match answer {
                Ok(()) => self.played.done += 1,
                Err(e) if is_broken(&e) && !behind => {
                    let table = statement.tables().first().copied();
                    return Err(wrong(table, format!("{statement}\n  is answered {:?}: {e}", e.kind())));
                }
                Err(e) => {
                    self.played.refused += 1;
                    self.played.reasons.push(e.to_string());
                }
            }
        }
        Ok(())
    }

    async fn other(&mut self, at: usize, node: usize, action: &Action, past: &Interpreter) -> Checked<()> {
        let index = node % self.nodes.len();
        match action {
            Action::Statement(_) => {}
            Action::Compact { table, how, hold } => {
                self.compact((at, *hold), index, table, *how, past).await?
            }
            Action::Checkpoint => match self.nodes[index].write_checkpoint().await {
                Err(e) if is_broken(&e) && !self.is_behind(index, past) => {
                    return Err(wrong(None, format!("a checkpoint: {e}")));
                }
                Err(e) => self.played.reasons.push(format!("a checkpoint: {e}")),
                _ => self.played.checkpoints += 1,
            },
            Action::Collect => match self.nodes[index].collect(self.plan.window).await {
                Err(e) if is_broken(&e) && !self.is_behind(index, past) => {
                    return Err(wrong(None, format!("collecting: {e}")));
                }
                Err(e) => self.played.reasons.push(format!("collecting: {e}")),
                Ok(objects) => self.played.collected += objects,
            },
            Action::Reopen => {
                let seed = self.plan.seed.wrapping_mul(77).wrapping_add((at * 8 + index) as u64);
                self.nodes[index] = Node::open(&self.store, seed, self.plan.segments).await?;
                self.played.reopened += 1;
                self.check_state(past, &self.nodes[index].writer.state())?;
            }
            Action::Compare { back } => {
                let seq = self.nodes[index].writer.state().seq();
                let start = past.manifest(past.head()).map_or(Seq(0), |state| state.history_start());
                let seqs = back.iter().map(|back| Seq(seq.0.saturating_sub(*back)));
                for seq in std::iter::once(seq).chain(seqs).filter(|seq| *seq >= start) {
                    self.compare(index, past, seq).await?;
                }
            }
        }
        Ok(())
    }

    async fn compact(
        &mut self,
        (at, hold): (usize, usize),
        index: usize,
        table: &str,
        how: How,
        past: &Interpreter,
    ) -> Checked<()> {
        let node = &self.nodes[index];
        let state = node.writer.state();
        let Some(found) = state.table_named(&tandem_types::TableName::public(table)) else { return Ok(()) };
        let jobs = compaction::jobs(found, how, state.seq());
        if jobs.is_empty() {
            return Ok(());
        }
        // Nobody waits for the clock that stands.
        self.store.set_plan(FaultPlan::none());
        self.computing.fetch_add(1, Relaxed);
        let made = compaction::make(node, &state, &jobs).await;
        self.computing.fetch_sub(1, Relaxed);
        self.store.set_plan(self.delays.clone());
        match made {
            Ok(output) => self.held.push(Held { node: index, due: at + hold, output }),
            Err(_) if self.is_behind(index, past) => {}
            Err(e) => {
                let text = format!("compacting {table} at {}, {jobs:?}: {:?}: {e}", state.seq(), e.kind());
                return Err(wrong(Some(table), text));
            }
        }
        Ok(())
    }

    async fn commit_held(&mut self, at: usize) -> Checked<()> {
        let (due, rest) = std::mem::take(&mut self.held).into_iter().partition(|held: &Held| held.due <= at);
        self.held = rest;
        for Held { node, output, .. } in due {
            let replace = output.replace;
            match self.nodes[node].writer.submit_upkeep(replace.base, vec![Step::Replace(replace)]).await {
                Ok(_) => self.played.compactions += 1,
                Err(e) if is_broken(&e) => return Err(wrong(None, format!("committing a compaction: {e}"))),
                Err(e) => {
                    self.played.late += 1;
                    self.played.reasons.push(format!("compaction: {e}"));
                }
            }
        }
        Ok(())
    }

    /// Whether a node stands at a state that is not kept any more: what it reads may be gone.
    fn is_behind(&self, index: usize, past: &Interpreter) -> bool {
        let start = past.manifest(past.head()).map_or(Seq(0), |state| state.history_start());
        self.nodes[index].writer.state().seq() < start
    }

    fn check_state(&self, past: &Interpreter, state: &Manifest) -> Checked<()> {
        let right = past.manifest(state.seq()).ok_or_else(|| wrong(None, "a state that the log has not"))?;
        if right.digest() != state.digest() {
            return Err(wrong(
                None,
                format!("a node's state at {} is another one than the log's", state.seq()),
            ));
        }
        Ok(())
    }

    /// Every table at a seq, as the node reads it and as the interpreter has it.
    async fn compare(&mut self, index: usize, past: &Interpreter, seq: Seq) -> Checked<()> {
        let node = &self.nodes[index];
        let (Some(manifest), Some(tables)) = (past.manifest(seq), past.tables(seq)) else {
            return Err(wrong(None, format!("a node is at {seq}, the log ends at {}", past.head())));
        };
        let newest = node.writer.state();
        if newest.seq() == seq {
            self.check_state(past, &newest)?;
        }
        let ids: Vec<_> = manifest.tables().map(tandem_manifest::Table::id).collect();
        if !ids.iter().eq(tables.keys()) {
            return Err(wrong(None, format!("at {seq} there are tables {ids:?}, and {:?}", tables.keys())));
        }
        for (id, plain) in tables {
            let Some(table) = manifest.table(*id) else { continue };
            let name = Some(plain.name.table.as_str());
            if table.schema().columns != plain.columns {
                let has = &table.schema().columns;
                return Err(wrong(
                    name,
                    format!("at {seq} table {} has {has:?}, not {:?}", plain.name, plain.columns),
                ));
            }
            let inputs = node.inputs(manifest.clone());
            let read = read::table(&inputs, &node.log, table, self.slip).await;
            let read = read.map_err(|e| {
                wrong(name, format!("table {} at {seq} cannot be read: {:?}: {e}", plain.name, e.kind()))
            })?;
            self.played.tables += 1;
            self.played.rows += read.len() as u64;
            self.played.pending += u64::from(table.has_mutations());
            if let Some(difference) = difference(plain, read) {
                return Err(wrong(
                    name,
                    format!("table {} at {seq}, node {index}:\n{difference}", plain.name),
                ));
            }
            // The other way to the rows: in closed groups, streamed where they can be.
            if self.played.tables.is_multiple_of(2) {
                // Nobody waits for the clock that stands.
                self.store.set_plan(FaultPlan::none());
                self.computing.fetch_add(1, Relaxed);
                let again = read::as_compaction(&inputs, table).await;
                self.computing.fetch_sub(1, Relaxed);
                self.store.set_plan(self.delays.clone());
                let again = again.map_err(|e| {
                    wrong(
                        name,
                        format!("table {} at {seq} cannot be compacted: {:?}: {e}", plain.name, e.kind()),
                    )
                })?;
                if let Some(difference) = difference(plain, again) {
                    let text =
                        format!("table {} at {seq}, node {index}, as compaction reads it:", plain.name);
                    return Err(wrong(name, format!("{text}\n{difference}")));
                }
            }
            check_files(table)
                .map_err(|text| wrong(name, format!("table {} at {seq}: {text}", plain.name)))?;
        }
        Ok(())
    }

    /// At the end all nodes agree, whatever was compacted; once more when all of it is.
    async fn finish(&mut self, past: &mut Interpreter) -> Checked<()> {
        for node in &self.nodes {
            node.writer.catch_up_now().await?;
            self.check_state(past, &node.writer.state())?;
        }
        let head = past.head();
        self.compare(0, past, head).await?;
        let tables: Vec<String> =
            self.nodes[0].writer.state().tables().map(|t| t.name().table.clone()).collect();
        for table in &tables {
            for _ in 0..20 {
                let before = self.nodes[0].writer.state().seq();
                self.compact((0, 0), 0, table, How::Everything, past).await?;
                past.catch_up(&self.nodes[0].log).await?;
                self.commit_held(usize::MAX).await?;
                if self.nodes[0].writer.state().seq() == before {
                    break;
                }
            }
        }
        past.catch_up(&self.nodes[0].log).await?;
        let head = past.head();
        self.compare(0, past, head).await?;
        if self.plan.window.is_some() {
            self.collect_in_the_end(past).await?;
        }
        let state = self.nodes[0].writer.state();
        for table in state.tables() {
            let name = Some(table.name().table.as_str());
            if table.tail_sections() > 0 || table.has_mutations() {
                let (sections, mutations) = (table.tail_sections(), table.mutations().count());
                let text =
                    format!("{sections} sections and {mutations} mutations are left when all is compacted");
                return Err(wrong(name, text));
            }
        }
        if self.plan.seed.is_multiple_of(4) {
            let recovered = self.nodes[0].log.recover().await?.manifest;
            self.check_state(past, &recovered)?;
        }
        Ok(())
    }

    /// When all is compacted and old, most objects may go. The tables notice nothing.
    async fn collect_in_the_end(&mut self, past: &mut Interpreter) -> Checked<()> {
        let node = &mut self.nodes[0];
        for _ in 0..2 {
            node.env.clock.sleep(Duration::from_secs(2)).await;
            node.write_checkpoint().await?;
            self.played.checkpoints += 1;
            self.played.collected += node.collect(self.plan.window).await?;
        }
        past.catch_up(&node.log).await?;
        let head = past.head();
        self.compare(0, past, head).await
    }
}

/// What holds of a table's data whatever was done to it.
fn check_files(table: &tandem_manifest::Table) -> std::result::Result<(), String> {
    let timed = table.timestamp().is_some_and(|c| table.primary_key().contains(&c.id));
    if !table.is_keyed() || !timed {
        return Ok(());
    }
    for tail in table.tail() {
        for partition in &tail.live {
            let Some((first, last)) = table.part_time(tail, *partition) else { continue };
            for file in table.files().filter(|f| f.file.name.partition == *partition) {
                let touches = file.file.time.is_none_or(|(from, to)| from <= last && first <= to);
                if touches && file.file.folded_through >= tail.key.seq {
                    return Err(format!("section {:?} touches a file that is folded through it", tail.key));
                }
            }
        }
    }
    Ok(())
}

/// How rows that were read differ from those that are right; the order of rows is nobody's promise.
pub fn difference(plain: &PlainTable, mut read: Vec<Vec<Value>>) -> Option<String> {
    let mut right = plain.rows.clone();
    right.sort();
    read.sort();
    if right == read {
        return None;
    }
    let mut text = String::new();
    let names: Vec<&str> = plain.columns.iter().map(|c| c.name.as_str()).collect();
    text.push_str(&format!("  ({}): {} rows, {} are right\n", names.join(", "), read.len(), right.len()));
    let words = |row: &Vec<Value>| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut missing = right.clone();
    let mut surplus = Vec::new();
    for row in &read {
        match missing.iter().position(|other| other == row) {
            Some(at) => drop(missing.remove(at)),
            None => surplus.push(row.clone()),
        }
    }
    for row in &missing {
        text.push_str(&format!("  missing: ({})\n", words(row)));
    }
    for row in &surplus {
        text.push_str(&format!("  wrong:   ({})\n", words(row)));
    }
    Some(text)
}

/// The result of the whole, for callers that do not look closer.
pub fn check(plan: &Plan) -> Result<Played, Box<Violation>> {
    let mut played = play(plan);
    match played.violation.take() {
        None => Ok(played),
        Some(violation) => Err(Box::new(violation)),
    }
}
