//! Transactions and answers as bytes, for whoever carries them: protobuf, and the sections' bytes back to back.
//!
//! No public promise: nodes of one database run versions that know each other. What is not known is refused, never left out.
//! Upkeep has no form here: it is harmless to repeat, and everybody races for his own.

use bytes::Bytes;
use prost::Message;
use tandem_format::{
    Mutation, ObjectName, ProducerId, Token, TransactionToken, decode_fields, decode_mutation, encode_fields,
    encode_mutation,
};
use tandem_manifest::{
    AppendIntent, AppendTarget, Change, ColumnSpec, Intent, MutateDraft, MutateIntent, MutateTarget,
    OnConflict, SchemaPolicy, SectionDraft, Step, TableSpec,
};
use tandem_types::{
    Epoch, Error, ErrorKind, Partition, PartitionUnit, Result, SchemaId, Seq, TableId, TableName, WriterId,
};

use super::{Handed, HandedAnswer};
use crate::Committed;

mod pb;

/// Whether a transaction has a form here, and may be committed by somebody else.
pub(crate) fn can_be_handed(intent: &Intent) -> bool {
    let upkeep = |step: &Step| {
        matches!(
            step,
            Step::Replace(_)
                | Step::Checkpoint { .. }
                | Step::Promote { .. }
                | Step::Expire { .. }
                | Step::RestoreTable { .. }
                | Step::Horizon { .. }
                | Step::Pin(_)
                | Step::Unpin { .. }
        )
    };
    intent.token.is_some() && intent.epoch.is_some() && !intent.steps.iter().any(upkeep)
}

/// The transactions as a message and a body.
///
/// # Errors
///
/// `Internal` if one of them may not be handed over.
pub fn encode_handed(handed: &[Handed]) -> Result<(Bytes, Bytes)> {
    let transactions = handed.iter().map(transaction_to_pb).collect::<Result<_>>()?;
    let chunks: Vec<&[u8]> = handed.iter().flat_map(|h| &h.bodies).flatten().map(AsRef::as_ref).collect();
    Ok((pb::Bundle { transactions }.encode_to_vec().into(), chunks.concat().into()))
}

/// What [`encode_handed`] was given. The bytes may be anybody's.
///
/// # Errors
///
/// `InvalidInput` or `Damaged`, saying what is wrong.
pub fn decode_handed(message: &[u8], mut body: Bytes) -> Result<Vec<Handed>> {
    let bundle = pb::Bundle::decode(message).map_err(|_| garbled("the message"))?;
    let handed = bundle
        .transactions
        .into_iter()
        .map(|transaction| transaction_from_pb(transaction, &mut body))
        .collect::<Result<Vec<_>>>()?;
    if !body.is_empty() {
        return Err(garbled("bytes behind the last section"));
    }
    Ok(handed)
}

/// The answers as a message.
pub fn encode_answers(answers: &[HandedAnswer]) -> Bytes {
    let answer = |answer: &HandedAnswer| pb::Answer {
        kind: Some(match answer {
            HandedAnswer::Committed(c) => pb::AnswerKind::Committed(pb::Committed {
                seq: c.seq.0,
                rows: c.rows,
                duplicate: c.duplicate,
            }),
            HandedAnswer::Refused(error) => pb::AnswerKind::Refused(error_to_pb(error)),
            HandedAnswer::Recast(error) => pb::AnswerKind::Recast(error_to_pb(error)),
        }),
    };
    pb::Answers { answers: answers.iter().map(answer).collect() }.encode_to_vec().into()
}

