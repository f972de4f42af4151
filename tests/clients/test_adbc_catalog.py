"""What ADBC tells of a database: objects, schemas, facts about the server, sessions."""

import adbc_driver_manager
import pyarrow as pa
import pytest


@pytest.fixture(scope="module")
def connection(node):
    node.sql("CREATE TABLE meters (ts TIMESTAMP NOT NULL, host VARCHAR NOT NULL, load DOUBLE) TIMESTAMP(ts)")
    node.sql("CREATE SCHEMA lake")
    node.sql("CREATE TABLE lake.fish (id BIGINT, name VARCHAR)")
    with node.adbc() as opened:
        yield opened


def objects(connection, **filters):
    """{schema: {table: [columns]}} of the catalog."""
    [catalog] = [c for c in connection.adbc_get_objects(**filters).read_all().to_pylist() if c["catalog_name"] == "tandem"]
    return {
        s["db_schema_name"]: {
            t["table_name"]: [c["column_name"] for c in t["table_columns"] or []] for t in s["db_schema_tables"] or []
        }
        for s in catalog["catalog_db_schemas"] or []
    }


def test_objects_at_each_depth(connection):
    assert objects(connection, depth="catalogs") == {}
    assert {"public", "lake", "system", "information_schema"} <= set(objects(connection, depth="db_schemas"))
    tables = objects(connection, depth="tables")
    assert tables["public"] == {"meters": []} and tables["lake"] == {"fish": []}
    assert "tables" in tables["system"]
    everything = objects(connection, depth="all")
    assert everything["public"]["meters"] == ["ts", "host", "load"]
    assert everything["lake"]["fish"] == ["id", "name"]


def test_objects_are_filtered_by_patterns(connection):
    assert list(objects(connection, depth="tables", table_name_filter="met%")["public"]) == ["meters"]
    assert not any(objects(connection, depth="tables", table_name_filter="none%").values())
    assert list(objects(connection, depth="all", db_schema_filter="la_e")) == ["lake"]
    assert objects(connection, depth="all", table_name_filter="fish", column_name_filter="na%")["lake"] == {"fish": ["name"]}
    # pandas passes whole statements as patterns
    assert not any(objects(connection, depth="tables", table_name_filter="SELECT * FROM meters WHERE host = 'a'").values())


def test_table_schema(connection):
    schema = connection.adbc_get_table_schema("meters")
    assert schema.names == ["ts", "host", "load"]
    assert pa.types.is_timestamp(schema.field("ts").type) and schema.field("ts").type.tz is None
    assert not schema.field("host").nullable and schema.field("load").nullable
    assert connection.adbc_get_table_schema("fish", db_schema_filter="lake").names == ["id", "name"]
    with pytest.raises(adbc_driver_manager.Error):
        connection.adbc_get_table_schema("absent")


def test_table_schema_is_that_of_the_rows(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM meters")
        rows = cursor.fetch_arrow_table().schema
    assert rows.remove_metadata().equals(connection.adbc_get_table_schema("meters").remove_metadata())


def test_facts(connection):
    info = connection.adbc_get_info()
    assert "andem" in info["vendor_name"]
    assert info["vendor_version"] and info["driver_name"]
    assert {"BASE TABLE"} <= {t.upper() for t in connection.adbc_get_table_types()} or "TABLE" in connection.adbc_get_table_types()


def test_the_current_schema_is_an_option_of_the_session(node, connection):
    assert connection.adbc_current_catalog == "tandem"
    assert connection.adbc_current_db_schema == "public"
    with node.adbc() as other, other.cursor() as cursor:
        other.adbc_current_db_schema = "lake"
        assert other.adbc_current_db_schema == "lake"
        cursor.execute("SELECT count(*) FROM fish")
        assert cursor.fetchall() == [(0,)]
        with pytest.raises(adbc_driver_manager.Error):
            other.adbc_current_db_schema = "absent"
    assert connection.adbc_current_db_schema == "public"


def test_show_and_describe(connection):
    with connection.cursor() as cursor:
        cursor.execute("SHOW TABLES")
        assert ("public", "meters", "BASE TABLE") in cursor.fetchall()
        cursor.execute("DESCRIBE meters")
        assert [row[0] for row in cursor.fetchall()] == ["ts", "host", "load"]
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'lake'")
        assert cursor.fetchall() == [("fish",)]
        cursor.execute("SHOW CREATE TABLE meters")
        [(_, statement)] = cursor.fetchall()
        cursor.execute(statement.replace("meters", "meters_again", 1))
        cursor.execute("SELECT count(*) FROM meters_again")
        assert cursor.fetchall() == [(0,)]
