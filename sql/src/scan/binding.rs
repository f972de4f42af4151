//! File columns are found by id: the footer that DataFusion sees calls them as the table does now.
//!
//! DataFusion matches file columns to table columns by name. So a column that was renamed after the file
//! was written gets its present name, and one that was dropped gets a name that no column can have, in the
//! copy of the footer that a scan sees. Files whose columns are still called the same are not touched.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::error::Result as DfResult;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use parquet::arrow::{ARROW_SCHEMA_META_KEY, encode_arrow_schema};
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};
use tandem_datafile::Footer;
use tandem_types::{Column, TableSchema};

use super::pending::lost_name;
use super::query_type;

/// The footer of a file in terms of `table`.
pub(super) fn bind_footer(footer: &Footer, table: &TableSchema) -> ParquetResult<Arc<ParquetMetaData>> {
    let bound: Vec<Field> = footer.schema.columns.iter().map(|stored| bind(stored, table)).collect();
    let stored = &footer.schema.columns;
    let same = stored.iter().zip(&bound).all(|(s, b)| s.name == *b.name() && s.data_type == *b.data_type());
    if same {
        return Ok(Arc::clone(&footer.metadata));
    }
    rewritten(&footer.metadata, &bound)
}

/// What a stored column is called, and read as.
fn bind(stored: &Column, table: &TableSchema) -> Field {
    let data_type = match &stored.data_type {
        // Read as views at once instead of as dictionaries that are cast to views.
        DataType::Dictionary(_, value) => match query_type(value) {
            view @ (DataType::Utf8View | DataType::BinaryView) => view,
            _ => stored.data_type.clone(),
        },
        other => other.clone(),
    };
    let name = match table.column(stored.id) {
        Some(column) => column.name.clone(),
        None if table.by_name(&stored.name).is_some() => lost_name(stored.id),
        None => stored.name.clone(),
    };
    Field::new(name, data_type, stored.nullable)
}

fn rewritten(metadata: &ParquetMetaData, columns: &[Field]) -> ParquetResult<Arc<ParquetMetaData>> {
    let file = metadata.file_metadata();
    let root = file.schema_descr().root_schema();
    let fields = root.get_fields().iter().zip(columns);
    let fields: Vec<TypePtr> =
        fields.map(|(field, column)| renamed(field, column.name())).collect::<ParquetResult<_>>()?;
    let root = Type::group_type_builder(root.name()).with_fields(fields).build()?;

    let pairs = file.key_value_metadata().into_iter().flatten();
    let mut pairs: Vec<KeyValue> = pairs.filter(|pair| pair.key != ARROW_SCHEMA_META_KEY).cloned().collect();
    let schema = Schema::new(columns.to_vec());
    pairs.push(KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), encode_arrow_schema(&schema)));

    let file = FileMetaData::new(
        file.version(),
        file.num_rows(),
        file.created_by().map(str::to_owned),
        Some(pairs),
        Arc::new(SchemaDescriptor::new(Arc::new(root))),
        file.column_orders().cloned(),
    );
    let bound = ParquetMetaDataBuilder::new(file)
        .set_row_groups(metadata.row_groups().to_vec())
        .set_column_index(metadata.column_index().cloned())
        .set_offset_index(metadata.offset_index().cloned())
        .build();
    Ok(Arc::new(bound))
}

fn renamed(field: &TypePtr, name: &str) -> ParquetResult<TypePtr> {
    if field.name() == name {
        return Ok(Arc::clone(field));
    }
    let info = field.get_basic_info();
    let id = info.has_id().then(|| info.id());
    let renamed = match field.as_ref() {
        Type::PrimitiveType { physical_type, type_length, scale, precision, .. } => {
            Type::primitive_type_builder(name, *physical_type)
                .with_repetition(info.repetition())
                .with_converted_type(info.converted_type())
                .with_logical_type(info.logical_type_ref().cloned())
                .with_length(*type_length)
                .with_scale(*scale)
                .with_precision(*precision)
                .with_id(id)
                .build()?
        }
        Type::GroupType { fields, .. } => Type::group_type_builder(name)
            .with_repetition(info.repetition())
            .with_converted_type(info.converted_type())
            .with_logical_type(info.logical_type_ref().cloned())
            .with_fields(fields.clone())
            .with_id(id)
            .build()?,
    };
    Ok(Arc::new(renamed))
}

/// DataFusion's own adapter, with the differences hidden that do not matter: Parquet's field ids, and
/// whether nulls are allowed. A cast for their sake would stand in the way of pruning.
#[derive(Debug)]
pub(super) struct ByIdFactory;

impl PhysicalExprAdapterFactory for ByIdFactory {
    fn create(
        &self,
        logical_file_schema: SchemaRef,
        physical_file_schema: SchemaRef,
    ) -> DfResult<Arc<dyn PhysicalExprAdapter>> {
        let fields = physical_file_schema.fields().iter().map(|field| -> FieldRef {
            match logical_file_schema.field_with_name(field.name()) {
                Ok(logical) if logical.data_type() == field.data_type() => Arc::new(logical.clone()),
                _ => {
                    let (data_type, nullable) = (field.data_type().clone(), field.is_nullable());
                    Arc::new(Field::new(field.name(), data_type, nullable))
                }
            }
        });
        let physical = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        DefaultPhysicalExprAdapterFactory.create(logical_file_schema, physical)
    }
}
