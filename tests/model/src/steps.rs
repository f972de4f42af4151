//! What nodes do with what they have in hand: one request to the store, or one thing heard, at a time.

use crate::fold::{View, fold};
use crate::protocol::{Protocol, Token, Weakening};
use crate::state::{Commit, Node, Phase, Request, SEQS, State, What};

/// What a node makes of a request on top of its state.
pub(crate) enum Rebased {
    Commit(Commit),
    /// In force already, at this seq.
    Duplicate(u8),
    /// Not by this node.
    Refused,
    /// Not at all.
    Rejected,
    /// Not by this node; what another does with it, nobody knows.
    Open,
}

/// What became of a request.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Committed(u8),
    Refused,
    Rejected,
    Unknown,
}

impl Protocol {
    /// Whether this rule is left out.
    pub fn lacks(&self, weakening: Weakening) -> bool {
        self.weakening == Some(weakening)
    }

    /// By what a client's write is known.
    pub fn token(&self, client: u8) -> Token {
        if client == 0 { Token::Own } else { self.second }
    }

    pub fn has_token(&self, client: u8) -> bool {
        self.token(client) != Token::None
    }

    /// What a node knows.
    pub fn view(&self, node: &Node) -> View {
        fold(self, &node.applied, node.forgot)
    }

    pub(crate) fn is_writer(&self, index: u8, node: &Node) -> bool {
        let view = self.view(node);
        !self.single_primary || view.primary == Some(index)
    }

    pub(crate) fn rebase(&self, index: u8, node: &Node, request: Request) -> Rebased {
        let view = self.view(node);
        let what = match request.what {
            What::Write { client, .. } => match self.rebase_write(index, node, &view, request, client) {
                Ok(what) => what,
                Err(decided) => return decided,
            },
            What::Promotion { epoch } if epoch != view.epoch + 1 => return Rebased::Refused,
            What::Toggle if !self.writes(index, node) => return Rebased::Refused,
            what => what,
        };
        let id = index * 64 + node.made + 1;
        Rebased::Commit(Commit { id, writer: index, previous: node.head(), what })
    }

    pub(crate) fn rebase_write(
        &self,
        index: u8,
        node: &Node,
        view: &View,
        request: Request,
        client: u8,
    ) -> Result<What, Rebased> {
        let c = usize::from(client);
        if view.known[c] != 0 {
            return Err(Rebased::Duplicate(view.known[c]));
        }
        if view.settled[c] && !self.lacks(Weakening::NoTokenCheck) {
            return Err(Rebased::Rejected);
        }
        if !self.writes(index, node) && !self.lacks(Weakening::NoEpochCheck) {
            return Err(if request.doubt { Rebased::Open } else { Rebased::Refused });
        }
        if !view.closed {
            return Ok(What::Write { client, epoch: view.epoch });
        }
        match (request.doubt, self.token(client)) {
            (false, _) => Err(Rebased::Rejected),
            (true, Token::Minted) if !self.lacks(Weakening::NoBarrier) => Ok(What::Barrier { client }),
            (true, Token::Minted) => Err(Rebased::Rejected),
            (true, _) if self.lacks(Weakening::RejectsInDoubt) => Err(Rebased::Rejected),
            (true, _) => Err(Rebased::Open),
        }
    }

    /// Whether a node commits what clients send.
    pub(crate) fn writes(&self, index: u8, node: &Node) -> bool {
        if self.lacks(Weakening::RoleBesideState) { node.writes } else { self.is_writer(index, node) }
    }

    /// Tells whoever sent it what became of a request.
    pub(crate) fn answer(&self, state: &mut State, index: u8, request: Request, answer: Answer) {
        let What::Write { client, .. } = request.what else { return };
        let Some(from) = request.from else {
            return self.tell(state, client, answer);
        };
        let source = usize::from(from);
        // Nobody waits for it any more: it is lost.
        let Phase::Handed(handed) = state.nodes[source].phase else { return };
        debug_assert_ne!(from, index);
        state.nodes[source].phase = match answer {
            Answer::Committed(seq) => {
                state.nodes[source].phase = Phase::Behind(Request { told: seq, ..handed });
                return self.judge(state, from);
            }
            // Turned away: free again.
            Answer::Refused => Phase::Ready(handed),
            Answer::Rejected => {
                self.tell(state, client, Answer::Rejected);
                Phase::Idle
            }
            Answer::Unknown => Phase::Ready(Request { doubt: true, ..handed }),
        };
    }

