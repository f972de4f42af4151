use super::*;

fn view() -> View {
    let facts = Facts {
        schema: "public".to_owned(),
        user: "me".to_owned(),
        process: 7,
        settings: crate::settings::Settings::default().all(),
    };
    View { state: Arc::new(Manifest::empty(tandem_types::DatabaseId::default())), facts }
}

async fn ask(sql: &str) -> Result<String> {
    let question = Question::of(sql)?.unwrap_or_else(|| panic!("no question: {sql}"));
    let batches = Catalog::new()?.ask(question, view(), None).await?;
    Ok(arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string())
}

#[test]
fn questions_are_told_from_queries() {
    for sql in [
        "SELECT * FROM pg_catalog.pg_class",
        "select relname from pg_class c join PG_NAMESPACE n on n.oid = c.relnamespace",
        "SELECT table_name FROM information_schema.tables",
        "SELECT version()",
        "SELECT current_schema(), CURRENT_USER",
        "SELECT 't'::regclass",
        "WITH a AS (SELECT 1 FROM pg_type) SELECT * FROM a",
    ] {
        assert!(Question::of(sql).unwrap().is_some(), "{sql}");
    }
    for sql in [
        "SELECT 1",
        "SELECT version FROM releases",
        "SELECT \"user\" FROM t WHERE region = 'pg_class'",
        "INSERT INTO t SELECT relname FROM pg_class",
        "SELECT * FROM system.tables",
        "SELECT now()",
    ] {
        assert!(Question::of(sql).unwrap().is_none(), "{sql}");
    }
}

#[tokio::test]
async fn what_tools_ask_is_answered() {
    for (sql, part) in [
        ("SELECT version()", "PostgreSQL 14.0"),
        ("SELECT current_setting('server_version_num')::int/100", "1400"),
        ("SELECT current_schema(), current_database(), current_user", "| public"),
        ("SELECT 'a', 'b', 'a'", ""),
        ("SELECT oid::regtype::text, typname FROM pg_type WHERE oid = to_regtype('int8')", "bigint"),
        ("SELECT pg_catalog.format_type(1700, 655366)", "numeric(10,2)"),
        ("SELECT count(*) FROM pg_trigger", "| 0"),
        (
            "SELECT n.nspname FROM pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.~) '^(pub.*)$' COLLATE pg_catalog.default",
            "public",
        ),
        (
            "SELECT d.datname AS \"Name\", pg_catalog.array_to_string(d.datacl, E'\\n') FROM pg_database d ORDER BY 1",
            "tandem",
        ),
    ] {
        if Question::of(sql).unwrap().is_some() {
            let answer = ask(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            assert!(answer.contains(part), "{sql}\n{answer}");
        }
    }
}

#[tokio::test]
async fn tables_without_rows_need_no_planning() {
    let sql = "SELECT pol.polname, CASE WHEN pol.polroles = '{0}' THEN NULL ELSE pg_catalog.array_to_string(array(select rolname \
               from pg_catalog.pg_roles where oid = any (pol.polroles) order by 1),',') END FROM pg_catalog.pg_policy pol \
               WHERE pol.polrelid = '16384' ORDER BY 1";
    assert!(!ask(sql).await.unwrap().contains("polname |"), "no rows");
}

#[tokio::test]
async fn an_unknown_table_is_named() {
    let error = ask("SELECT 'nothing'::regclass").await.unwrap_err();
    assert!(error.message().contains("nothing"), "{error}");
    let error = ask("SELECT * FROM pg_nothing").await.unwrap_err();
    assert!(error.message().contains("pg_nothing"), "{error}");
}
