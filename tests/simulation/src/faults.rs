//! What befalls a call of the store.

use std::time::Duration;

use crate::plan::Flavour;
use crate::scripts::Way;
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    FailBefore,
    /// It is done, and its answer is lost.
    FailAfter,
    Throttle,
    /// S3's 409: it says "exists", and nothing is done.
    Conflict,
    /// It times out, and is done later.
    Late,
    /// It is done, with a changed byte.
    Damage,
}

impl Fault {
    /// What a call meets that goes wrong in this way; the rest befalls its process.
    fn of_way(way: Way) -> Option<Self> {
        match way {
            Way::FailBefore => Some(Self::FailBefore),
            Way::FailAfter => Some(Self::FailAfter),
            Way::Conflict => Some(Self::Conflict),
            Way::TimeOut => Some(Self::Late),
            Way::CrashBefore | Way::CrashAfter | Way::Pause => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// Until it is done, and from then on until its answer is there.
    pub before: Duration,
    pub after: Duration,
    pub fault: Option<Fault>,
}

impl Fate {
    fn of(world: &World, path: &str, kinds: &[Fault]) -> Self {
        // Where much is to be deleted, only commits are slow: else there would be too few checkpoints to delete behind.
        let hard = world.plan.flavour == Flavour::Trimmed;
        let may_be_slow = !hard || path.ends_with(".commit");
        let slow = |world: &World| !world.is_calm() && may_be_slow && world.share(world.plan.slow);
        let time = |world: &World| match slow(world) {
            true => world.millis(500, 6000),
            false => world.millis(1, 12),
        };
        let (before, after) = (time(world), time(world));
        let faulty = !world.is_calm() && world.share(world.plan.faults);
        let fault = faulty.then(|| kinds.get(world.below(kinds.len() as u64) as usize).copied()).flatten();
        Self { before, after, fault }
    }

    pub fn of_read(world: &World, path: &str, way: Option<Way>) -> Self {
        let mut fate = Self::of(world, path, &[Fault::FailBefore, Fault::Throttle]);
        // Whether it was done or not makes no difference.
        let fails = way.filter(|way| Fault::of_way(*way).is_some());
        fate.fault = fate.fault.or(fails.map(|_| Fault::FailBefore));
        fate
    }

    pub fn of_put(world: &World, path: &str, way: Option<Way>) -> Self {
        use Fault::{Conflict, FailAfter, FailBefore, Late, Throttle};
        let mut fate =
            Self::of(world, path, &[FailBefore, FailAfter, FailAfter, Throttle, Conflict, Late, Late]);
        let spoils = path.starts_with("checkpoint/") && !world.is_calm() && world.share(world.plan.damage);
        fate.fault = fate.fault.or(way.and_then(Fault::of_way));
        if fate.fault.is_none() && spoils {
            fate.fault = Some(Fault::Damage);
        }
        fate
    }
}