    pub(crate) fn tell(&self, state: &mut State, client: u8, answer: Answer) {
        let told = &mut state.clients[usize::from(client)];
        match answer {
            Answer::Committed(seq) => state.acknowledge(client, seq),
            Answer::Refused => (told.open, told.refused) = (told.open - 1, true),
            Answer::Rejected => {
                told.open -= 1;
                // While another try is open, that this one failed says nothing of the write.
                told.rejected |= told.open == 0 || self.lacks(Weakening::RejectionEndsAllTries);
            }
            Answer::Unknown => told.unknown = true,
        }
    }

    /// Of what was handed over, the state here is the judge, once it has come so far.
    pub(crate) fn judge(&self, state: &mut State, index: u8) {
        let i = usize::from(index);
        let (Phase::Behind(request) | Phase::Ready(request)) = state.nodes[i].phase else { return };
        let What::Write { client, .. } = request.what else { return };
        if request.told == 0 || state.nodes[i].seq() < usize::from(request.told) {
            return;
        }
        let known = self.view(&state.nodes[i]).known[usize::from(client)];
        if known == 0 {
            state.nodes[i].phase = Phase::Ready(Request { doubt: true, told: 0, ..request });
        } else {
            state.nodes[i].phase = Phase::Idle;
            state.by_deputy = true;
            self.tell(state, client, Answer::Committed(known));
        }
    }

    /// The node applies a commit at the seq that follows its own.
    pub(crate) fn apply(&self, state: &mut State, index: u8, commit: Commit) {
        let node = &mut state.nodes[usize::from(index)];
        if commit.previous != node.head() {
            node.stopped = true;
            return;
        }
        let seq = node.seq();
        node.applied[seq] = Some(commit);
        if !self.lacks(Weakening::RoleBesideState) {
            let writes = self.is_writer(index, &state.nodes[usize::from(index)]);
            state.nodes[usize::from(index)].writes = writes;
        }
    }

    /// A process begins, from the newest checkpoint.
    pub(crate) fn start_over(&self, state: &mut State, index: u8) {
        let floor = usize::from(state.floor);
        let mut applied = [None; SEQS];
        applied[..floor].copy_from_slice(&state.truth[..floor]);
        let node = &mut state.nodes[usize::from(index)];
        node.applied = applied;
        node.phase = Phase::Idle;
        node.forgot = if self.lacks(Weakening::TokensNotInCheckpoint) { state.floor } else { 0 };
        let writes = self.is_writer(index, &state.nodes[usize::from(index)]);
        state.nodes[usize::from(index)].writes = writes;
    }

    /// The commit that the node would create now, and at which number.
    pub(crate) fn proposal(&self, index: u8, node: &Node) -> Option<(Request, u8, Commit, bool)> {
        let seq = u8::try_from(node.seq()).ok()? + 1;
        let (request, commit, fresh) = match node.phase {
            Phase::Ready(request) => match self.rebase(index, node, request) {
                Rebased::Commit(commit) => (request, commit, true),
                _ => return None,
            },
            Phase::Again(request, commit) => (request, commit, false),
            _ => return None,
        };
        (seq <= self.seqs).then_some((request, seq, commit, fresh))
    }

    pub(crate) fn create(&self, state: &mut State, index: u8, answered: bool) -> Option<()> {
        let i = usize::from(index);
        let (request, seq, commit, fresh) = self.proposal(index, &state.nodes[i])?;
        state.nodes[i].made += u8::from(fresh);
        if self.lacks(Weakening::AckBeforeCreate)
            && let What::Write { client, .. } = request.what
        {
            state.acknowledge(client, seq);
        }
        let unknown = Phase::Unknown(request, commit);
        state.nodes[i].phase = if answered {
            match state.put(seq, commit) {
                true => Phase::Created(request, commit),
                false if self.lacks(Weakening::ExistsIsLost) => Phase::Behind(request),
                false => unknown,
            }
        } else {
            let free = state.late.iter().position(Option::is_none)?;
            state.late[free] = Some((seq, commit));
            // Two orders of the same requests are one state.
            state
                .late
                .sort_unstable_by_key(|late| late.map_or((u8::MAX, 0), |(seq, commit)| (seq, commit.id)));
            state.unanswered += 1;
            match self.weakening {
                Some(Weakening::UnknownIsLost) => Phase::Behind(request),
                Some(Weakening::UnknownIsCreated) => Phase::Created(request, commit),
                Some(Weakening::UnknownIsSkipped) => {
                    self.apply(state, index, commit);
                    Phase::Ready(request)
                }
                Some(Weakening::UnknownIsRejected) => {
                    self.answer(state, index, request, Answer::Rejected);
                    Phase::Idle
                }
                _ => unknown,
            }
        };
        if matches!(state.nodes[i].phase, Phase::Created(..))
            && self.lacks(Weakening::NoFloorCheckAfterCreate)
        {
            self.committed(state, index);
        }
        Some(())
    }

