//! A history before it is played: who asks for what, in which order. Decided by its seed.

use std::fmt;

use tandem_env::Chance;
use tandem_env::sim::SimChance;

use crate::generate::Generator;
use crate::statement::Statement;

/// Dice.
#[derive(Debug)]
pub struct Random(SimChance);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(SimChance::new(seed))
    }

    pub fn below(&self, n: usize) -> usize {
        usize::try_from(self.0.below(n as u64)).unwrap_or(0)
    }

    /// Whether something of so many of a hundred happens.
    pub fn percent(&self, n: usize) -> bool {
        self.below(100) < n
    }

    pub fn pick<'a, T>(&self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    pub fn next(&self) -> u64 {
        self.0.next_u64()
    }
}

/// How eagerly a table is compacted.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Usual,
    Everything,
    /// A part of what is there, drawn from this seed.
    Some(u64),
}

#[derive(Clone, Debug)]
pub enum Action {
    Statement(Statement),
    /// `hold`: so many rounds pass before what was made is committed.
    Compact {
        table: String,
        how: How,
        hold: usize,
    },
    Checkpoint,
    /// The node cuts history, and deletes what no kept state needs.
    Collect,
    /// The node ends and starts anew from the store.
    Reopen,
    /// All tables at the node's state, and `back` commits before it.
    Compare {
        back: Vec<u64>,
    },
}

/// What happens at the same time.
#[derive(Clone, Debug)]
pub struct Round {
    /// Nodes first read the log to its end.
    pub fresh: bool,
    pub actions: Vec<(usize, Action)>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// Store calls take time, so that nodes come between each other.
    pub delays: bool,
    /// Rows lie in segments of their own, not in commits.
    pub segments: bool,
    /// So little history is kept, where it is cut at all.
    pub window: Option<&'static str>,
    pub rounds: Vec<Round>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let random = Random::new(seed);
        let nodes = *random.pick(&[1, 1, 1, 2, 2, 3]);
        let delays = nodes > 1 && random.percent(60);
        let segments = random.percent(25);
        let window = random.percent(30).then(|| *random.pick(&["1us", "100ms", "1s"]));
        let mut generator = Generator::new(&random);
        generator.collects = window.is_some();
        let mut rounds = Vec::new();
        for _ in 0..if random.percent(30) { 2 } else { 1 } {
            let create = Action::Statement(generator.create());
            rounds.push(Round { fresh: true, actions: vec![(random.below(nodes), create)] });
        }
        // Many short ones, in which faults are near each other, and some long ones, for what takes its time.
        let length = if random.percent(20) { 12 + random.below(20) } else { 4 + random.below(7) };
        for _ in 0..length {
            let at_once = if nodes > 1 && random.percent(40) { 2 + random.below(2) } else { 1 };
            let fresh = random.percent(60);
            let actions = (0..at_once).map(|_| (random.below(nodes), generator.action())).collect();
            rounds.push(Round { fresh, actions });
            if random.percent(15) {
                rounds.push(Round { fresh, actions: vec![(random.below(nodes), generator.compare())] });
            }
        }
        Self { seed, nodes, delays, segments, window, rounds }
    }

    /// The actions that matter to a table, or all.
    pub fn listing(&self, table: Option<&str>) -> String {
        let mut text = String::new();
        for (n, round) in self.rounds.iter().enumerate() {
            let fresh = if round.fresh { " (fresh)" } else { "" };
            let shown = round.actions.iter().filter(|(_, action)| match (action, table) {
                (Action::Statement(s), Some(table)) => s.tables().contains(&table),
                (Action::Compact { table: of, .. }, Some(table)) => of == table,
                _ => true,
            });
            for (node, action) in shown {
                text.push_str(&format!("  {n:>2}{fresh} node {node}: {action}\n"));
            }
        }
        text
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement(statement) => write!(f, "{statement}"),
            Self::Compact { table, how, hold } => {
                write!(f, "-- compact {table}, {how:?}, committed {hold} rounds later")
            }
            Self::Checkpoint => f.write_str("-- checkpoint"),
            Self::Collect => f.write_str("-- collect"),
            Self::Reopen => f.write_str("-- reopen"),
            Self::Compare { back } => write!(f, "-- compare, and {back:?} commits before"),
        }
    }
}
