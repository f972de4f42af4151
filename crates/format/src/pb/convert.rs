//! Between stored messages and the values of [`crate::record`]. Total in one direction, checked in the other.

use arrow_schema::Field;
use tandem_types::{
    Column, ColumnId, CommitId, DatabaseId, Epoch, Error, Partition, PartitionUnit, Result, SchemaId, Seq,
    TableId, TableName, TableSchema, WriterId,
};

use super::op::Kind;
use crate::layout;
use crate::record::{self, OnDuplicate, ProducerId, SectionKey, TransactionToken};
use crate::schema_bytes::{decode_fields, decode_type, encode_fields, encode_type};

pub(crate) fn fixed<const N: usize>(what: &str, bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::damaged(format!("{what} has {} bytes, expected {N}", bytes.len())))
}

pub(crate) fn id128(what: &str, bytes: &[u8]) -> Result<u128> {
    fixed(what, bytes).map(u128::from_be_bytes)
}

impl TryFrom<&record::CommitHeader> for super::CommitHeader {
    type Error = Error;

    fn try_from(h: &record::CommitHeader) -> Result<Self> {
        Ok(Self {
            seq: h.seq.0,
            commit_id: h.commit_id.0.to_be_bytes().to_vec(),
            writer: h.writer.0,
            database: h.database.0.to_be_bytes().to_vec(),
            previous: h.previous.to_vec(),
            commit_time: h.commit_time,
            raw_clock: h.raw_clock,
            transactions: h.transactions.iter().map(Into::into).collect(),
        })
    }
}

impl TryFrom<super::CommitHeader> for record::CommitHeader {
    type Error = Error;

    fn try_from(h: super::CommitHeader) -> Result<Self> {
        Ok(Self {
            seq: Seq(h.seq),
            commit_id: CommitId(id128("the commit id", &h.commit_id)?),
            writer: WriterId(h.writer),
            database: DatabaseId(id128("the database id", &h.database)?),
            previous: fixed("the hash of the previous commit", &h.previous)?,
            commit_time: h.commit_time,
            raw_clock: h.raw_clock,
            transactions: h.transactions.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
        })
    }
}

impl From<&record::Transaction> for super::Transaction {
    fn from(t: &record::Transaction) -> Self {
        let mut stored = Self {
            digest: t.digest.clone(),
            epoch: t.epoch.map(|e| e.0),
            ops: t.ops.iter().map(Into::into).collect(),
            ..Self::default()
        };
        match &t.token {
            Some(TransactionToken::Counted(token)) => {
                stored.token = Some(super::Token {
                    producer: token.producer.0.to_be_bytes().to_vec(),
                    counter: token.counter,
                    low: token.low,
                    base: token.base.0,
                });
            }
            Some(TransactionToken::Foreign(token)) => {
                stored.foreign =
                    Some(super::ForeignToken { text: token.text.clone(), base: token.base.map(|b| b.0) });
            }
            Some(TransactionToken::Content { window }) => stored.content_window = Some(*window),
            None => {}
        }
        stored
    }
}

impl TryFrom<super::Transaction> for record::Transaction {
    type Error = Error;

    fn try_from(t: super::Transaction) -> Result<Self> {
        let token = match (t.token, t.foreign, t.content_window) {
            (None, None, None) => None,
            (Some(token), None, None) => Some(TransactionToken::Counted(record::Token {
                producer: ProducerId(id128("a producer id", &token.producer)?),
                counter: token.counter,
                low: token.low,
                base: Seq(token.base),
            })),
            (None, Some(token), None) => Some(TransactionToken::Foreign(record::ForeignToken {
                text: token.text,
                base: token.base.map(Seq),
            })),
            (None, None, Some(window)) => Some(TransactionToken::Content { window }),
            _ => return Err(Error::damaged("a transaction has tokens of more than one kind")),
        };
        Ok(Self {
            token,
            digest: t.digest,
            epoch: t.epoch.map(Epoch),
            ops: t.ops.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
        })
    }
}