    /// The node's commit is in the log.
    pub(crate) fn committed(&self, state: &mut State, index: u8) {
        let i = usize::from(index);
        let Phase::Created(request, commit) = state.nodes[i].phase else { return };
        state.nodes[i].phase = Phase::Idle;
        self.apply(state, index, commit);
        let seq = u8::try_from(state.nodes[i].seq()).unwrap_or(u8::MAX);
        let barred = matches!(commit.what, What::Barrier { .. });
        self.answer(state, index, request, if barred { Answer::Rejected } else { Answer::Committed(seq) });
    }

    pub(crate) fn read_back(&self, state: &mut State, index: u8) -> Option<()> {
        let i = usize::from(index);
        let Phase::Unknown(request, commit) = state.nodes[i].phase else { return None };
        let mine = |found: Commit| match self.lacks(Weakening::IdentityByWriter) {
            true => found.writer == index,
            false => found.id == commit.id,
        };
        state.nodes[i].phase = match state.object(state.nodes[i].seq() + 1) {
            Some(found) if mine(found) => Phase::Created(request, commit),
            Some(_) if self.lacks(Weakening::NoFloorCheckAfterLoss) => Phase::Behind(request),
            Some(_) => Phase::Theirs(request),
            None => Phase::Absent(request, commit),
        };
        if matches!(state.nodes[i].phase, Phase::Created(..))
            && self.lacks(Weakening::NoFloorCheckAfterReadBack)
        {
            self.committed(state, index);
        }
        Some(())
    }

    pub(crate) fn read_floor(&self, state: &mut State, index: u8) -> Option<()> {
        let i = usize::from(index);
        let trimmed = usize::from(state.floor) > state.nodes[i].seq();
        match state.nodes[i].phase {
            Phase::Created(request, _) | Phase::Absent(request, _) | Phase::Theirs(request) if trimmed => {
                state.reopened = true;
                self.start_over(state, index);
                // It may have been committed before, which its token tells, if it has one.
                let told = match request.what {
                    What::Write { client, .. } => self.has_token(client),
                    _ => false,
                };
                if told || self.lacks(Weakening::TriesAgainUntold) {
                    state.nodes[i].phase = Phase::Ready(request);
                } else {
                    self.answer(state, index, request, Answer::Unknown);
                }
            }
            Phase::Found(request, _) if trimmed => {
                self.start_over(state, index);
                // What was in hand is in no log.
                if let Some(request) = request {
                    let judged = request.told != 0;
                    state.nodes[i].phase =
                        if judged { Phase::Behind(request) } else { Phase::Ready(request) };
                    self.judge(state, index);
                }
            }
            Phase::Created(..) => self.committed(state, index),
            Phase::Absent(request, commit) => state.nodes[i].phase = Phase::Again(request, commit),
            Phase::Theirs(request) => state.nodes[i].phase = Phase::Behind(request),
            Phase::Found(request, Some(found)) => self.found(state, index, request, found),
            Phase::Found(request, None) => self.at_the_end(state, index, request),
            _ => return None,
        }
        Some(())
    }

    pub(crate) fn found(&self, state: &mut State, index: u8, request: Option<Request>, found: Commit) {
        state.nodes[usize::from(index)].phase = match request {
            None => Phase::Idle,
            Some(request) if request.told != 0 => Phase::Behind(request),
            Some(request) => Phase::Ready(request),
        };
        self.apply(state, index, found);
        self.judge(state, index);
    }

    /// The log ends here: what was decided without a commit can be answered.
    pub(crate) fn at_the_end(&self, state: &mut State, index: u8, request: Option<Request>) {
        let i = usize::from(index);
        state.nodes[i].phase = Phase::Idle;
        let Some(request) = request else { return };
        let answer = match self.rebase(index, &state.nodes[i], request) {
            Rebased::Commit(_) => {
                state.nodes[i].phase = Phase::Ready(Request { told: 0, ..request });
                return;
            }
            Rebased::Duplicate(seq) => Answer::Committed(seq),
            Rebased::Refused => Answer::Refused,
            Rebased::Rejected => Answer::Rejected,
            Rebased::Open => Answer::Unknown,
        };
        self.answer(state, index, request, answer);
    }

