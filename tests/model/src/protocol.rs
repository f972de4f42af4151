//! What may happen next, and what comes of it.

use crate::checker::{Model, Property};
use crate::properties;
use crate::state::{CLIENTS, Client, LATE, NODES, Node, Phase, Request, SEQS, State, What};
use crate::steps::Answer;

/// The bounds of a model, and what is taken from the protocol in it.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Nodes, at most [`NODES`].
    pub nodes: u8,
    /// Clients, at most [`CLIENTS`]. The first has a token of its own.
    pub clients: u8,
    /// What the second has.
    pub second: Token,
    /// How often those with a token of their own send their write, to any node, answered or not. Others send it once.
    pub sends: u8,
    /// Numbers that the log may reach, at most [`SEQS`].
    pub seqs: u8,
    /// Creates that may stay unanswered.
    pub unanswered: u8,
    pub crashes: u8,
    /// How often the table goes or comes back.
    pub toggles: u8,
    /// How many writes may be handed over.
    pub hands: u8,
    /// Whether the log is trimmed.
    pub trims: bool,
    /// Whether one node at a time writes: node 0, until another is promoted.
    pub single_primary: bool,
    pub weakening: Option<Weakening>,
}

/// By what a write is known when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    None,
    /// The client made it, and may send it to any node.
    Own,
    /// Its node made it, and nobody else has it.
    Minted,
}

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakening {
    /// Success is told when the create is sent.
    AckBeforeCreate,
    /// "Exists" is taken for another's commit, unread.
    ExistsIsLost,
    /// No answer is taken for another's commit, unread.
    UnknownIsLost,
    /// No answer is told as a rejection.
    UnknownIsRejected,
    /// No answer is taken for one's own commit, unread.
    UnknownIsCreated,
    /// No answer: the next number is tried.
    UnknownIsSkipped,
    /// What stands there is compared by its writer: after other bytes were sent at one seq, that is not enough.
    IdentityByWriter,
    /// The floor is not read after a create.
    NoFloorCheckAfterCreate,
    /// The floor is not read after a commit was found to be one's own.
    NoFloorCheckAfterReadBack,
    /// The floor is not read after another's commit was found where one's own was sent.
    NoFloorCheckAfterLoss,
    /// A write without a token is tried again after the log was trimmed past where it was sent.
    TriesAgainUntold,
    /// The floor is not read after a commit was read.
    NoFloorCheckInReader,
    /// The floor is read before a commit is, not after.
    FloorCheckBeforeRead,
    /// Log objects are deleted before the floor says so.
    DeletesBeforeFloor,
    /// Where a number is empty, the next is applied.
    SkipsHoles,
    /// Tokens are not looked at.
    NoTokenCheck,
    /// Checkpoints hold no tokens.
    TokensNotInCheckpoint,
    /// Epochs are not looked at, neither where a write is rebased nor where it is applied.
    NoEpochCheck,
    /// Whether a node takes writes is kept beside its state.
    RoleBesideState,
    /// A write without a token is handed over like others.
    HandsOverWithoutToken,
    /// A rejection is told though another node may still commit the write.
    RejectsInDoubt,
    /// So it is for the tokens that the node itself made, unbarred.
    NoBarrier,
    /// A client takes a rejection for the last word on its write, although another try of it is still open.
    RejectionEndsAllTries,
}