impl From<&record::Primary> for super::Primary {
    fn from(p: &record::Primary) -> Self {
        Self { node_id: p.node_id.clone(), address: p.address.clone() }
    }
}

impl From<super::Primary> for record::Primary {
    fn from(p: super::Primary) -> Self {
        Self { node_id: p.node_id, address: p.address }
    }
}

impl From<&record::Lease> for super::Lease {
    fn from(l: &record::Lease) -> Self {
        Self { holder: l.holder.clone(), address: l.address.clone(), term: l.term }
    }
}

impl From<super::Lease> for record::Lease {
    fn from(l: super::Lease) -> Self {
        Self { holder: l.holder, address: l.address, term: l.term }
    }
}

impl From<&record::Op> for super::Op {
    fn from(op: &record::Op) -> Self {
        use record::Op;
        let change = |table: &TableId, column: &ColumnId| super::ColumnChange {
            table: table.0,
            column: column.0,
            ..Default::default()
        };
        let kind = match op {
            Op::CreateSchema { name } => Kind::CreateSchema(name.clone()),
            Op::DropSchema { name } => Kind::DropSchema(name.clone()),
            Op::CreateTable(new) => Kind::CreateTable(super::NewTable {
                table: new.table.0,
                schema_name: new.name.schema.clone(),
                table_name: new.name.table.clone(),
                def: (&new.def).into(),
            }),
            Op::DropTable { table } => Kind::DropTable(table.0),
            Op::RenameTable { table, to } => Kind::RenameTable(super::RenameTable {
                table: table.0,
                schema_name: to.schema.clone(),
                table_name: to.table.clone(),
            }),
            Op::AddColumn { table, column } => Kind::AddColumn(super::ColumnChange {
                name: Some(column.name.clone()),
                data_type: Some(encode_type(&column.data_type)),
                nullable: column.nullable,
                ..change(table, &column.id)
            }),
            Op::DropColumn { table, column } => Kind::DropColumn(change(table, column)),
            Op::RenameColumn { table, column, to } => {
                Kind::RenameColumn(super::ColumnChange { name: Some(to.clone()), ..change(table, column) })
            }
            Op::WidenColumn { table, column, to } => Kind::WidenColumn(super::ColumnChange {
                data_type: Some(encode_type(to)),
                ..change(table, column)
            }),
            Op::DropNotNull { table, column } => Kind::DropNotNull(change(table, column)),
            Op::SetOptions { table, options } => {
                Kind::SetOptions(super::Options { table: table.0, options: settings(options) })
            }
            Op::SetSettings { settings: s } => {
                Kind::SetSettings(super::Options { table: 0, options: settings(s) })
            }
            Op::Truncate { table } => Kind::Truncate(table.0),
            Op::Append { table, sections } => Kind::Append(super::Append {
                table: table.0,
                sections: sections.iter().map(Into::into).collect(),
            }),
            Op::Replace(replace) => Kind::Replace(replace.into()),
            Op::Checkpoint { seq, root_hash } => {
                Kind::Checkpoint(super::Checkpoint { seq: seq.0, root_hash: root_hash.to_vec() })
            }
            Op::Promote { epoch, primary } => {
                Kind::Promote(super::Promote { epoch: epoch.0, primary: primary.as_ref().map(Into::into) })
            }
            Op::Lease { holder, address, term } => {
                Kind::Lease(super::Lease { holder: holder.clone(), address: address.clone(), term: *term })
            }
            Op::Mutate(mutation) => Kind::Mutate(mutation.into()),
            Op::DropPartitions { table, partitions } => Kind::DropPartitions(super::DropPartitions {
                table: table.0,
                partitions: partitions.iter().map(|p| p.0).collect(),
            }),
            Op::RestoreTable(image) => Kind::RestoreTable(image.as_ref().into()),
            Op::Horizon { horizon, history_start } => {
                Kind::Horizon(super::Horizon { horizon: horizon.0, history_start: history_start.0 })
            }
            Op::Pin(pin) => Kind::Pin(pin.into()),
            Op::Unpin { id } => Kind::Unpin(id.clone()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<super::Op> for record::Op {
    type Error = Error;

    fn try_from(op: super::Op) -> Result<Self> {
        use record::Op;
        let kind = op.kind.ok_or_else(|| {
            Error::newer_format("the log holds a record of a kind this program does not know: upgrade it")
        })?;
        let required = |what: &str| Error::damaged(format!("a column change lacks its {what}"));
        Ok(match kind {
            Kind::CreateSchema(name) => Op::CreateSchema { name },
            Kind::DropSchema(name) => Op::DropSchema { name },
            Kind::CreateTable(new) => Op::CreateTable(record::NewTable {
                table: TableId(new.table),
                name: TableName::new(new.schema_name, new.table_name),
                def: new.def.try_into()?,
            }),
            Kind::DropTable(table) => Op::DropTable { table: TableId(table) },
            Kind::RenameTable(r) => {
                Op::RenameTable { table: TableId(r.table), to: TableName::new(r.schema_name, r.table_name) }
            }
            Kind::AddColumn(c) => Op::AddColumn {
                table: TableId(c.table),
                column: Column {
                    id: ColumnId(c.column),
                    name: c.name.ok_or_else(|| required("name"))?,
                    data_type: decode_type(&c.data_type.ok_or_else(|| required("type"))?)?,
                    nullable: c.nullable,
                },
            },
            Kind::DropColumn(c) => Op::DropColumn { table: TableId(c.table), column: ColumnId(c.column) },
            Kind::RenameColumn(c) => Op::RenameColumn {
                table: TableId(c.table),
                column: ColumnId(c.column),
                to: c.name.ok_or_else(|| required("name"))?,
            },
            Kind::WidenColumn(c) => Op::WidenColumn {
                table: TableId(c.table),
                column: ColumnId(c.column),
                to: decode_type(&c.data_type.ok_or_else(|| required("type"))?)?,
            },
            Kind::DropNotNull(c) => Op::DropNotNull { table: TableId(c.table), column: ColumnId(c.column) },
            Kind::SetOptions(o) => Op::SetOptions { table: TableId(o.table), options: unset(o.options) },
            Kind::SetSettings(o) => Op::SetSettings { settings: unset(o.options) },
            Kind::Truncate(table) => Op::Truncate { table: TableId(table) },
            Kind::Append(a) => Op::Append {
                table: TableId(a.table),
                sections: a.sections.into_iter().map(TryInto::try_into).collect::<Result<_>>()?,
            },
            Kind::Replace(r) => Op::Replace(r.try_into()?),
            Kind::Checkpoint(c) => Op::Checkpoint {
                seq: Seq(c.seq),
                root_hash: fixed("the hash of a checkpoint", &c.root_hash)?,
            },
            Kind::Promote(p) => Op::Promote { epoch: Epoch(p.epoch), primary: p.primary.map(Into::into) },
            Kind::Lease(l) => Op::Lease { holder: l.holder, address: l.address, term: l.term },
            Kind::Mutate(mutation) => Op::Mutate(mutation.try_into()?),
            Kind::DropPartitions(d) => Op::DropPartitions {
                table: TableId(d.table),
                partitions: d.partitions.into_iter().map(Partition).collect(),
            },
            Kind::RestoreTable(image) => Op::RestoreTable(Box::new(image.try_into()?)),
            Kind::Horizon(h) => Op::Horizon { horizon: Seq(h.horizon), history_start: Seq(h.history_start) },
            Kind::Pin(pin) => Op::Pin(pin.into()),
            Kind::Unpin(id) => Op::Unpin { id },
        })
    }
}

fn settings(options: &[(String, Option<String>)]) -> Vec<super::Setting> {
    options.iter().map(|(k, v)| super::Setting { key: k.clone(), value: v.clone() }).collect()
}

fn unset(options: Vec<super::Setting>) -> Vec<(String, Option<String>)> {
    options.into_iter().map(|s| (s.key, s.value)).collect()
}

impl From<&record::TableDef> for super::TableDef {
    fn from(def: &record::TableDef) -> Self {
        let columns = &def.schema.columns;
        let field = |c: &Column| Field::new(&c.name, c.data_type.clone(), c.nullable);
        Self {
            column_ids: columns.iter().map(|c| c.id.0).collect(),
            columns: encode_fields(columns.iter().map(field).collect()),
            timestamp: def.timestamp.map(|c| c.0),
            partition_by: unit_code(def.partition_by),
            order_by: def.order_by.iter().map(|c| c.0).collect(),
            primary_key: def.primary_key.iter().map(|c| c.0).collect(),
            options: def
                .options
                .iter()
                .map(|(k, v)| super::Setting { key: k.clone(), value: Some(v.clone()) })
                .collect(),
        }
    }
}

impl TryFrom<super::TableDef> for record::TableDef {
    type Error = Error;

    fn try_from(def: super::TableDef) -> Result<Self> {
        let fields = decode_fields(&def.columns)?;
        if fields.len() != def.column_ids.len() {
            return Err(Error::damaged(format!(
                "a table has {} columns and {} column ids",
                fields.len(),
                def.column_ids.len()
            )));
        }
        let columns = fields.iter().zip(&def.column_ids).map(|(field, id)| Column {
            id: ColumnId(*id),
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
        });
        Ok(Self {
            schema: TableSchema { columns: columns.collect() },
            timestamp: def.timestamp.map(ColumnId),
            partition_by: unit_of(def.partition_by)?,
            order_by: def.order_by.into_iter().map(ColumnId).collect(),
            primary_key: def.primary_key.into_iter().map(ColumnId).collect(),
            options: def.options.into_iter().map(|s| (s.key, s.value.unwrap_or_default())).collect(),
        })
    }
}

/// Codes of partition units, for ever.
const UNITS: [(PartitionUnit, u32); 6] = [
    (PartitionUnit::None, 0),
    (PartitionUnit::Hour, 1),
    (PartitionUnit::Day, 2),
    (PartitionUnit::Week, 3),
    (PartitionUnit::Month, 4),
    (PartitionUnit::Year, 5),
];

pub(super) fn unit_code(unit: PartitionUnit) -> u32 {
    UNITS.iter().find(|(u, _)| *u == unit).map_or(0, |(_, code)| *code)
}

pub(super) fn unit_of(code: u32) -> Result<PartitionUnit> {
    let known = UNITS.iter().find(|(_, c)| *c == code);
    known.map(|(unit, _)| *unit).ok_or_else(|| {
        Error::newer_format(format!(
            "a table is partitioned by unit {code}, which this program does not know"
        ))
    })
}

impl From<&layout::ObjectName> for super::ObjectName {
    fn from(name: &layout::ObjectName) -> Self {
        Self { base: name.base.0, writer: name.writer.0, random: name.random }
    }
}

impl From<super::ObjectName> for layout::ObjectName {
    fn from(name: super::ObjectName) -> Self {
        Self { base: Seq(name.base), writer: WriterId(name.writer), random: name.random }
    }
}

fn time(range: Option<(i64, i64)>) -> Option<super::Time> {
    range.map(|(min, max)| super::Time { min, max })
}

fn untime(range: Option<super::Time>) -> Option<(i64, i64)> {
    range.map(|t| (t.min, t.max))
}

impl From<&record::Section> for super::Section {
    fn from(s: &record::Section) -> Self {
        Self {
            schema_id: s.schema_id.0,
            columns: s.columns.iter().map(|c| c.0).collect(),
            segment: s.segment.as_ref().map(Into::into),
            offset: s.offset,
            len: s.len,
            crc32c: s.crc32c,
            rows: s.rows,
            time: time(s.time),
            partitions: s.partitions.iter().map(|(p, _)| p.0).collect(),
            partition_rows: s.partitions.iter().map(|(_, rows)| *rows).collect(),
            null_counts: s.null_counts.clone(),
            on_duplicate: match &s.on_duplicate {
                OnDuplicate::Keep => 0,
                OnDuplicate::Replace => 1,
                OnDuplicate::Ignore => 2,
                OnDuplicate::Merge => 3,
                OnDuplicate::Update(_) => 4,
            },
            update_columns: match &s.on_duplicate {
                OnDuplicate::Update(columns) => columns.iter().map(|c| c.0).collect(),
                _ => Vec::new(),
            },
        }
    }
}

impl TryFrom<super::Section> for record::Section {
    type Error = Error;

    fn try_from(s: super::Section) -> Result<Self> {
        if s.partitions.len() != s.partition_rows.len() {
            return Err(Error::damaged("a section's partitions and their row counts differ in number"));
        }
        Ok(Self {
            schema_id: SchemaId(s.schema_id),
            columns: s.columns.into_iter().map(ColumnId).collect(),
            segment: s.segment.map(Into::into),
            offset: s.offset,
            len: s.len,
            crc32c: s.crc32c,
            rows: s.rows,
            time: untime(s.time),
            partitions: s.partitions.into_iter().map(Partition).zip(s.partition_rows).collect(),
            null_counts: s.null_counts,
            on_duplicate: match s.on_duplicate {
                0 => OnDuplicate::Keep,
                1 => OnDuplicate::Replace,
                2 => OnDuplicate::Ignore,
                3 => OnDuplicate::Merge,
                4 => OnDuplicate::Update(s.update_columns.into_iter().map(ColumnId).collect()),
                code => {
                    return Err(Error::newer_format(format!(
                        "a section treats equal keys by rule {code}, which this program does not know"
                    )));
                }
            },
        })
    }
}

impl From<&record::DataFile> for super::DataFile {
    fn from(f: &record::DataFile) -> Self {
        Self {
            partition: f.name.partition.0,
            object: (&f.name.object).into(),
            rows: f.rows,
            size: f.size,
            body_end: f.body_end,
            tail_crc32c: f.tail_crc32c,
            time: time(f.time),
            folded_through: f.folded_through.0,
            level: f.level,
        }
    }
}

impl From<super::DataFile> for record::DataFile {
    fn from(f: super::DataFile) -> Self {
        Self {
            name: layout::FileName { partition: Partition(f.partition), object: f.object.into() },
            rows: f.rows,
            size: f.size,
            body_end: f.body_end,
            tail_crc32c: f.tail_crc32c,
            time: untime(f.time),
            folded_through: Seq(f.folded_through),
            level: f.level,
        }
    }
}

impl From<&record::Replace> for super::Replace {
    fn from(r: &record::Replace) -> Self {
        Self {
            table: r.table.0,
            base: r.base.0,
            files: r
                .files
                .iter()
                .map(|f| super::FileRef { partition: f.partition.0, object: (&f.object).into() })
                .collect(),
            parts: r
                .parts
                .iter()
                .map(|p| super::SectionPart {
                    seq: p.section.seq.0,
                    transaction: p.section.transaction,
                    section: p.section.section,
                    partition: p.partition.0,
                })
                .collect(),
            outputs: r.outputs.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<super::Replace> for record::Replace {
    type Error = Error;

    fn try_from(r: super::Replace) -> Result<Self> {
        let file = |f: super::FileRef| layout::FileName {
            partition: Partition(f.partition),
            object: f.object.into(),
        };
        let part = |p: super::SectionPart| record::SectionPart {
            section: SectionKey { seq: Seq(p.seq), transaction: p.transaction, section: p.section },
            partition: Partition(p.partition),
        };
        Ok(Self {
            table: TableId(r.table),
            base: Seq(r.base),
            files: r.files.into_iter().map(file).collect(),
            parts: r.parts.into_iter().map(part).collect(),
            outputs: r.outputs.into_iter().map(Into::into).collect(),
        })
    }
}
