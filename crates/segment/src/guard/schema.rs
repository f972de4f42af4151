//! The shape of a schema: how many columns, how deep, how long the names, and types that Arrow can express.

use arrow_ipc as ipc;
use arrow_schema::{DataType, Field, Schema};
use tandem_types::{Error, Result};

use crate::Limits;

/// Checks a schema message before Arrow converts it: Arrow panics at types that it does not know.
pub(super) fn check_fb_schema(schema: &ipc::Schema<'_>, limits: &Limits) -> Result<()> {
    if schema.endianness() != ipc::Endianness::Little {
        return Err(Error::invalid("a schema declares big-endian data"));
    }
    let fields = schema.fields().ok_or_else(|| Error::invalid("a schema has no list of fields"))?;
    check_columns(fields.len(), limits)?;
    fields.iter().try_for_each(|field| check_fb_field(&field, 1, limits))
}

fn check_fb_field(field: &ipc::Field<'_>, depth: usize, limits: &Limits) -> Result<()> {
    let name = field.name().unwrap_or_default();
    check_name_and_depth(name, depth, limits)?;
    if let Some(dictionary) = field.dictionary()
        && let Some(int) = dictionary.indexType()
        && !matches!(int.bitWidth(), 8 | 16 | 32 | 64)
    {
        return Err(unknown_type(name, field));
    }
    let children = field.children().map_or(0, |c| c.len());
    let known = match field.type_type() {
        ipc::Type::Int => field.type_as_int().is_some_and(|t| matches!(t.bitWidth(), 8 | 16 | 32 | 64)),
        ipc::Type::Decimal => field.type_as_decimal().is_some_and(|t| {
            matches!(t.bitWidth(), 32 | 64 | 128 | 256)
                && u8::try_from(t.precision()).is_ok()
                && i8::try_from(t.scale()).is_ok()
        }),
        ipc::Type::FixedSizeBinary => field.type_as_fixed_size_binary().is_some_and(|t| t.byteWidth() >= 0),
        ipc::Type::FixedSizeList => {
            children == 1 && field.type_as_fixed_size_list().is_some_and(|t| t.listSize() >= 0)
        }
        ipc::Type::List | ipc::Type::LargeList | ipc::Type::ListView | ipc::Type::LargeListView => {
            children == 1
        }
        ipc::Type::Map => {
            children == 1
                && field.type_as_map().is_some()
                && field.children().is_some_and(|c| {
                    let entries = c.get(0);
                    entries.type_type() == ipc::Type::Struct_
                        && entries.children().is_some_and(|e| e.len() == 2)
                })
        }
        ipc::Type::RunEndEncoded => children == 2,
        ipc::Type::Null
        | ipc::Type::Bool
        | ipc::Type::Utf8
        | ipc::Type::LargeUtf8
        | ipc::Type::Utf8View
        | ipc::Type::Binary
        | ipc::Type::LargeBinary
        | ipc::Type::BinaryView
        | ipc::Type::Struct_
        | ipc::Type::Union
        | ipc::Type::FloatingPoint
        | ipc::Type::Date
        | ipc::Type::Time
        | ipc::Type::Timestamp
        | ipc::Type::Interval
        | ipc::Type::Duration => true,
        _ => false,
    };
    if !known {
        return Err(unknown_type(name, field));
    }
    field.children().into_iter().flatten().try_for_each(|child| check_fb_field(&child, depth + 1, limits))
}

/// Checks a schema that we are about to write against the limits that a reader will apply.
pub(crate) fn check_schema(schema: &Schema, limits: &Limits) -> Result<()> {
    check_columns(schema.fields().len(), limits)?;
    schema.fields().iter().try_for_each(|field| check_field(field, 1, limits))
}

fn check_field(field: &Field, depth: usize, limits: &Limits) -> Result<()> {
    check_name_and_depth(field.name(), depth, limits)?;
    check_children(field.data_type(), depth, limits)
}

fn check_children(data_type: &DataType, depth: usize, limits: &Limits) -> Result<()> {
    let mut children: Vec<&Field> = Vec::new();
    match data_type {
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _)
        | DataType::Map(f, _) => children.push(f),
        DataType::Struct(fields) => children.extend(fields.iter().map(|f| f.as_ref())),
        DataType::Union(fields, _) => children.extend(fields.iter().map(|(_, f)| f.as_ref())),
        // Arrow writes an empty one in a way that it refuses to read.
        DataType::RunEndEncoded(..) => {
            return Err(Error::unsupported(format!(
                "a column has type {data_type}, which sections cannot hold"
            )));
        }
        // a dictionary's values are the same field on the wire
        DataType::Dictionary(_, values) => return check_children(values, depth, limits),
        _ => {}
    }
    children.into_iter().try_for_each(|child| check_field(child, depth + 1, limits))
}

fn check_columns(columns: usize, limits: &Limits) -> Result<()> {
    if columns > limits.max_columns {
        return Err(Error::invalid(format!(
            "a schema has {columns} columns, {} are allowed",
            limits.max_columns
        )));
    }
    Ok(())
}

fn check_name_and_depth(name: &str, depth: usize, limits: &Limits) -> Result<()> {
    if name.len() > limits.max_name_bytes {
        return Err(Error::invalid(format!(
            "a column's name has {} bytes, {} are allowed",
            name.len(),
            limits.max_name_bytes
        )));
    }
    if depth > limits.max_depth {
        return Err(Error::invalid(format!(
            "column {name:?} is nested more than {} levels deep",
            limits.max_depth
        )));
    }
    Ok(())
}

fn unknown_type(name: &str, field: &ipc::Field<'_>) -> Error {
    Error::invalid(format!("column {name:?} has a malformed or unknown type ({:?})", field.type_type()))
}