/// One request to the store, or one thing said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client sends its write to a node.
    Send { client: u8, node: u8 },
    /// An operator has a node promoted by force.
    Promote { node: u8 },
    /// A commit is created, and the store answers.
    Create { node: u8 },
    /// A commit is sent to be created, and the answer is lost or never comes.
    CreateUnanswered { node: u8 },
    /// A create that nobody waits for takes effect.
    Land { late: u8 },
    /// A node reads what stands where it does not know what became of its commit.
    ReadBack { node: u8 },
    /// A node reads the floor, and acts on all that it knows by then.
    ReadFloor { node: u8 },
    /// A node tells that the outcome is unknown.
    GiveUp { node: u8 },
    /// A node reads the commit that follows what it has applied.
    ReadNext { node: u8 },
    /// A node applies what another has applied before.
    Push { from: u8, to: u8 },
    /// A node takes note of who is the primary.
    Notice { node: u8 },
    /// The collector says what it will delete.
    RaiseFloor,
    /// The collector deletes an object of the log.
    Delete { seq: u8 },
    /// A node dies, and begins anew.
    Crash { node: u8 },
    /// A node is asked to let the table go, or come back.
    Toggle { node: u8 },
    /// A node hands a write over.
    HandOver { from: u8, to: u8 },
    /// What was handed over arrives.
    Deliver,
    /// A node waits no longer for what the other says.
    Doubt { node: u8 },
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let nodes = std::array::from_fn(|i| Node {
            applied: [None; SEQS],
            phase: Phase::Idle,
            made: 0,
            writes: !self.single_primary || i == 0,
            forgot: 0,
            stopped: false,
        });
        vec![State {
            objects: [None; SEQS],
            truth: [None; SEQS],
            floor: 0,
            late: [None; LATE],
            unanswered: 0,
            crashes: 0,
            toggles: 0,
            handed: 0,
            mail: None,
            by_deputy: false,
            nodes,
            clients: [Client::default(); CLIENTS],
            reopened: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for node in 0..self.nodes.min(NODES as u8) {
            let present = &state.nodes[usize::from(node)];
            if present.stopped {
                continue;
            }
            actions.extend((0..self.clients.min(CLIENTS as u8)).map(|client| Action::Send { client, node }));
            if self.single_primary && node != 0 {
                actions.push(Action::Promote { node });
            }
            if state.toggles < self.toggles {
                actions.push(Action::Toggle { node });
            }
            if matches!(present.phase, Phase::Ready(_)) && state.handed < self.hands {
                actions.extend(
                    (0..self.nodes).filter(|&to| to != node).map(|to| Action::HandOver { from: node, to }),
                );
            }
            match present.phase {
                Phase::Handed(_) => actions.push(Action::Doubt { node }),
                Phase::Ready(_) | Phase::Again(..) => {
                    actions.push(Action::Create { node });
                    if state.unanswered < self.unanswered {
                        actions.push(Action::CreateUnanswered { node });
                    }
                }
                Phase::Unknown(..) => actions.push(Action::ReadBack { node }),
                Phase::Found(..) if self.lacks(Weakening::FloorCheckBeforeRead) => {}
                Phase::Created(..) | Phase::Absent(..) | Phase::Theirs(_) | Phase::Found(..) => {
                    actions.push(Action::ReadFloor { node })
                }
                Phase::Idle | Phase::Behind(_) => {}
            }
            if matches!(present.phase, Phase::Again(..)) {
                actions.push(Action::GiveUp { node });
            }
            // Who has nothing in hand, and reads that there is nothing new, is where it was.
            let news = state.object(present.seq() + 1).is_some() || usize::from(state.floor) > present.seq();
            if self.looks(node, present).is_some_and(|request| request.is_some() || news) {
                actions.push(Action::ReadNext { node });
            }
            actions
                .extend((0..self.nodes).filter(|&to| to != node).map(|to| Action::Push { from: node, to }));
            if self.lacks(Weakening::RoleBesideState) {
                actions.push(Action::Notice { node });
            }
            if state.crashes < self.crashes {
                actions.push(Action::Crash { node });
            }
        }
        actions.extend((0u8..).zip(&state.late).filter_map(|(late, l)| l.map(|_| Action::Land { late })));
        if state.mail.is_some() {
            actions.push(Action::Deliver);
        }
        if self.trims {
            actions.push(Action::RaiseFloor);
            actions.extend((1..=self.seqs).map(|seq| Action::Delete { seq }));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let s = &mut next;
        match action {
            Action::Send { client, node } => self.send(s, client, node)?,
            Action::Promote { node } => {
                let view = self.view(&s.nodes[usize::from(node)]);
                let target = &mut s.nodes[usize::from(node)];
                if target.phase != Phase::Idle || view.epoch != 1 || target.made > 0 {
                    return None;
                }
                target.phase = Phase::Ready(Request::new(What::Promotion { epoch: 2 }));
            }
            Action::Create { node } => self.create(s, node, true)?,
            Action::CreateUnanswered { node } => self.create(s, node, false)?,
            Action::Land { late } => {
                let (seq, commit) = s.late[usize::from(late)].take()?;
                s.put(seq, commit);
                s.late
                    .sort_unstable_by_key(|late| late.map_or((u8::MAX, 0), |(seq, commit)| (seq, commit.id)));
            }
            Action::ReadBack { node } => self.read_back(s, node)?,
            Action::ReadFloor { node } => self.read_floor(s, node)?,
            Action::GiveUp { node } => {
                let Phase::Again(request, _) = s.nodes[usize::from(node)].phase else { return None };
                s.nodes[usize::from(node)].phase = Phase::Idle;
                self.answer(s, node, request, Answer::Unknown);
            }
            Action::ReadNext { node } => self.read_next(s, node)?,
            Action::Push { from, to } => self.push(s, from, to)?,
            Action::Notice { node } => {
                s.nodes[usize::from(node)].writes = self.is_writer(node, &s.nodes[usize::from(node)]);
            }
            Action::RaiseFloor => self.raise_floor(s)?,
            Action::Delete { seq } => self.delete(s, seq)?,
            Action::Crash { node } => {
                s.crashes += 1;
                self.start_over(s, node);
            }
            Action::Toggle { node } => {
                let target = s.nodes[usize::from(node)];
                if target.phase != Phase::Idle || !self.writes(node, &target) {
                    return None;
                }
                s.toggles += 1;
                s.nodes[usize::from(node)].phase = Phase::Ready(Request::new(What::Toggle));
            }
            Action::HandOver { from, to } => self.hand_over(s, from, to)?,
            Action::Deliver => Self::deliver(s)?,
            Action::Doubt { node } => {
                let Phase::Handed(request) = s.nodes[usize::from(node)].phase else { return None };
                s.nodes[usize::from(node)].phase = Phase::Ready(Request { doubt: true, ..request });
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
