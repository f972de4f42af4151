//! UPDATE and DELETE as the log keeps them, and the small language that they are written in.
//!
//! A mutation acts on the rows at positions before it. Its predicate and its assignments are row-local: they look at one
//! row's columns, at constants and at the commit's time, so that every node computes the same from the log alone, now
//! and after any compaction. What cannot be said so was computed by the writer and stands here as a table to look up.

use arrow_schema::DataType;
use tandem_types::{ColumnId, Seq, TableId};

use crate::record::{Section, SectionKey};

/// A mutation's place in the order of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MutationKey {
    pub seq: Seq,
    pub transaction: u32,
    /// How many sections of its transaction stand before it.
    pub section: u32,
    /// Counts the mutations of the transaction.
    pub ordinal: u32,
}

impl MutationKey {
    /// Where the section lies that the mutation carries, if it carries one.
    pub fn as_section(&self) -> SectionKey {
        SectionKey { seq: self.seq, transaction: self.transaction, section: self.section }
    }

    /// Whether it acts on the rows of a section.
    pub fn follows(&self, section: &SectionKey) -> bool {
        (section.seq, section.transaction, section.section) < (self.seq, self.transaction, self.section)
    }
}

/// An UPDATE or a DELETE.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    pub table: TableId,
    pub kind: MutationKind,
    /// First and last designated timestamp, in the column's ticks, of rows that it can act on; `None`: any. Files
    /// outside need not look at it.
    pub time: Option<(i64, i64)>,
    /// What the client said, for people; at most [`MAX_STATEMENT_BYTES`].
    pub statement: String,
}

/// The text of a mutation is cut to so many bytes.
pub const MAX_STATEMENT_BYTES: usize = 4096;

/// What a mutation does to rows.
#[derive(Clone, Debug, PartialEq)]
pub enum MutationKind {
    /// Removes the rows for which the predicate is true.
    Delete { predicate: Expr },
    /// Assigns, all at once, in the rows for which the predicate is true.
    Update { predicate: Expr, assignments: Vec<(ColumnId, Expr)> },
    /// Acts on rows whose key columns equal those of a row of the section, null equal to null. The section's first `keys`
    /// fields are the key columns, each combination once; the others are the columns to assign, with their values.
    Lookup { keys: u32, delete: bool, section: Section },
}

impl Mutation {
    /// The section that it carries.
    pub fn section(&self) -> Option<&Section> {
        match &self.kind {
            MutationKind::Lookup { section, .. } => Some(section),
            MutationKind::Delete { .. } | MutationKind::Update { .. } => None,
        }
    }

    /// As [`Mutation::section`], to be changed.
    pub fn section_mut(&mut self) -> Option<&mut Section> {
        match &mut self.kind {
            MutationKind::Lookup { section, .. } => Some(section),
            MutationKind::Delete { .. } | MutationKind::Update { .. } => None,
        }
    }

    /// The columns that it assigns.
    pub fn assigned(&self) -> Vec<ColumnId> {
        match &self.kind {
            MutationKind::Delete { .. } => Vec::new(),
            MutationKind::Update { assignments, .. } => {
                assignments.iter().map(|(column, _)| *column).collect()
            }
            MutationKind::Lookup { keys, section, .. } => {
                section.columns.iter().skip(*keys as usize).copied().collect()
            }
        }
    }
}

/// A mutation that some rows have not been through yet.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingMutation {
    pub key: MutationKey,
    /// Of its commit, microseconds since 1970: what [`Expr::Now`] is.
    pub commit_time: i64,
    pub mutation: Mutation,
}

/// A row-local, immutable expression. Three-valued logic and operators as SQL has them; what cannot be computed of a row
/// (an overflow, a division by zero, a cast that fails) is null.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A column of the row, as the type that it had at the statement.
    Column {
        column: ColumnId,
        data_type: DataType,
    },
    /// One value.
    Literal(Literal),
    /// The time of the mutation's commit: a timestamp in microseconds, UTC.
    Now,
    Binary {
        op: BinaryOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    Negate(Box<Expr>),
    /// `list` has any number of values.
    InList {
        of: Box<Expr>,
        list: Literal,
        negated: bool,
    },
    Cast {
        of: Box<Expr>,
        to: DataType,
    },
    /// The value of the first branch whose condition is true.
    Case {
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    /// SQL's LIKE, `\` escaping.
    Like {
        of: Box<Expr>,
        pattern: Box<Expr>,
        negated: bool,
        ignore_case: bool,
    },
}

/// Expressions nest at most so deep.
pub const MAX_EXPR_DEPTH: usize = 200;

impl Expr {
    /// The expressions that this one is made of.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Self::Column { .. } | Self::Literal(_) | Self::Now => Vec::new(),
            Self::Binary { left, right, .. } => vec![left, right],
            Self::Not(of) | Self::IsNull(of) | Self::Negate(of) => vec![of],
            Self::InList { of, .. } | Self::Cast { of, .. } => vec![of],
            Self::Case { branches, otherwise } => {
                branches.iter().flat_map(|(when, then)| [when, then]).chain(otherwise.as_deref()).collect()
            }
            Self::Like { of, pattern, .. } => vec![of, pattern],
        }
    }

    /// The columns that it reads, with the types that it reads them as.
    pub fn columns(&self) -> Vec<(ColumnId, DataType)> {
        let mut found = Vec::new();
        let mut open = vec![self];
        while let Some(expr) = open.pop() {
            if let Self::Column { column, data_type } = expr
                && !found.iter().any(|(known, _)| known == column)
            {
                found.push((*column, data_type.clone()));
            }
            open.extend(expr.children());
        }
        found.sort_by_key(|(column, _)| *column);
        found
    }

    /// How deep it nests: 1 for a leaf.
    pub fn depth(&self) -> usize {
        let mut deepest = 0;
        let mut open = vec![(self, 1)];
        while let Some((expr, depth)) = open.pop() {
            deepest = deepest.max(depth);
            open.extend(expr.children().into_iter().map(|child| (child, depth + 1)));
        }
        deepest
    }
}

/// Operators of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    And,
    Or,
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    IsDistinctFrom,
    IsNotDistinctFrom,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    /// Of strings; null if either is.
    Concat,
}

/// Constants: an Arrow IPC stream with one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literal {
    pub ipc: Vec<u8>,
}
