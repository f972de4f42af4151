//! The tables of `pg_catalog` that have rows.

use tandem_types::Result;

use super::{
    INFORMATION_SCHEMA, Key, Named, OWNER, OWNER_OID, PG_CATALOG, column_type, keys, namespace_oid,
    namespaces, table_oid, type_name,
};
use crate::catalog::View;
use crate::catalog::rows::{V, row, table};
use crate::types::{PgType, TYPES, modifier_of};

const HEAP: i64 = 2;
const BTREE: i64 = 403;
const TABLESPACE: i64 = 1663;
const DATABASE: i64 = 1;

pub(super) fn tables(view: &View) -> Result<Named> {
    Ok(vec![
        ("pg_namespace", table("oid:i nspname:t nspowner:i nspacl:t", &namespace_rows(view))?),
        ("pg_class", table(CLASS, &class_rows(view))?),
        ("pg_attribute", table(ATTRIBUTE, &attribute_rows(view))?),
        ("pg_type", table(TYPE, &type_rows())?),
        ("pg_index", table(INDEX, &index_rows(view))?),
        ("pg_constraint", table(CONSTRAINT, &constraint_rows(view))?),
        (
            "pg_indexes",
            table("schemaname:t tablename:t indexname:t tablespace:t indexdef:t", &indexes_rows(view))?,
        ),
        ("pg_tables", table(TABLES, &tables_rows(view))?),
        ("pg_database", table(DATABASES, &[database_row()])?),
        ("pg_roles", table(ROLES, &[role_row()])?),
        ("pg_authid", table(ROLES, &[role_row()])?),
        (
            "pg_user",
            table(
                "usename:t usesysid:i usecreatedb:b usesuper:b userepl:b usebypassrls:b passwd:t",
                &[row![OWNER, OWNER_OID, false, false, false, false, V::Null]],
            )?,
        ),
        (
            "pg_am",
            table(
                "oid:i amname:t amhandler:t amtype:t",
                &[row![HEAP, "heap", "-", "t"], row![BTREE, "btree", "-", "i"]],
            )?,
        ),
        (
            "pg_tablespace",
            table(
                "oid:i spcname:t spcowner:i spcacl:t spcoptions:t",
                &[row![TABLESPACE, "pg_default", OWNER_OID, V::Null, V::Null]],
            )?,
        ),
        (
            "pg_settings",
            table(
                "name:t setting:t unit:t category:t short_desc:t context:t vartype:t source:t",
                &setting_rows(view),
            )?,
        ),
    ])
}

fn namespace_rows(view: &View) -> Vec<Vec<V>> {
    let rows = namespaces(view).into_iter().map(|name| row![namespace_oid(&name), name, OWNER_OID, V::Null]);
    rows.collect()
}

const CLASS: &str = "oid:i relname:t relnamespace:i reltype:i reloftype:i relowner:i relam:i relfilenode:i reltablespace:i \
    relpages:i reltuples:i relallvisible:i reltoastrelid:i relhasindex:b relisshared:b relpersistence:t relkind:t relnatts:i \
    relchecks:i relhasrules:b relhastriggers:b relhassubclass:b relrowsecurity:b relforcerowsecurity:b relispopulated:b \
    relreplident:t relispartition:b relhasoids:b relrewrite:i relfrozenxid:i relminmxid:i relacl:t reloptions:t relpartbound:t \
    tableoid:i";

fn class_rows(view: &View) -> Vec<Vec<V>> {
    let class =
        |oid: i64, name: &str, schema: &str, am: i64, rows: u64, keyed: bool, kind: &str, columns: usize| {
            let rows = i64::try_from(rows).unwrap_or(i64::MAX);
            let columns = i64::try_from(columns).unwrap_or(i64::MAX);
            row![
                oid,
                name,
                namespace_oid(schema),
                0,
                0,
                OWNER_OID,
                am,
                oid,
                0,
                0,
                rows,
                0,
                0,
                keyed,
                false,
                "p",
                kind,
                columns,
                0,
                false,
                false,
                false,
                false,
                false,
                true,
                "d",
                false,
                false,
                0,
                0,
                0,
                V::Null,
                V::Null,
                V::Null,
                1259
            ]
        };
    let tables = super::tables(view).into_iter().map(|table| {
        let (name, columns) = (table.name(), table.schema().columns.len());
        class(
            table_oid(table.id()),
            &name.table,
            &name.schema,
            HEAP,
            table.rows(),
            table.is_keyed(),
            "r",
            columns,
        )
    });
    let keys = keys(view)
        .into_iter()
        .map(|key| class(key.index, &key.name, &key.schema, BTREE, 0, false, "i", key.positions.len()));
    tables.chain(keys).collect()
}

