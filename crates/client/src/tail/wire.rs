//! Messages between followers and upstreams: protobuf in a FlightData's `app_metadata`, a commit's bytes in its body.
//!
//! No public promise: nodes of one database run versions that know each other.

use arrow_flight::{FlightData, FlightDescriptor};
use prost::Message;
use tandem_types::{DatabaseId, Result, Seq, WriterId};

use super::{Follow, Progress, Push, Scope, TAIL_PATH, garbled};

#[derive(Clone, PartialEq, Message)]
struct FollowMessage {
    #[prost(bytes = "vec", tag = "1")]
    database: Vec<u8>,
    #[prost(uint64, tag = "2")]
    applied: u64,
    #[prost(bytes = "vec", tag = "3")]
    header_hash: Vec<u8>,
    #[prost(string, tag = "4")]
    node_id: String,
    #[prost(fixed64, tag = "5")]
    incarnation: u64,
    #[prost(string, optional, tag = "6")]
    address: Option<String>,
    #[prost(bool, tag = "7")]
    replica: bool,
    #[prost(bool, tag = "8")]
    own_commits_only: bool,
    #[prost(bool, tag = "9")]
    heads_only: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PushMessage {
    #[prost(oneof = "PushKind", tags = "1, 2")]
    kind: Option<PushKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PushKind {
    #[prost(message, tag = "1")]
    Commit(CommitMessage),
    #[prost(uint64, tag = "2")]
    Head(u64),
}

#[derive(Clone, PartialEq, Message)]
struct CommitMessage {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(bool, tag = "2")]
    whole: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ProgressMessage {
    #[prost(message, repeated, tag = "1")]
    applied: Vec<AppliedMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct AppliedMessage {
    #[prost(fixed64, tag = "1")]
    incarnation: u64,
    #[prost(uint64, tag = "2")]
    seq: u64,
}

fn message(metadata: &impl Message) -> FlightData {
    FlightData { app_metadata: metadata.encode_to_vec().into(), ..FlightData::default() }
}

impl Follow {
    /// The first message of the exchange, with its descriptor.
    pub fn to_message(&self) -> FlightData {
        let follow = FollowMessage {
            database: self.database.0.to_be_bytes().to_vec(),
            applied: self.applied.0,
            header_hash: self.header_hash.to_vec(),
            node_id: self.node_id.clone(),
            incarnation: self.incarnation.0,
            address: self.address.clone(),
            replica: self.replica,
            own_commits_only: self.scope == Scope::Own,
            heads_only: self.scope == Scope::Heads,
        };
        let path = TAIL_PATH.map(str::to_owned).to_vec();
        FlightData { flight_descriptor: Some(FlightDescriptor::new_path(path)), ..message(&follow) }
    }

    pub fn from_message(message: &FlightData) -> Result<Self> {
        let bad = || garbled("the request to follow");
        let follow = FollowMessage::decode(message.app_metadata.as_ref()).map_err(|_| bad())?;
        let database = follow.database.as_slice().try_into().map_err(|_| bad())?;
        Ok(Self {
            database: DatabaseId(u128::from_be_bytes(database)),
            applied: Seq(follow.applied),
            header_hash: follow.header_hash.as_slice().try_into().map_err(|_| bad())?,
            node_id: follow.node_id,
            incarnation: WriterId(follow.incarnation),
            address: follow.address,
            replica: follow.replica,
            scope: match (follow.heads_only, follow.own_commits_only) {
                (true, _) => Scope::Heads,
                (false, true) => Scope::Own,
                (false, false) => Scope::All,
            },
        })
    }
}

impl Push {
    pub fn to_message(self) -> FlightData {
        match self {
            Self::Commit { seq, object, whole } => {
                let kind = Some(PushKind::Commit(CommitMessage { seq: seq.0, whole }));
                FlightData { data_body: object, ..message(&PushMessage { kind }) }
            }
            Self::Head(seq) => message(&PushMessage { kind: Some(PushKind::Head(seq.0)) }),
        }
    }

    pub fn from_message(message: FlightData) -> Result<Self> {
        let push =
            PushMessage::decode(message.app_metadata.as_ref()).map_err(|_| garbled("a pushed commit"))?;
        match push.kind {
            Some(PushKind::Commit(commit)) => {
                Ok(Self::Commit { seq: Seq(commit.seq), object: message.data_body, whole: commit.whole })
            }
            Some(PushKind::Head(seq)) => Ok(Self::Head(Seq(seq))),
            None => Err(garbled("a push")),
        }
    }
}

impl Progress {
    pub fn to_message(&self) -> FlightData {
        let applied = self.applied.iter();
        let applied = applied.map(|(id, seq)| AppliedMessage { incarnation: id.0, seq: seq.0 }).collect();
        message(&ProgressMessage { applied })
    }

    pub fn from_message(message: &FlightData) -> Result<Self> {
        let progress = ProgressMessage::decode(message.app_metadata.as_ref())
            .map_err(|_| garbled("a follower's progress"))?;
        let applied = progress.applied.into_iter();
        Ok(Self { applied: applied.map(|a| (WriterId(a.incarnation), Seq(a.seq))).collect() })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tail::asks_to_follow;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let follow = Follow {
            database: DatabaseId(u128::MAX - 5),
            applied: Seq(7),
            header_hash: [9; 32],
            node_id: "n".into(),
            incarnation: WriterId(u64::MAX),
            address: Some("grpc://h:1".into()),
            replica: true,
            scope: Scope::Own,
        };
        let message = follow.to_message();
        assert!(asks_to_follow(&message));
        assert_eq!(Follow::from_message(&message).unwrap(), follow);
        let anonymous = Follow { address: None, replica: false, scope: Scope::All, ..follow };
        assert_eq!(Follow::from_message(&anonymous.to_message()).unwrap(), anonymous);
        let behind = Follow { scope: Scope::Heads, ..anonymous };
        assert_eq!(Follow::from_message(&behind.to_message()).unwrap(), behind);
        let object = Bytes::from_static(b"bytes");
        for push in [Push::Commit { seq: Seq(3), object, whole: true }, Push::Head(Seq(0))] {
            assert_eq!(Push::from_message(push.clone().to_message()).unwrap(), push);
        }
        let progress = Progress { applied: vec![(WriterId(1), Seq(2)), (WriterId(0), Seq(0))] };
        assert_eq!(Progress::from_message(&progress.to_message()).unwrap(), progress);
    }

    #[test]
    fn garbage_is_an_error() {
        let garbage =
            FlightData { app_metadata: Bytes::from_static(b"\xff\xff\xff"), ..FlightData::default() };
        assert!(!asks_to_follow(&garbage));
        assert!(Follow::from_message(&garbage).is_err());
        assert!(Progress::from_message(&garbage).is_err());
        assert!(Push::from_message(garbage).is_err());
        assert!(Push::from_message(FlightData::default()).is_err());
        // A database id of the wrong length.
        assert!(Follow::from_message(&FlightData::default()).is_err());
    }
}