/// What [`encode_answers`] was given.
///
/// # Errors
///
/// `InvalidInput`.
pub fn decode_answers(message: &[u8]) -> Result<Vec<HandedAnswer>> {
    let answers = pb::Answers::decode(message).map_err(|_| garbled("the answer"))?.answers;
    let answer = |answer: pb::Answer| match answer.kind {
        Some(pb::AnswerKind::Committed(c)) => {
            Ok(HandedAnswer::Committed(Committed { seq: Seq(c.seq), rows: c.rows, duplicate: c.duplicate }))
        }
        Some(pb::AnswerKind::Refused(error)) => Ok(HandedAnswer::Refused(error_from_pb(error)?)),
        Some(pb::AnswerKind::Recast(error)) => Ok(HandedAnswer::Recast(error_from_pb(error)?)),
        None => Err(garbled("the answer")),
    };
    answers.into_iter().map(answer).collect()
}

fn garbled(what: &str) -> Error {
    Error::invalid(format!(
        "a hand-over is not readable ({what}): its node speaks another version of the protocol"
    ))
}

fn transaction_to_pb(Handed { intent, bodies, age }: &Handed) -> Result<pb::Transaction> {
    let no = || Error::internal("upkeep was to be handed over");
    let token = match intent.token.as_ref().ok_or_else(no)? {
        TransactionToken::Counted(t) => pb::TokenKind::Counted(pb::Counted {
            producer: t.producer.0.to_be_bytes().to_vec(),
            counter: t.counter,
            low: t.low,
            base: t.base.0,
        }),
        TransactionToken::Foreign(t) => {
            pb::TokenKind::Foreign(pb::Foreign { text: t.text.clone(), base: t.base.map(|seq| seq.0) })
        }
        TransactionToken::Content { window } => pb::TokenKind::ContentWindow(*window),
    };
    let length = |chunks: &Vec<Bytes>| chunks.iter().map(|chunk| chunk.len() as u64).sum();
    Ok(pb::Transaction {
        token: Some(token),
        digest: intent.digest.clone(),
        epoch: intent.epoch.ok_or_else(no)?.0,
        base: intent.base.0,
        age: *age,
        steps: intent.steps.iter().map(step_to_pb).collect::<Option<_>>().ok_or_else(no)?,
        bodies: bodies.iter().map(length).collect(),
    })
}

fn transaction_from_pb(t: pb::Transaction, body: &mut Bytes) -> Result<Handed> {
    let token = match t.token.ok_or_else(|| garbled("a token"))? {
        pb::TokenKind::Counted(c) => {
            let producer = c.producer.as_slice().try_into().map_err(|_| garbled("a producer"))?;
            let producer = ProducerId(u128::from_be_bytes(producer));
            Token { producer, counter: c.counter, low: c.low, base: Seq(c.base) }.into()
        }
        pb::TokenKind::Foreign(f) => {
            tandem_format::ForeignToken { text: f.text, base: f.base.map(Seq) }.into()
        }
        pb::TokenKind::ContentWindow(window) => TransactionToken::Content { window },
    };
    let mut take = |length: u64| match usize::try_from(length) {
        Ok(0) => Ok(Vec::new()),
        Ok(length) if length <= body.len() => Ok(vec![body.split_to(length)]),
        _ => Err(garbled("a section that is cut off")),
    };
    let bodies = t.bodies.into_iter().map(&mut take).collect::<Result<_>>()?;
    let steps = t.steps.into_iter().map(step_from_pb).collect::<Result<_>>()?;
    let (epoch, base) = (Some(Epoch(t.epoch)), Seq(t.base));
    let intent = Intent { token: Some(token), digest: t.digest, epoch, base, steps };
    Ok(Handed { intent, bodies, age: t.age })
}