const ATTRIBUTE: &str = "attrelid:i attname:t atttypid:i attstattarget:i attlen:i attnum:i attndims:i attcacheoff:i atttypmod:i \
    attbyval:b attstorage:t attalign:t attnotnull:b atthasdef:b atthasmissing:b attidentity:t attgenerated:t attisdropped:b \
    attislocal:b attinhcount:i attcollation:i attcompression:t attacl:t attoptions:t attfdwoptions:t attmissingval:t";

fn attribute_rows(view: &View) -> Vec<Vec<V>> {
    let attribute =
        |relation: i64, name: &str, position: i64, data_type: &arrow_schema::DataType, required: bool| {
            let (oid, known) = column_type(data_type);
            let size = known.map_or(-1, |known| i64::from(known.size));
            row![
                relation,
                name,
                oid,
                -1,
                size,
                position,
                0,
                -1,
                modifier_of(data_type),
                (1..=8).contains(&size),
                "p",
                "i",
                required,
                false,
                false,
                "",
                "",
                false,
                true,
                0,
                0,
                "",
                V::Null,
                V::Null,
                V::Null,
                V::Null
            ]
        };
    let mut rows = Vec::new();
    for table in super::tables(view) {
        let relation = table_oid(table.id());
        for (position, column) in (1_i64..).zip(&table.schema().columns) {
            rows.push(attribute(relation, &column.name, position, &column.data_type, !column.nullable));
        }
        for (position, id) in (1_i64..).zip(table.primary_key()) {
            if let Some(column) = table.schema().column(*id) {
                rows.push(attribute(relation + 1, &column.name, position, &column.data_type, false));
            }
        }
    }
    rows
}

const TYPE: &str = "oid:i typname:t typnamespace:i typowner:i typlen:i typbyval:b typtype:t typcategory:t typispreferred:b \
    typisdefined:b typdelim:t typrelid:i typelem:i typarray:i typinput:t typoutput:t typreceive:t typsend:t typmodin:t \
    typmodout:t typanalyze:t typalign:t typstorage:t typnotnull:b typbasetype:i typtypmod:i typndims:i typcollation:i \
    typdefault:t typacl:t typsubscript:t";

fn type_rows() -> Vec<Vec<V>> {
    let row_of = |oid: u32, name: &str, size: i64, category: &str, item: u32, array: u32| {
        let functions = ["in", "out", "recv", "send"].map(|what| match item {
            0 => format!("{name}{what}"),
            _ => format!("array_{what}"),
        });
        let [input, output, receive, send] = functions;
        row![
            oid,
            name,
            PG_CATALOG,
            OWNER_OID,
            size,
            (1..=8).contains(&size),
            "b",
            category,
            false,
            true,
            ",",
            0,
            item,
            array,
            input,
            output,
            receive,
            send,
            "-",
            "-",
            "-",
            "i",
            "p",
            false,
            0,
            -1,
            0,
            0,
            V::Null,
            V::Null,
            "-"
        ]
    };
    let plain =
        |known: &PgType| row_of(known.oid, known.name, known.size.into(), known.category, 0, known.array);
    let array = |known: &PgType| row_of(known.array, &type_name(known.array), -1, "A", known.oid, 0);
    TYPES.iter().map(plain).chain(TYPES.iter().filter(|known| known.array != 0).map(array)).collect()
}

