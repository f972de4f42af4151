//! The tables that lines make, and what tables that exist ask of lines: the request says it, else the table, else the
//! database.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use tandem_http::LineOptions;
use tandem_lines::{Catalog, KnownTable, Rules};
use tandem_manifest::{ColumnSpec, Manifest, SchemaPolicy, Table, TableSpec};
use tandem_types::{Column, PartitionUnit, TableName};

/// Within it a body that comes again is the same write, where neither request nor database says otherwise: longer than
/// clients of this family go on trying.
const DEDUP_WINDOW: &str = "10m";

/// For rows however they come, and for lines only, which is what tables get unasked: two equal statements are two writes.
const FOR_ALL: &str = "dedup_window";
const FOR_LINES: &str = "line_dedup_window";

/// How tables are made.
#[derive(Clone, Debug)]
pub(super) struct Making {
    /// As the request says.
    asked: Option<SchemaPolicy>,
    /// As the database says.
    usual: SchemaPolicy,
    /// Tags and timestamp are the primary key.
    pub keys: bool,
    partition_by: Option<PartitionUnit>,
    options: Vec<(String, String)>,
}

impl Making {
    pub fn new(request: &LineOptions, state: &Manifest) -> Self {
        let said = &request.new_tables;
        let keys = said.keys.unwrap_or_else(|| state.setting("line_keys") == Some("tags"));
        let usual = state.setting("line_partition_by").and_then(PartitionUnit::parse);
        let mut options = said.options.clone();
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value
                && options.iter().all(|(known, _)| known != name)
            {
                options.push((name.to_owned(), value.to_owned()));
            }
        };
        add("ttl", state.setting("line_ttl"));
        add("on_type_conflict", state.setting("line_on_type_conflict"));
        match keys {
            // Where rows of equal key are one, nothing is there twice.
            true => add("on_duplicate", Some("merge")),
            false if said.options.iter().any(|(name, _)| name == FOR_ALL) => {}
            false => add(FOR_LINES, state.setting(FOR_LINES).or(Some(DEDUP_WINDOW))),
        }
        // What is off needs no word.
        options.retain(|(name, value)| !(value == "off" || name == "on_type_conflict" && value == "reject"));
        Self {
            asked: request.schema,
            usual: match state.setting("line_schema") {
                Some("strict") => SchemaPolicy::Strict,
                Some("add") => SchemaPolicy::Add,
                _ => SchemaPolicy::Create,
            },
            keys,
            partition_by: said.partition_by.or(usual),
            options,
        }
    }

    /// What lines may do to a table, or to one that does not exist.
    pub fn policy(&self, table: Option<&Table>) -> SchemaPolicy {
        let by_table = || match table?.option("schema") {
            Some("strict") => Some(SchemaPolicy::Strict),
            Some(_) => Some(SchemaPolicy::Add),
            None => None,
        };
        self.asked.or_else(by_table).unwrap_or(self.usual)
    }

    /// Whether equal bodies may be one write in a table that is made.
    pub fn remembers(&self) -> bool {
        self.option(FOR_ALL).or(self.option(FOR_LINES)).is_some()
    }

    fn diverts(&self) -> bool {
        self.option("on_type_conflict") == Some("divert")
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A table of these columns; `tags`: with that key.
    pub fn spec(&self, schema: &SchemaRef, timestamp: &str, tags: Option<&[String]>) -> TableSpec {
        let column = |field: &FieldRef| ColumnSpec {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
        };
        let key = |tags: &[String]| tags.iter().cloned().chain([timestamp.to_owned()]).collect();
        TableSpec {
            columns: schema.fields().iter().map(column).collect(),
            timestamp: Some(timestamp.to_owned()),
            partition_by: self.partition_by,
            primary_key: tags.map(key),
            options: self.options.clone(),
            ..TableSpec::default()
        }
    }

    /// The tags of the key, if rows of the table are to be one by them. A row that has none of one has an empty text: to
    /// InfluxDB that is the same.
    pub fn key_tags(&self, table: &Table) -> Option<Vec<String>> {
        (self.keys && table.is_keyed()).then(|| {
            let key = table.primary_key().iter().filter_map(|id| table.schema().column(*id));
            key.filter(|column| is_text(&column.data_type)).map(|column| column.name.clone()).collect()
        })
    }
}

/// Whether tags go into it.
pub(super) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

/// The tables of a state.
pub(super) struct Tables {
    pub state: Arc<Manifest>,
    pub making: Arc<Making>,
}

impl Catalog for Tables {
    fn table(&self, name: &str) -> Option<KnownTable> {
        let table = self.state.table_named(&TableName::public(name))?;
        Some(KnownTable {
            timestamp: table.timestamp().map(|column| column.name.clone()),
            columns: table.schema().arrow(),
        })
    }

    fn rules(&self, name: &str) -> Rules {
        let Some(table) = self.state.table_named(&TableName::public(name)) else {
            let fixed = self.making.policy(None) != SchemaPolicy::Create;
            return Rules { fixed, divert: self.making.diverts(), ..Rules::default() };
        };
        let tags = self.making.key_tags(table);
        let filled = |column: &Column| tags.as_ref().is_some_and(|tags| tags.contains(&column.name));
        let timestamp = table.timestamp().map(|column| column.id);
        let columns = table.schema().columns.iter();
        let required = columns.filter(|c| !c.nullable && Some(c.id) != timestamp && !filled(c));
        Rules {
            required: required.map(|column| column.name.clone()).collect(),
            fixed: self.making.policy(Some(table)) == SchemaPolicy::Strict,
            divert: table.option("on_type_conflict") == Some("divert"),
            tags,
        }
    }
}
