//! Visits every state that a model can reach, breadth first, and holds each against the model's properties.
//!
//! States are told apart by 64-bit fingerprints: of ten million states, two share one with a chance of about one in
//! 400,000.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// What can be checked: states, and the actions that lead from one to the next.
pub trait Model: Sized {
    type State: Clone + Eq + Hash;
    type Action: Clone + Debug;

    fn init_states(&self) -> Vec<Self::State>;

    /// Adds what may happen in a state.
    fn actions(&self, state: &Self::State, actions: &mut Vec<Self::Action>);

    /// The state that an action leads to; `None`: it changes nothing.
    fn next_state(&self, state: &Self::State, action: Self::Action) -> Option<Self::State>;

    fn properties(&self) -> Vec<Property<Self>>;
}

/// How often a property holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// In every state.
    Always,
    /// In one state at least: what shows that a check looks at something.
    Sometimes,
}

/// A statement about one state.
pub struct Property<M: Model> {
    pub expectation: Expectation,
    pub name: &'static str,
    pub condition: fn(&M, &M::State) -> bool,
}

impl<M: Model> Property<M> {
    pub fn always(name: &'static str, condition: fn(&M, &M::State) -> bool) -> Self {
        Self { expectation: Expectation::Always, name, condition }
    }

    pub fn sometimes(name: &'static str, condition: fn(&M, &M::State) -> bool) -> Self {
        Self { expectation: Expectation::Sometimes, name, condition }
    }
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Checked<A> {
    /// States visited, each counted once.
    pub states: usize,
    /// The longest of the shortest ways to a state, in actions.
    pub depth: usize,
    /// Whether all states that can be reached were visited.
    pub complete: bool,
    /// The first property that a state broke, and the shortest way there.
    pub broken: Option<(&'static str, Vec<A>)>,
    /// Properties that were to hold in some state and did in none.
    pub never: Vec<&'static str>,
}

impl<A: Debug> Checked<A> {
    /// The way to the broken property, one action a line.
    pub fn way(&self) -> String {
        let Some((name, actions)) = &self.broken else { return "nothing is broken".to_owned() };
        let lines = actions.iter().enumerate().map(|(i, action)| format!("{:>3}. {action:?}\n", i + 1));
        format!("{name}, after\n{}", lines.collect::<String>())
    }
}

/// Visits states until one breaks a property, all were seen, or `most` were.
pub fn check<M: Model>(model: &M, most: usize) -> Checked<M::Action> {
    let (always, mut never): (Vec<_>, Vec<_>) =
        model.properties().into_iter().partition(|p| p.expectation == Expectation::Always);
    let mut visited = Visited::default();
    let mut queue: VecDeque<(M::State, u64, usize)> = VecDeque::new();
    let mut actions = Vec::new();
    let mut checked = Checked { states: 0, depth: 0, complete: true, broken: None, never: Vec::new() };
    for state in model.init_states() {
        let print = fingerprint(&state);
        if visited.insert(print, None) {
            queue.push_back((state, print, 0));
        }
    }
    while let Some((state, print, depth)) = queue.pop_front() {
        checked.depth = checked.depth.max(depth);
        never.retain(|p| !(p.condition)(model, &state));
        if let Some(broken) = always.iter().find(|p| !(p.condition)(model, &state)) {
            checked.broken = Some((broken.name, visited.way_to(model, print)));
            checked.complete = false;
            break;
        }
        if visited.len() >= most {
            checked.complete = false;
            break;
        }
        model.actions(&state, &mut actions);
        for action in actions.drain(..) {
            let Some(next) = model.next_state(&state, action) else { continue };
            let next_print = fingerprint(&next);
            if visited.insert(next_print, Some(print)) {
                queue.push_back((next, next_print, depth + 1));
            }
        }
    }
    checked.states = visited.len();
    checked.never = never.into_iter().map(|p| p.name).collect();
    checked
}

/// The fingerprints of the states seen, each with that of the state it was first reached from.
#[derive(Default)]
struct Visited(HashMap<u64, Option<u64>, BuildHasherDefault<Print>>);

impl Visited {
    fn insert(&mut self, print: u64, from: Option<u64>) -> bool {
        match self.0.entry(print) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(from);
                true
            }
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// The actions that led to a state, found again by going the same way.
    fn way_to<M: Model>(&self, model: &M, print: u64) -> Vec<M::Action> {
        let mut prints = vec![print];
        while let Some(Some(from)) = prints.last().and_then(|last| self.0.get(last)) {
            prints.push(*from);
        }
        let mut way = Vec::new();
        let first = prints.pop();
        let Some(mut state) = model.init_states().into_iter().find(|s| Some(fingerprint(s)) == first) else {
            return way;
        };
        while let Some(wanted) = prints.pop() {
            let mut actions = Vec::new();
            model.actions(&state, &mut actions);
            let step = actions.into_iter().find_map(|action| {
                let next = model.next_state(&state, action.clone())?;
                (fingerprint(&next) == wanted).then_some((action, next))
            });
            let Some((action, next)) = step else { return way };
            way.push(action);
            state = next;
        }
        way
    }
}

fn fingerprint(state: &impl Hash) -> u64 {
    let mut hasher = Mix::default();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Multiplies and folds, twice at the end: the same in every run, and quick on the small numbers that states are made of.
#[derive(Default)]
struct Mix(u64);

impl Mix {
    fn take(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
        self.0 = (wide as u64).rotate_left(29) ^ (wide >> 64) as u64;
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.take(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 59);
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.take(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.take(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.take(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.take(n as u64);
    }

    fn finish(&self) -> u64 {
        let mut last = Mix(self.0);
        last.take(0x2545_f491_4f6c_dd1d);
        last.take(0x9fb2_1c65_1e98_df25);
        last.0
    }
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Print(u64);

impl Hasher for Print {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters that go up to 9; the second may not reach 4 before the first is at 2.
    struct Counters {
        careful: bool,
    }

    impl Model for Counters {
        type State = (u8, u8);
        type Action = u8;

        fn init_states(&self) -> Vec<(u8, u8)> {
            vec![(0, 0)]
        }

        fn actions(&self, _: &(u8, u8), actions: &mut Vec<u8>) {
            actions.extend([0, 1]);
        }

        fn next_state(&self, &(a, b): &(u8, u8), action: u8) -> Option<(u8, u8)> {
            match action {
                0 => (a < 9).then_some((a + 1, b)),
                _ => (b < 9 && !(self.careful && b == 3 && a < 2)).then_some((a, b + 1)),
            }
        }

        fn properties(&self) -> Vec<Property<Self>> {
            vec![
                Property::always("in order", |_, (a, b)| *b < 4 || *a >= 2),
                Property::sometimes("both at the end", |_, s| *s == (9, 9)),
                Property::sometimes("beyond", |_, (a, _)| *a > 9),
            ]
        }
    }

    #[test]
    fn every_state_is_seen_once() {
        let checked = check(&Counters { careful: true }, 1_000);
        assert_eq!((checked.states, checked.depth, checked.complete), (100 - 2 * 6, 18, true));
        assert!(checked.broken.is_none(), "{}", checked.way());
        assert_eq!(checked.never, ["beyond"]);
        assert!(!check(&Counters { careful: true }, 50).complete);
    }

    #[test]
    fn the_shortest_way_to_a_broken_property_is_told() {
        let checked = check(&Counters { careful: false }, 1_000);
        assert_eq!(checked.broken, Some(("in order", vec![1, 1, 1, 1])));
        assert!(checked.way().contains("4. 1"));
    }
}