/// `None`: upkeep.
fn step_to_pb(step: &Step) -> Option<pb::Step> {
    use pb::StepKind as Kind;
    let kind = match step {
        Step::CreateSchema { name, if_not_exists } => {
            Kind::CreateSchema(pb::Name { name: name.clone(), lenient: *if_not_exists })
        }
        Step::DropSchema { name, if_exists } => {
            Kind::DropSchema(pb::Name { name: name.clone(), lenient: *if_exists })
        }
        Step::CreateTable { name, spec, if_not_exists, replace } => Kind::CreateTable(pb::CreateTable {
            name: name_to_pb(name),
            spec: spec_to_pb(spec),
            if_not_exists: *if_not_exists,
            replace: *replace,
        }),
        Step::DropTable { name, if_exists } => {
            Kind::DropTable(pb::DropTable { name: name_to_pb(name), if_exists: *if_exists })
        }
        Step::RenameTable { name, to } => {
            Kind::RenameTable(pb::RenameTable { name: name_to_pb(name), to: name_to_pb(to) })
        }
        Step::AlterTable { name, change } => {
            Kind::AlterTable(pb::AlterTable { name: name_to_pb(name), change: Some(change_to_pb(change)) })
        }
        Step::SetSettings { settings } => Kind::SetSettings(pb::Options { options: options_to_pb(settings) }),
        Step::Truncate { name } => Kind::Truncate(name_to_pb(name)),
        Step::Append(append) => Kind::Append(append_to_pb(append)),
        // Advice, and whoever gives it may be one whose own commits keep losing.
        Step::Lease { holder, address, term } => {
            Kind::Lease(pb::Lease { holder: holder.clone(), address: address.clone(), term: *term })
        }
        Step::Mutate(mutate) => Kind::Mutate(mutate_to_pb(mutate)),
        Step::Unchanged { table, name, since } => {
            Kind::Unchanged(pb::Unchanged { table: table.0, name: name_to_pb(name), since: since.0 })
        }
        Step::Bound { name, table, schema } => Kind::Bound(pb::Bound {
            name: name_to_pb(name),
            table: table.map(|id| id.0),
            schema: schema.map(|id| id.0),
        }),
        Step::DropPartitions { name, partitions } => Kind::DropPartitions(pb::DropPartitions {
            name: name_to_pb(name),
            partitions: partitions.iter().map(|p| p.0).collect(),
        }),
        Step::Replace(_)
        | Step::Checkpoint { .. }
        | Step::Promote { .. }
        | Step::Expire { .. }
        | Step::RestoreTable { .. }
        | Step::Horizon { .. }
        | Step::Pin(_)
        | Step::Unpin { .. } => return None,
    };
    Some(pb::Step { kind: Some(kind) })
}

fn step_from_pb(step: pb::Step) -> Result<Step> {
    use pb::StepKind as Kind;
    Ok(match step.kind.ok_or_else(|| garbled("a step"))? {
        Kind::CreateSchema(s) => Step::CreateSchema { name: s.name, if_not_exists: s.lenient },
        Kind::DropSchema(s) => Step::DropSchema { name: s.name, if_exists: s.lenient },
        Kind::CreateTable(c) => Step::CreateTable {
            name: name_from_pb(c.name),
            spec: spec_from_pb(c.spec)?,
            if_not_exists: c.if_not_exists,
            replace: c.replace,
        },
        Kind::DropTable(d) => Step::DropTable { name: name_from_pb(d.name), if_exists: d.if_exists },
        Kind::RenameTable(r) => Step::RenameTable { name: name_from_pb(r.name), to: name_from_pb(r.to) },
        Kind::AlterTable(a) => Step::AlterTable {
            name: name_from_pb(a.name),
            change: change_from_pb(a.change.ok_or_else(|| garbled("a change"))?)?,
        },
        Kind::SetSettings(s) => Step::SetSettings { settings: options_from_pb(s.options) },
        Kind::Truncate(name) => Step::Truncate { name: name_from_pb(name) },
        Kind::Append(append) => Step::Append(append_from_pb(append)?),
        Kind::Lease(l) => Step::Lease { holder: l.holder, address: l.address, term: l.term },
        Kind::Mutate(mutate) => Step::Mutate(mutate_from_pb(mutate)?),
        Kind::Unchanged(u) => {
            Step::Unchanged { table: TableId(u.table), name: name_from_pb(u.name), since: Seq(u.since) }
        }
        Kind::Bound(b) => Step::Bound {
            name: name_from_pb(b.name),
            table: b.table.map(TableId),
            schema: b.schema.map(SchemaId),
        },
        Kind::DropPartitions(d) => Step::DropPartitions {
            name: name_from_pb(d.name),
            partitions: d.partitions.into_iter().map(Partition).collect(),
        },
    })
}