const INDEX: &str = "indexrelid:i indrelid:i indnatts:i indnkeyatts:i indisunique:b indnullsnotdistinct:b indisprimary:b \
    indisexclusion:b indimmediate:b indisclustered:b indisvalid:b indcheckxmin:b indisready:b indislive:b indisreplident:b \
    indkey:l indcollation:l indclass:l indoption:l indexprs:t indpred:t";

fn index_rows(view: &View) -> Vec<Vec<V>> {
    let row_of = |key: Key| {
        let count = i64::try_from(key.positions.len()).unwrap_or(i64::MAX);
        let zeros = vec![0_i64; key.positions.len()];
        row![
            key.index,
            key.relation,
            count,
            count,
            true,
            false,
            true,
            false,
            true,
            false,
            true,
            false,
            true,
            true,
            false,
            key.positions,
            zeros.clone(),
            zeros.clone(),
            zeros,
            V::Null,
            V::Null
        ]
    };
    keys(view).into_iter().map(row_of).collect()
}

const CONSTRAINT: &str = "oid:i conname:t connamespace:i contype:t condeferrable:b condeferred:b convalidated:b conrelid:i \
    contypid:i conindid:i conparentid:i confrelid:i confupdtype:t confdeltype:t confmatchtype:t conislocal:b coninhcount:i \
    connoinherit:b conkey:l confkey:l conexclop:l conbin:t";

fn constraint_rows(view: &View) -> Vec<Vec<V>> {
    let row_of = |key: Key| {
        row![
            key.constraint,
            key.name,
            namespace_oid(&key.schema),
            "p",
            false,
            false,
            true,
            key.relation,
            0,
            key.index,
            0,
            0,
            " ",
            " ",
            " ",
            true,
            0,
            true,
            key.positions,
            V::Null,
            V::Null,
            V::Null
        ]
    };
    keys(view).into_iter().map(row_of).collect()
}

fn indexes_rows(view: &View) -> Vec<Vec<V>> {
    let row_of = |key: Key| {
        let columns =
            key.names.iter().map(|name| crate::catalog::functions::quote_ident(name)).collect::<Vec<_>>();
        let definition = format!(
            "CREATE UNIQUE INDEX {} ON {}.{} USING btree ({})",
            key.name,
            key.schema,
            key.table,
            columns.join(", ")
        );
        row![key.schema, key.table, key.name, V::Null, definition]
    };
    keys(view).into_iter().map(row_of).collect()
}

const TABLES: &str =
    "schemaname:t tablename:t tableowner:t tablespace:t hasindexes:b hasrules:b hastriggers:b rowsecurity:b";

fn tables_rows(view: &View) -> Vec<Vec<V>> {
    let tables = super::tables(view).into_iter().map(|table| {
        let name = table.name();
        row![name.schema.clone(), name.table.clone(), OWNER, V::Null, table.is_keyed(), false, false, false]
    });
    tables.collect()
}

const DATABASES: &str = "oid:i datname:t datdba:i encoding:i datlocprovider:t datistemplate:b datallowconn:b datconnlimit:i \
    datlastsysoid:i datfrozenxid:i datminmxid:i dattablespace:i datcollate:t datctype:t daticulocale:t datacl:t";

fn database_row() -> Vec<V> {
    row![
        DATABASE,
        "tandem",
        OWNER_OID,
        6,
        "c",
        false,
        true,
        -1,
        INFORMATION_SCHEMA,
        0,
        0,
        TABLESPACE,
        "C",
        "C",
        V::Null,
        V::Null
    ]
}

const ROLES: &str = "oid:i rolname:t rolsuper:b rolinherit:b rolcreaterole:b rolcreatedb:b rolcanlogin:b rolreplication:b \
    rolconnlimit:i rolpassword:t rolvaliduntil:t rolbypassrls:b rolconfig:t";

fn role_row() -> Vec<V> {
    row![OWNER_OID, OWNER, false, true, false, false, true, false, -1, V::Null, V::Null, false, V::Null]
}

fn setting_rows(view: &View) -> Vec<Vec<V>> {
    let rows = view
        .facts
        .settings
        .iter()
        .map(|(name, value)| row![*name, value.clone(), V::Null, "", "", "user", "string", "session"]);
    rows.collect()
}
