//! What the world looks like at one moment.

/// Numbers that the log of the model has: `log/1` to `log/4`.
pub const SEQS: usize = 4;

/// Nodes and clients, at most.
pub const NODES: usize = 3;
pub const CLIENTS: usize = 2;

/// Requests that may be on their way without anybody waiting for them, at most.
pub const LATE: usize = 2;

/// Places of the log, from seq 1 on.
pub type Places = [Option<Commit>; SEQS];

/// One commit, of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// No two commits share one. It stands for the header's hash, too.
    pub id: u8,
    pub writer: u8,
    /// The id of the commit that it was made on; 0: none.
    pub previous: u8,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// A client's write, in the epoch that its node stamped on it.
    Write { client: u8, epoch: u8 },
    /// Its writer is the primary from here on, in this epoch.
    Promotion { epoch: u8 },
    /// The table that all write to goes, or comes back.
    Toggle,
    /// Nothing, but that the client's token is settled from here on.
    Barrier { client: u8 },
}

/// What a node has in hand. The epoch in it means nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    pub what: What,
    /// The node that handed it over.
    pub from: Option<u8>,
    /// It was handed over, and nobody told what became of that.
    pub doubt: bool,
    /// The seq at which the node that it was handed to says that it is committed; 0: none.
    pub told: u8,
}

impl Request {
    pub fn new(what: What) -> Self {
        Self { what, from: None, doubt: false, told: 0 }
    }
}

/// Where a node's commit task stands, between two requests to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Idle,
    /// To be rebased, and then created.
    Ready(Request),
    /// The store said that it created this. The floor is to be read.
    Created(Request, Commit),
    /// The store said something else, or nothing. The seq is to be read.
    Unknown(Request, Commit),
    /// Nothing stood there. The floor is to be read.
    Absent(Request, Commit),
    /// Another's commit stood there. The floor is to be read.
    Theirs(Request),
    /// The same bytes are to be created again.
    Again(Request, Commit),
    /// The seq is another's, or the end of the log is to be shown. The next commit is to be read.
    Behind(Request),
    /// This stood at the next seq. The floor is to be read.
    Found(Option<Request>, Option<Commit>),
    /// Handed over; the answer is awaited.
    Handed(Request),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// The commits that it applied, in its order.
    pub applied: Places,
    pub phase: Phase,
    /// Commits that it made in all its lives; its next commit's id follows from it.
    pub made: u8,
    /// Whether it takes writes; beside the state only where that is a weakening.
    pub writes: bool,
    /// Tokens of commits up to here are not known to it.
    pub forgot: u8,
    /// It found a log that does not continue what it had applied.
    pub stopped: bool,
}

impl Node {
    /// The seq up to which it has applied the log.
    pub fn seq(&self) -> usize {
        self.applied.iter().take_while(|place| place.is_some()).count()
    }

    /// The id of the newest commit that it applied.
    pub fn head(&self) -> u8 {
        self.applied.iter().flatten().last().map_or(0, |commit| commit.id)
    }
}

/// What one client did and was told. It has one write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    pub sent: u8,
    /// How many of them may still be carried out, as far as it was told.
    pub open: u8,
    /// The seq that it was told; 0: none.
    pub acked: u8,
    /// It was told two seqs.
    pub torn: bool,
    /// It was told that its write is not, and will not be, in the log.
    pub rejected: bool,
    /// It was told that nobody knows.
    pub unknown: bool,
    /// It was told to send its write to the primary.
    pub refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The objects of the log.
    pub objects: Places,
    /// What was created first at each number: the log, whatever is deleted and created later.
    pub truth: Places,
    /// The highest number that may have been deleted.
    pub floor: u8,
    /// Creates that have not reached the store yet, and will at any time or never.
    pub late: [Option<(u8, Commit)>; LATE],
    /// Creates that were ever left without an answer.
    pub unanswered: u8,
    pub crashes: u8,
    pub toggles: u8,
    pub handed: u8,
    /// What was handed over and has not arrived yet, and may never; and at which node.
    pub mail: Option<(u8, Request)>,
    /// A handed-over write was acknowledged by the node that handed it over, because the other had said so.
    pub by_deputy: bool,
    pub nodes: [Node; NODES],
    pub clients: [Client; CLIENTS],
    /// A create was told to have happened where the log had been trimmed.
    pub reopened: bool,
}

impl State {
    /// The log's length.
    pub fn head(&self) -> usize {
        self.truth.iter().take_while(|place| place.is_some()).count()
    }

    /// Puts an object if there is none; whether there was none.
    pub fn put(&mut self, seq: u8, commit: Commit) -> bool {
        let place = usize::from(seq) - 1;
        if self.objects[place].is_some() {
            return false;
        }
        self.objects[place] = Some(commit);
        self.truth[place] = self.truth[place].or(Some(commit));
        true
    }

    /// What stands at a number; nothing beyond the last one.
    pub fn object(&self, seq: usize) -> Option<Commit> {
        self.objects.get(seq.wrapping_sub(1)).copied().flatten()
    }

    pub fn acknowledge(&mut self, client: u8, seq: u8) {
        let client = &mut self.clients[usize::from(client)];
        client.torn |= client.acked != 0 && client.acked != seq;
        client.acked = if client.acked == 0 { seq } else { client.acked };
    }
}
