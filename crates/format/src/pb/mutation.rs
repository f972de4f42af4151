//! Stored messages of mutations. An expression is stored in postfix order, so that no reader recurses into what it
//! reads.

use prost::{Message, Oneof};
use tandem_types::{ColumnId, Error, Result, Seq, TableId};

use super::{Section, Time};
use crate::mutation::{self as record, BinaryOp, MAX_EXPR_DEPTH};
use crate::schema_bytes::{decode_type, encode_type};

#[derive(Clone, PartialEq, Message)]
pub struct Mutation {
    #[prost(uint64, tag = "1")]
    pub table: u64,
    #[prost(oneof = "Kind", tags = "2, 3, 4")]
    pub kind: Option<Kind>,
    #[prost(message, optional, tag = "5")]
    pub time: Option<Time>,
    #[prost(string, tag = "6")]
    pub statement: String,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Kind {
    #[prost(message, tag = "2")]
    Delete(Expr),
    #[prost(message, tag = "3")]
    Update(Update),
    #[prost(message, tag = "4")]
    Lookup(Lookup),
}

#[derive(Clone, PartialEq, Message)]
pub struct Update {
    #[prost(message, required, tag = "1")]
    pub predicate: Expr,
    #[prost(message, repeated, tag = "2")]
    pub assignments: Vec<Assignment>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Assignment {
    #[prost(uint32, tag = "1")]
    pub column: u32,
    #[prost(message, required, tag = "2")]
    pub value: Expr,
}

#[derive(Clone, PartialEq, Message)]
pub struct Lookup {
    #[prost(uint32, tag = "1")]
    pub keys: u32,
    #[prost(bool, tag = "2")]
    pub delete: bool,
    #[prost(message, required, tag = "3")]
    pub section: Section,
}

/// Operands before their operator.
#[derive(Clone, PartialEq, Message)]
pub struct Expr {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<Node>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(oneof = "NodeKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub kind: Option<NodeKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum NodeKind {
    #[prost(message, tag = "1")]
    Column(ColumnNode),
    #[prost(bytes, tag = "2")]
    Literal(Vec<u8>),
    #[prost(bool, tag = "3")]
    Now(bool),
    /// An operator's code.
    #[prost(uint32, tag = "4")]
    Binary(u32),
    #[prost(bool, tag = "5")]
    Not(bool),
    #[prost(bool, tag = "6")]
    IsNull(bool),
    #[prost(bool, tag = "7")]
    Negate(bool),
    #[prost(message, tag = "8")]
    InList(InListNode),
    /// A type, as the one field of an Arrow IPC schema.
    #[prost(bytes, tag = "9")]
    Cast(Vec<u8>),
    #[prost(message, tag = "10")]
    Case(CaseNode),
    #[prost(message, tag = "11")]
    Like(LikeNode),
}

#[derive(Clone, PartialEq, Message)]
pub struct ColumnNode {
    #[prost(uint32, tag = "1")]
    pub column: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub data_type: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct InListNode {
    #[prost(bytes = "vec", tag = "1")]
    pub list: Vec<u8>,
    #[prost(bool, tag = "2")]
    pub negated: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct CaseNode {
    #[prost(uint32, tag = "1")]
    pub branches: u32,
    #[prost(bool, tag = "2")]
    pub otherwise: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct LikeNode {
    #[prost(bool, tag = "1")]
    pub negated: bool,
    #[prost(bool, tag = "2")]
    pub ignore_case: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct PendingMutation {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(uint32, tag = "2")]
    pub transaction: u32,
    #[prost(uint32, tag = "3")]
    pub section: u32,
    #[prost(uint32, tag = "4")]
    pub ordinal: u32,
    #[prost(sint64, tag = "5")]
    pub commit_time: i64,
    #[prost(message, required, tag = "6")]
    pub mutation: Mutation,
}

/// Codes of operators, for ever.
const OPERATORS: [(BinaryOp, u32); 16] = [
    (BinaryOp::And, 1),
    (BinaryOp::Or, 2),
    (BinaryOp::Eq, 3),
    (BinaryOp::NotEq, 4),
    (BinaryOp::Lt, 5),
    (BinaryOp::LtEq, 6),
    (BinaryOp::Gt, 7),
    (BinaryOp::GtEq, 8),
    (BinaryOp::IsDistinctFrom, 9),
    (BinaryOp::IsNotDistinctFrom, 10),
    (BinaryOp::Add, 11),
    (BinaryOp::Subtract, 12),
    (BinaryOp::Multiply, 13),
    (BinaryOp::Divide, 14),
    (BinaryOp::Modulo, 15),
    (BinaryOp::Concat, 16),
];

fn code_of(op: BinaryOp) -> u32 {
    OPERATORS.iter().find(|(known, _)| *known == op).map_or(0, |(_, code)| *code)
}

fn operator(code: u32) -> Result<BinaryOp> {
    OPERATORS.iter().find(|(_, known)| *known == code).map(|(op, _)| *op).ok_or_else(|| {
        Error::newer_format(format!("a mutation uses operator {code}, which this program does not know"))
    })
}

impl From<&record::Expr> for Expr {
    fn from(expr: &record::Expr) -> Self {
        // Operator before operands, last operand first; turned round at the end.
        let mut nodes = Vec::new();
        let mut open = vec![expr];
        while let Some(expr) = open.pop() {
            nodes.push(Node { kind: Some(node(expr)) });
            open.extend(expr.children());
        }
        nodes.reverse();
        Self { nodes }
    }
}

fn node(expr: &record::Expr) -> NodeKind {
    use record::Expr as E;
    match expr {
        E::Column { column, data_type } => {
            NodeKind::Column(ColumnNode { column: column.0, data_type: encode_type(data_type) })
        }
        E::Literal(literal) => NodeKind::Literal(literal.ipc.clone()),
        E::Now => NodeKind::Now(true),
        E::Binary { op, .. } => NodeKind::Binary(code_of(*op)),
        E::Not(_) => NodeKind::Not(true),
        E::IsNull(_) => NodeKind::IsNull(true),
        E::Negate(_) => NodeKind::Negate(true),
        E::InList { list, negated, .. } => {
            NodeKind::InList(InListNode { list: list.ipc.clone(), negated: *negated })
        }
        E::Cast { to, .. } => NodeKind::Cast(encode_type(to)),
        E::Case { branches, otherwise } => NodeKind::Case(CaseNode {
            branches: u32::try_from(branches.len()).unwrap_or(u32::MAX),
            otherwise: otherwise.is_some(),
        }),
        E::Like { negated, ignore_case, .. } => {
            NodeKind::Like(LikeNode { negated: *negated, ignore_case: *ignore_case })
        }
    }
}

/// Finished operands, each with its depth.
#[derive(Default)]
struct Stack(Vec<(record::Expr, usize)>);

impl Stack {
    fn pop(&mut self, depth: &mut usize) -> Result<Box<record::Expr>> {
        let (expr, below) = self.0.pop().ok_or_else(|| Error::damaged("an expression lacks an operand"))?;
        *depth = (*depth).max(below + 1);
        Ok(Box::new(expr))
    }
}

impl TryFrom<Expr> for record::Expr {
    type Error = Error;

    fn try_from(stored: Expr) -> Result<Self> {
        use record::{Expr as E, Literal};
        let mut stack = Stack::default();
        for node in stored.nodes {
            let kind = node.kind.ok_or_else(|| {
                Error::newer_format(
                    "a mutation uses an expression that this program does not know: upgrade it",
                )
            })?;
            let mut depth = 1;
            let expr = match kind {
                NodeKind::Column(c) => {
                    E::Column { column: ColumnId(c.column), data_type: decode_type(&c.data_type)? }
                }
                NodeKind::Literal(ipc) => E::Literal(Literal { ipc }),
                NodeKind::Now(_) => E::Now,
                NodeKind::Binary(code) => {
                    let right = stack.pop(&mut depth)?;
                    E::Binary { op: operator(code)?, left: stack.pop(&mut depth)?, right }
                }
                NodeKind::Not(_) => E::Not(stack.pop(&mut depth)?),
                NodeKind::IsNull(_) => E::IsNull(stack.pop(&mut depth)?),
                NodeKind::Negate(_) => E::Negate(stack.pop(&mut depth)?),
                NodeKind::InList(n) => E::InList {
                    of: stack.pop(&mut depth)?,
                    list: Literal { ipc: n.list },
                    negated: n.negated,
                },
                NodeKind::Cast(to) => E::Cast { of: stack.pop(&mut depth)?, to: decode_type(&to)? },
                NodeKind::Case(n) => {
                    let otherwise = n.otherwise.then(|| stack.pop(&mut depth)).transpose()?;
                    let mut branches = Vec::new();
                    for _ in 0..n.branches {
                        let then = stack.pop(&mut depth)?;
                        branches.push((*stack.pop(&mut depth)?, *then));
                    }
                    branches.reverse();
                    E::Case { branches, otherwise }
                }
                NodeKind::Like(n) => {
                    let pattern = stack.pop(&mut depth)?;
                    E::Like {
                        of: stack.pop(&mut depth)?,
                        pattern,
                        negated: n.negated,
                        ignore_case: n.ignore_case,
                    }
                }
            };
            if depth > MAX_EXPR_DEPTH {
                return Err(Error::damaged(format!("an expression nests deeper than {MAX_EXPR_DEPTH}")));
            }
            stack.0.push((expr, depth));
        }
        match (stack.0.pop(), stack.0.is_empty()) {
            (Some((expr, _)), true) => Ok(expr),
            _ => Err(Error::damaged("an expression is not one expression")),
        }
    }
}

impl From<&record::Mutation> for Mutation {
    fn from(m: &record::Mutation) -> Self {
        use record::MutationKind;
        let kind = match &m.kind {
            MutationKind::Delete { predicate } => Kind::Delete(predicate.into()),
            MutationKind::Update { predicate, assignments } => Kind::Update(Update {
                predicate: predicate.into(),
                assignments: assignments
                    .iter()
                    .map(|(column, value)| Assignment { column: column.0, value: value.into() })
                    .collect(),
            }),
            MutationKind::Lookup { keys, delete, section } => {
                Kind::Lookup(Lookup { keys: *keys, delete: *delete, section: section.into() })
            }
        };
        Self {
            table: m.table.0,
            kind: Some(kind),
            time: m.time.map(|(min, max)| Time { min, max }),
            statement: m.statement.clone(),
        }
    }
}

impl TryFrom<Mutation> for record::Mutation {
    type Error = Error;

    fn try_from(stored: Mutation) -> Result<Self> {
        use record::MutationKind;
        let kind = stored.kind.ok_or_else(|| {
            Error::newer_format(
                "the log holds a mutation of a kind that this program does not know: upgrade it",
            )
        })?;
        let kind = match kind {
            Kind::Delete(predicate) => MutationKind::Delete { predicate: predicate.try_into()? },
            Kind::Update(update) => MutationKind::Update {
                predicate: update.predicate.try_into()?,
                assignments: update
                    .assignments
                    .into_iter()
                    .map(|a| Ok((ColumnId(a.column), a.value.try_into()?)))
                    .collect::<Result<_>>()?,
            },
            Kind::Lookup(l) => {
                MutationKind::Lookup { keys: l.keys, delete: l.delete, section: l.section.try_into()? }
            }
        };
        Ok(Self {
            table: TableId(stored.table),
            kind,
            time: stored.time.map(|t| (t.min, t.max)),
            statement: stored.statement,
        })
    }
}

impl From<&record::PendingMutation> for PendingMutation {
    fn from(p: &record::PendingMutation) -> Self {
        Self {
            seq: p.key.seq.0,
            transaction: p.key.transaction,
            section: p.key.section,
            ordinal: p.key.ordinal,
            commit_time: p.commit_time,
            mutation: (&p.mutation).into(),
        }
    }
}

impl TryFrom<PendingMutation> for record::PendingMutation {
    type Error = Error;

    fn try_from(p: PendingMutation) -> Result<Self> {
        Ok(Self {
            key: record::MutationKey {
                seq: Seq(p.seq),
                transaction: p.transaction,
                section: p.section,
                ordinal: p.ordinal,
            },
            commit_time: p.commit_time,
            mutation: p.mutation.try_into()?,
        })
    }
}