/// In the form that the log has for it.
fn mutate_to_pb(mutate: &MutateIntent) -> pb::Mutate {
    let (table, placed) = match mutate.target {
        MutateTarget::Existing(table) => (table, table),
        MutateTarget::New => (TableId(0), TableId(0)),
    };
    let mutation = Mutation {
        table: placed,
        kind: mutate.draft.place(SchemaId(0)),
        time: mutate.time,
        statement: mutate.statement.clone(),
    };
    pb::Mutate { name: name_to_pb(&mutate.name), table: table.0, mutation: encode_mutation(&mutation) }
}

fn mutate_from_pb(mutate: pb::Mutate) -> Result<MutateIntent> {
    let mutation = decode_mutation(&mutate.mutation)?;
    Ok(MutateIntent {
        name: name_from_pb(mutate.name),
        target: match mutate.table {
            0 => MutateTarget::New,
            table => MutateTarget::Existing(TableId(table)),
        },
        draft: MutateDraft::of(mutation.kind),
        time: mutation.time,
        statement: mutation.statement,
    })
}

fn change_to_pb(change: &Change) -> pb::ChangeKind {
    use pb::ChangeKind as Kind;
    match change {
        Change::AddColumn { column, if_not_exists } => Kind::AddColumn(pb::AddColumn {
            column: columns_to_pb(std::slice::from_ref(column)),
            if_not_exists: *if_not_exists,
        }),
        Change::DropColumn { name, if_exists } => {
            Kind::DropColumn(pb::Name { name: name.clone(), lenient: *if_exists })
        }
        Change::RenameColumn { name, to } => {
            Kind::RenameColumn(pb::RenameColumn { name: name.clone(), to: to.clone() })
        }
        // The name and the new type are what a column has.
        Change::WidenColumn { name, to } => Kind::WidenColumn(columns_to_pb(&[ColumnSpec {
            name: name.clone(),
            data_type: to.clone(),
            nullable: true,
        }])),
        Change::DropNotNull { name } => Kind::DropNotNull(name.clone()),
        Change::SetOptions { options } => Kind::SetOptions(pb::Options { options: options_to_pb(options) }),
    }
}

fn change_from_pb(change: pb::ChangeKind) -> Result<Change> {
    use pb::ChangeKind as Kind;
    Ok(match change {
        Kind::AddColumn(a) => {
            Change::AddColumn { column: column_from_pb(&a.column)?, if_not_exists: a.if_not_exists }
        }
        Kind::DropColumn(c) => Change::DropColumn { name: c.name, if_exists: c.lenient },
        Kind::RenameColumn(r) => Change::RenameColumn { name: r.name, to: r.to },
        Kind::WidenColumn(column) => {
            let ColumnSpec { name, data_type: to, .. } = column_from_pb(&column)?;
            Change::WidenColumn { name, to }
        }
        Kind::DropNotNull(name) => Change::DropNotNull { name },
        Kind::SetOptions(o) => Change::SetOptions { options: options_from_pb(o.options) },
    })
}

/// Columns as the flatbuffer of an Arrow schema.
fn columns_to_pb(columns: &[ColumnSpec]) -> Vec<u8> {
    let field = |c: &ColumnSpec| arrow_schema::Field::new(&c.name, c.data_type.clone(), c.nullable);
    encode_fields(columns.iter().map(field).collect())
}

fn columns_from_pb(bytes: &[u8]) -> Result<Vec<ColumnSpec>> {
    let column = |f: &arrow_schema::FieldRef| ColumnSpec {
        name: f.name().clone(),
        data_type: f.data_type().clone(),
        nullable: f.is_nullable(),
    };
    Ok(decode_fields(bytes)?.iter().map(column).collect())
}

