//! A failing history made small.

use crate::plan::{Action, Plan};
use crate::play::{Violation, check};
use crate::statement::Statement;

/// At most so many histories are played to make one smaller.
const TRIES: usize = 1500;

/// The plan without all that the failure does without.
pub fn shrink(plan: &Plan, violation: Violation) -> (Plan, Violation) {
    let mut best = (plan.clone(), violation);
    let mut tries = TRIES;
    loop {
        let before = tries;
        let mut smaller = false;
        // Whole rounds, many at once at first.
        let mut size = best.0.rounds.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < best.0.rounds.len() {
                let mut plan = best.0.clone();
                let end = (at + size).min(plan.rounds.len());
                plan.rounds.drain(at..end);
                match attempt(plan, &mut tries) {
                    Some(found) => {
                        best = found;
                        smaller = true;
                    }
                    None => at += size,
                }
            }
            if size == 1 {
                break;
            }
            size /= 2;
        }
        for candidate in candidates(&best.0) {
            // What was made smaller may not fit what is left: asked of the plan as it is now.
            if let Some(plan) = candidate(&best.0)
                && let Some(found) = attempt(plan, &mut tries)
            {
                best = found;
                smaller = true;
            }
        }
        if !smaller || tries == 0 || before == tries {
            return best;
        }
    }
}

fn attempt(plan: Plan, tries: &mut usize) -> Option<(Plan, Violation)> {
    *tries = tries.checked_sub(1)?;
    check(&plan).err().map(|violation| (plan, *violation))
}

type Candidate = Box<dyn Fn(&Plan) -> Option<Plan>>;

/// Ways to take a little away.
fn candidates(plan: &Plan) -> Vec<Candidate> {
    let mut ways: Vec<Candidate> = vec![
        Box::new(|p| (p.nodes > 1).then(|| Plan { nodes: 1, ..p.clone() })),
        Box::new(|p| p.delays.then(|| Plan { delays: false, ..p.clone() })),
        Box::new(|p| p.segments.then(|| Plan { segments: false, ..p.clone() })),
    ];
    for (at, round) in plan.rounds.iter().enumerate().rev() {
        for (n, (_, action)) in round.actions.iter().enumerate().rev() {
            if round.actions.len() > 1 {
                ways.push(Box::new(move |p| {
                    let mut p = p.clone();
                    let actions = &mut p.rounds.get_mut(at)?.actions;
                    if n >= actions.len() || actions.len() < 2 {
                        return None;
                    }
                    actions.remove(n);
                    Some(p)
                }));
            }
            match action {
                Action::Statement(Statement::Transaction(statements)) => {
                    for inner in (0..statements.len()).rev() {
                        ways.push(Box::new(move |p| {
                            let mut p = p.clone();
                            match p.rounds.get_mut(at)?.actions.get_mut(n)? {
                                (_, Action::Statement(Statement::Transaction(all))) if inner < all.len() => {
                                    all.remove(inner);
                                }
                                _ => return None,
                            }
                            Some(p)
                        }));
                    }
                }
                Action::Statement(Statement::Insert(insert)) => {
                    for batch in 0..insert.batches.len() {
                        for row in (0..insert.batches[batch].len()).rev() {
                            ways.push(Box::new(move |p| {
                                let mut p = p.clone();
                                match p.rounds.get_mut(at)?.actions.get_mut(n)? {
                                    (_, Action::Statement(Statement::Insert(insert))) => {
                                        let rows = insert.batches.get_mut(batch)?;
                                        if row >= rows.len() {
                                            return None;
                                        }
                                        rows.remove(row);
                                    }
                                    _ => return None,
                                }
                                Some(p)
                            }));
                        }
                    }
                }
                Action::Compact { hold, .. } if *hold > 0 => ways.push(Box::new(move |p| {
                    let mut p = p.clone();
                    match p.rounds.get_mut(at)?.actions.get_mut(n)? {
                        (_, Action::Compact { hold, .. }) if *hold > 0 => *hold = 0,
                        _ => return None,
                    }
                    Some(p)
                })),
                _ => {}
            }
        }
    }
    ways
}
