//! What a seed decides before anything runs.

use tandem_env::Chance;
use tandem_env::sim::SimChance;

use crate::scripts::{Script, Way};

/// What is special about a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Nothing is lost, and all nodes must come to rest.
    Usual,
    /// History is kept for moments only, and everything behind it is deleted, log and checkpoints too, while the store is
    /// slow and nodes stand still.
    Trimmed,
    /// In the end an object of the log is gone: a node that starts then must say so.
    Hole,
    /// In the end there is a checkpoint that the log knows nothing of, and it is wrong.
    ForeignRoot,
}

/// Shares are of 256.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub flavour: Flavour,
    pub nodes: usize,
    /// Of them, from the last on, configured as replicas.
    pub replicas: usize,
    pub clients: usize,
    pub writes: usize,
    /// Store calls that meet a fault.
    pub faults: u64,
    /// Store calls that take seconds.
    pub slow: u64,
    /// Checkpoint objects that are stored with a changed byte.
    pub damage: u64,
    /// Whether nodes push their commits to each other.
    pub pushes: bool,
    /// Pushes that get lost, or come twice, or come late.
    pub lossy: u64,
    /// Pushes of a foreign history.
    pub forged: u64,
    pub crashes: u64,
    pub pauses: u64,
    pub skews: bool,
    pub promotions: u64,
    /// Writes that change tables and not rows.
    pub ddl: u64,
    pub upkeep: bool,
    /// Whether nodes delete what they may, and others look into the past.
    pub collects: bool,
    /// Whether nodes commit for each other; then many clients write at once.
    pub handover: bool,
    /// What happens in place of clients' own ideas.
    pub script: Option<Script>,
    /// The one store call that goes wrong, from 1, and how.
    pub single: Option<(u64, Way)>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let chance = SimChance::new(seed ^ 0x7061_6e64_656d_2e70);
        let below = |n: u64| chance.below(n);
        let nodes = 2 + below(4) as usize;
        let replicas = below(nodes as u64 - 1) as usize;
        let flavour = match below(8) {
            0 => Flavour::Trimmed,
            1 => Flavour::Hole,
            2 => Flavour::ForeignRoot,
            _ => Flavour::Usual,
        };
        let often = |rare: u64, value: u64| if below(rare) == 0 { value } else { 0 };
        let handover = below(3) == 0;
        let trimmed = flavour == Flavour::Trimmed;
        Self {
            seed,
            flavour,
            nodes,
            replicas,
            clients: if handover { 6 + below(5) } else { 2 + below(3) } as usize,
            writes: (if handover { 3 + below(4) } else { 4 + below(6) } + if trimmed { 8 } else { 0 })
                as usize,
            faults: [0, 5, 20, 60][below(4) as usize],
            slow: if trimmed { 24 } else { [0, 2, 10][below(3) as usize] },
            damage: often(4, 40),
            pushes: below(4) != 0,
            lossy: [0, 20, 90][below(3) as usize],
            forged: often(3, 24),
            crashes: below(4),
            pauses: if trimmed { 2 + below(3) } else { below(4) },
            skews: below(2) == 0,
            promotions: often(2, 1 + below(4)),
            ddl: [16, 48, 110][below(3) as usize],
            upkeep: trimmed || below(8) != 0,
            collects: trimmed || below(3) == 0,
            handover,
            script: None,
            single: None,
        }
    }

    /// A scenario in which nothing goes wrong but, perhaps, one store call.
    pub fn of_script(script: Script, single: Option<(u64, Way)>) -> Self {
        Self {
            seed: 1,
            flavour: Flavour::Usual,
            nodes: 3,
            replicas: 1,
            clients: 0,
            writes: 0,
            faults: 0,
            slow: 0,
            damage: 0,
            pushes: script != Script::CatchUp,
            lossy: 0,
            forged: 0,
            crashes: 0,
            pauses: 0,
            skews: false,
            promotions: 0,
            ddl: 0,
            upkeep: false,
            collects: false,
            handover: false,
            script: Some(script),
            single,
        }
    }

    /// All that a seed decides, with one thing decided otherwise.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