fn column_from_pb(bytes: &[u8]) -> Result<ColumnSpec> {
    match <[ColumnSpec; 1]>::try_from(columns_from_pb(bytes)?) {
        Ok([column]) => Ok(column),
        Err(_) => Err(garbled("a column")),
    }
}

fn name_to_pb(name: &TableName) -> pb::TableName {
    pb::TableName { schema: name.schema.clone(), table: name.table.clone() }
}

fn name_from_pb(name: pb::TableName) -> TableName {
    TableName { schema: name.schema, table: name.table }
}

fn options_to_pb(options: &[(String, Option<String>)]) -> Vec<pb::Setting> {
    options.iter().map(|(key, value)| pb::Setting { key: key.clone(), value: value.clone() }).collect()
}

fn options_from_pb(options: Vec<pb::Setting>) -> Vec<(String, Option<String>)> {
    options.into_iter().map(|o| (o.key, o.value)).collect()
}

fn spec_to_pb(spec: &TableSpec) -> pb::TableSpec {
    let option =
        |(key, value): &(String, String)| pb::Setting { key: key.clone(), value: Some(value.clone()) };
    pb::TableSpec {
        columns: columns_to_pb(&spec.columns),
        timestamp: spec.timestamp.clone(),
        partition_by: spec.partition_by.map(|unit| unit.name().to_owned()),
        order_by: spec.order_by.clone().map(|columns| pb::ColumnNames { columns }),
        primary_key: spec.primary_key.clone().map(|columns| pb::ColumnNames { columns }),
        options: spec.options.iter().map(option).collect(),
    }
}

fn spec_from_pb(spec: pb::TableSpec) -> Result<TableSpec> {
    let unit = |name: String| PartitionUnit::parse(&name).ok_or_else(|| garbled("a partition unit"));
    Ok(TableSpec {
        columns: columns_from_pb(&spec.columns)?,
        timestamp: spec.timestamp,
        partition_by: spec.partition_by.map(unit).transpose()?,
        order_by: spec.order_by.map(|o| o.columns),
        primary_key: spec.primary_key.map(|k| k.columns),
        options: spec.options.into_iter().map(|o| (o.key, o.value.unwrap_or_default())).collect(),
    })
}

fn append_to_pb(append: &AppendIntent) -> pb::Append {
    pb::Append {
        name: name_to_pb(&append.name),
        target: Some(match &append.target {
            AppendTarget::Existing { table, schema_id } => {
                pb::Target::Existing(pb::Existing { table: table.0, schema_id: schema_id.0 })
            }
            AppendTarget::New(spec) => pb::Target::New(spec_to_pb(spec)),
        }),
        policy: match append.policy {
            SchemaPolicy::Strict => 0,
            SchemaPolicy::Add => 1,
            SchemaPolicy::Create => 2,
        },
        fields: columns_to_pb(&append.fields),
        sections: append.sections.iter().map(section_to_pb).collect(),
        on_conflict: match &append.on_conflict {
            None => 0,
            Some(OnConflict::DoNothing) => 1,
            Some(OnConflict::Replace) => 2,
            Some(OnConflict::Merge) => 3,
            Some(OnConflict::Update(_)) => 4,
        },
        update: match &append.on_conflict {
            Some(OnConflict::Update(columns)) => columns.clone(),
            _ => Vec::new(),
        },
    }
}