    pub(crate) fn read_next(&self, state: &mut State, index: u8) -> Option<()> {
        let i = usize::from(index);
        let request = self.looks(index, &state.nodes[i])?;
        let next = state.nodes[i].seq() + 1;
        let found = state.object(next);
        if self.lacks(Weakening::SkipsHoles)
            && found.is_none()
            && let Some(beyond) = state.object(next + 1)
        {
            self.found(state, index, request, beyond);
            return Some(());
        }
        let checked_before = self.lacks(Weakening::FloorCheckBeforeRead);
        if checked_before && !matches!(state.nodes[i].phase, Phase::Found(..)) {
            // What is found here is looked at again, after the floor.
            if usize::from(state.floor) >= next {
                self.start_over(state, index);
            } else {
                state.nodes[i].phase = Phase::Found(request, None);
            }
            return Some(());
        }
        state.nodes[i].phase = Phase::Found(request, found);
        if checked_before || self.lacks(Weakening::NoFloorCheckInReader) {
            match found {
                Some(found) => self.found(state, index, request, found),
                None => self.at_the_end(state, index, request),
            }
        }
        Some(())
    }

    /// Whether the node may read on, and with what in hand.
    pub(crate) fn looks(&self, index: u8, node: &Node) -> Option<Option<Request>> {
        match node.phase {
            Phase::Idle => Some(None),
            Phase::Behind(request) => Some(Some(request)),
            Phase::Ready(request) => match self.rebase(index, node, request) {
                Rebased::Commit(_) => None,
                _ => Some(Some(request)),
            },
            Phase::Found(request, _) if self.lacks(Weakening::FloorCheckBeforeRead) => Some(request),
            _ => None,
        }
    }

    pub(crate) fn push(&self, state: &mut State, from: u8, to: u8) -> Option<()> {
        let (source, target) = (state.nodes[usize::from(from)], state.nodes[usize::from(to)]);
        let commit = source.applied.get(target.seq()).copied().flatten()?;
        // What does not continue the state here is not applied; the store knows.
        if commit.previous != target.head() {
            return None;
        }
        let request = match target.phase {
            Phase::Idle => None,
            Phase::Ready(request) | Phase::Behind(request) => Some(request),
            Phase::Handed(_) => {
                self.apply(state, to, commit);
                return Some(());
            }
            _ => return None,
        };
        self.found(state, to, request, commit);
        Some(())
    }

    pub(crate) fn send(&self, state: &mut State, client: u8, node: u8) -> Option<()> {
        let c = usize::from(client);
        let target = state.nodes[usize::from(node)];
        let sends = if self.token(client) == Token::Own { self.sends } else { 1 };
        let done = state.clients[c].rejected || state.clients[c].sent >= sends;
        if target.phase != Phase::Idle || !self.writes(node, &target) || done {
            return None;
        }
        state.clients[c].sent += 1;
        state.clients[c].open += 1;
        state.nodes[usize::from(node)].phase = Phase::Ready(Request::new(What::Write { client, epoch: 0 }));
        Some(())
    }

    pub(crate) fn hand_over(&self, state: &mut State, from: u8, to: u8) -> Option<()> {
        let Phase::Ready(request) = state.nodes[usize::from(from)].phase else { return None };
        let What::Write { client, .. } = request.what else { return None };
        let known = self.has_token(client) || self.lacks(Weakening::HandsOverWithoutToken);
        // One unanswered copy is enough, and nobody passes on what was handed to him.
        if !known || request.from.is_some() || request.doubt || state.mail.is_some() {
            return None;
        }
        if state.handed >= self.hands {
            return None;
        }
        state.handed += 1;
        state.nodes[usize::from(from)].phase = Phase::Handed(request);
        state.mail = Some((to, Request { from: Some(from), ..request }));
        Some(())
    }

    pub(crate) fn deliver(state: &mut State) -> Option<()> {
        let (to, request) = state.mail?;
        let target = &mut state.nodes[usize::from(to)];
        if target.phase != Phase::Idle {
            return None;
        }
        target.phase = Phase::Ready(request);
        state.mail = None;
        Some(())
    }

    pub(crate) fn raise_floor(&self, state: &mut State) -> Option<()> {
        // A checkpoint is of a state that a node has applied.
        let newest = state.nodes.iter().map(Node::seq).max()?.min(state.head());
        if usize::from(state.floor) >= newest {
            return None;
        }
        if self.lacks(Weakening::DeletesBeforeFloor) && state.objects[usize::from(state.floor)].is_some() {
            return None;
        }
        state.floor += 1;
        Some(())
    }

    pub(crate) fn delete(&self, state: &mut State, seq: u8) -> Option<()> {
        let early = u8::from(self.lacks(Weakening::DeletesBeforeFloor));
        let applied = state.nodes.iter().any(|node| node.seq() >= usize::from(seq));
        let place = usize::from(seq) - 1;
        // Once each: what was created anew stays, as the worst that can happen to a reader.
        if seq > state.floor + early || !applied || state.objects[place] != state.truth[place] {
            return None;
        }
        state.objects[place].take().map(|_| ())
    }
}