fn append_from_pb(append: pb::Append) -> Result<AppendIntent> {
    Ok(AppendIntent {
        name: name_from_pb(append.name),
        target: match append.target.ok_or_else(|| garbled("an append's table"))? {
            pb::Target::Existing(e) => {
                AppendTarget::Existing { table: TableId(e.table), schema_id: SchemaId(e.schema_id) }
            }
            pb::Target::New(spec) => AppendTarget::New(spec_from_pb(spec)?),
        },
        policy: match append.policy {
            0 => SchemaPolicy::Strict,
            1 => SchemaPolicy::Add,
            2 => SchemaPolicy::Create,
            _ => return Err(garbled("a schema policy")),
        },
        fields: columns_from_pb(&append.fields)?,
        sections: append.sections.into_iter().map(section_from_pb).collect::<Result<_>>()?,
        on_conflict: match append.on_conflict {
            0 => None,
            1 => Some(OnConflict::DoNothing),
            2 => Some(OnConflict::Replace),
            3 => Some(OnConflict::Merge),
            4 => Some(OnConflict::Update(append.update)),
            _ => return Err(garbled("what becomes of equal keys")),
        },
    })
}

fn section_to_pb(section: &SectionDraft) -> pb::Section {
    pb::Section {
        segment: section.segment.map(|s| pb::ObjectName {
            base: s.base.0,
            writer: s.writer.0,
            random: s.random,
        }),
        offset: section.offset,
        len: section.len,
        crc32c: section.crc32c,
        rows: section.rows,
        time: section.time.map(|(first, last)| pb::Time { first, last }),
        partitions: section.partitions.iter().map(|(partition, _)| partition.0).collect(),
        partition_rows: section.partitions.iter().map(|(_, rows)| *rows).collect(),
        null_counts: section.null_counts.clone(),
    }
}

fn section_from_pb(section: pb::Section) -> Result<SectionDraft> {
    if section.partitions.len() != section.partition_rows.len() {
        return Err(garbled("a section's partitions"));
    }
    let partitions = section.partitions.into_iter().map(Partition).zip(section.partition_rows);
    let name =
        |s: pb::ObjectName| ObjectName { base: Seq(s.base), writer: WriterId(s.writer), random: s.random };
    Ok(SectionDraft {
        segment: section.segment.map(name),
        offset: section.offset,
        len: section.len,
        crc32c: section.crc32c,
        rows: section.rows,
        time: section.time.map(|t| (t.first, t.last)),
        partitions: partitions.collect(),
        null_counts: section.null_counts,
    })
}

fn error_to_pb(error: &Error) -> pb::Error {
    let number = ERROR_KINDS.iter().find(|(_, kind)| *kind == error.kind()).map_or(0, |(number, _)| *number);
    pb::Error {
        kind: number,
        message: error.message().to_owned(),
        writer: error.writer().map(str::to_owned),
        seq: error.seq().map(|seq| seq.0),
    }
}

fn error_from_pb(error: pb::Error) -> Result<Error> {
    let kind = ERROR_KINDS.iter().find(|(number, _)| *number == error.kind);
    let (_, kind) = kind.ok_or_else(|| garbled("the kind of an error"))?;
    let mut told = Error::new(*kind, error.message).with_writer(error.writer.as_deref().unwrap_or_default());
    if let Some(seq) = error.seq {
        told = told.with_seq(Seq(seq));
    }
    Ok(told)
}

/// Numbers of the kinds. One that has none travels as the first.
const ERROR_KINDS: [(u32, ErrorKind); 17] = [
    (0, ErrorKind::Internal),
    (1, ErrorKind::InvalidInput),
    (2, ErrorKind::NotFound),
    (3, ErrorKind::AlreadyExists),
    (4, ErrorKind::SchemaConflict),
    (5, ErrorKind::Serialization),
    (6, ErrorKind::Unsupported),
    (7, ErrorKind::Overloaded),
    (8, ErrorKind::Unavailable),
    (9, ErrorKind::OutcomeUnknown),
    (10, ErrorKind::TokenReused),
    (11, ErrorKind::TokenExpired),
    (12, ErrorKind::NotWriter),
    (13, ErrorKind::Damaged),
    (14, ErrorKind::NewerFormat),
    (15, ErrorKind::Forbidden),
    (16, ErrorKind::HistoryGone),
];

#[cfg(test)]
mod tests;
