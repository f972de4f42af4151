"""Python's tools around ADBC and Arrow: pandas, polars, DuckDB, DataFusion, and the metadata that generators of SQL ask for."""

import pandas as pd
import polars as pl
import programs
import pyarrow as pa
import pytest


@pytest.fixture(scope="module")
def weather(node):
    """A table of 1000 rows."""
    node.sql("CREATE TABLE weather (ts TIMESTAMP, city VARCHAR, temp DOUBLE, PRIMARY KEY (ts, city))")
    table = pa.table({
        "ts": pa.array([1_700_000_000_000 + 60_000 * i for i in range(1000)], pa.timestamp("ms")),
        "city": [("Oslo", "Rom", "Bern")[i % 3] for i in range(1000)], "temp": [i / 10 for i in range(1000)],
    })  # fmt: skip
    with node.adbc() as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("weather", table, mode="append")
    return node


@pytest.fixture
def connection(weather):
    with weather.adbc() as opened:
        yield opened


def test_pandas_reads_arrow_types_and_parameters_by_the_cursor(connection):
    query = "SELECT city, temp FROM weather WHERE city = ? AND temp < ? ORDER BY temp"
    # Of pandas itself, whatever the driver.
    with pytest.raises(NotImplementedError, match="params"):
        pd.read_sql(query, connection, params=("Rom", 1.0))
    with connection.cursor() as cursor:
        cursor.execute(query, ("Rom", 1.0))
        assert cursor.fetch_df()["temp"].tolist() == pytest.approx([0.1, 0.4, 0.7])
    typed = pd.read_sql("SELECT ts, city, temp FROM weather ORDER BY ts", connection, dtype_backend="pyarrow", index_col="ts")
    assert str(typed.index.dtype).startswith("timestamp[ns]") and len(typed) == 1000


def test_pandas_writes_with_types_and_reads_a_table_by_name(connection):
    frame = pd.DataFrame({
        "at": pd.date_range("2024-01-01", periods=100, freq="s"), "host": pd.Categorical(["a", "b"] * 50),
        "n": pd.array([None, *range(99)], dtype="Int64"), "ok": [True, False] * 50,
    })  # fmt: skip
    frame.to_sql("pandas_typed", connection, index=False, if_exists="replace", schema="public")
    assert len(pd.read_sql("pandas_typed", connection)) == 100
    back = pd.read_sql("SELECT * FROM pandas_typed ORDER BY at", connection, dtype_backend="numpy_nullable")
    assert back["n"].isna().sum() == 1 and back["host"].tolist() == frame["host"].tolist() and back["ok"].tolist() == frame["ok"].tolist()


def test_polars_reads_in_batches_and_by_address(weather, connection):
    options = {"parameters": ("Oslo",)}
    batches = list(pl.read_database("SELECT temp FROM weather WHERE city = ?", connection, execute_options=options, iter_batches=True))
    assert sum(batch.height for batch in batches) == 334
    address = f"flightsql://{weather.ready['flight']}?transport=tcp"
    read = pl.read_database_uri("SELECT city, avg(temp) AS temp FROM weather GROUP BY city ORDER BY city", address, engine="adbc")
    assert read["city"].to_list() == ["Bern", "Oslo", "Rom"]


def test_duckdb_reads_the_stream_and_gives_one_back(weather, connection):
    duckdb = pytest.importorskip("duckdb")
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM weather WHERE temp >= 50")
        stream = cursor.fetch_record_batch()
        peer = duckdb.connect()
        peer.register("stream", stream)
        result = peer.sql("SELECT city, time_bucket(INTERVAL '1 hour', ts) AS hour, max(temp) AS temp FROM stream GROUP BY ALL")
        assert cursor.adbc_ingest("hours", result.to_arrow_reader(), mode="create") > 20
    assert weather.sql("SELECT count(DISTINCT city), max(temp) FROM hours") == [(3, 99.9)]


def test_datafusion_reads_the_stream(weather, connection):
    datafusion = pytest.importorskip("datafusion")
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM weather")
        context = datafusion.SessionContext()
        context.from_arrow(cursor.fetch_record_batch(), name="weather")
        found = context.sql("SELECT city, count(*) AS n FROM weather GROUP BY city ORDER BY city").to_pydict()
    assert found == {"city": ["Bern", "Oslo", "Rom"], "n": [333, 334, 333]}


def test_metadata_as_generators_of_sql_ask_for_it(weather, connection):
    """The queries of dbt's and SQLMesh's adapters over information_schema."""
    tables = weather.sql(
        "SELECT table_catalog AS database, table_name AS name, table_schema AS schema, "
        "CASE WHEN table_type = 'BASE TABLE' THEN 'table' WHEN table_type = 'VIEW' THEN 'view' ELSE table_type END AS type "
        "FROM information_schema.tables WHERE table_schema ILIKE 'public' AND table_name = 'weather'"
    )
    assert tables == [("tandem", "weather", "public", "table")]
    columns = weather.sql(
        "SELECT column_name, data_type, character_maximum_length, numeric_precision, is_nullable FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = 'weather' ORDER BY ordinal_position"
    )
    assert [(name, null) for name, *_, null in columns] == [("ts", "NO"), ("city", "NO"), ("temp", "YES")]
    assert weather.sql("SELECT DISTINCT schema_name FROM information_schema.schemata WHERE schema_name ILIKE 'public'") == [("public",)]
    found = connection.adbc_get_objects(depth="tables", db_schema_filter="pub%", table_name_filter="weath_r", table_types_filter=["TABLE"])
    (catalog,) = found.read_all().to_pylist()
    (schema,) = catalog["catalog_db_schemas"]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["weather"]
    none = connection.adbc_get_objects(depth="tables", db_schema_filter="absent").read_all().to_pylist()
    assert not any(catalog["catalog_db_schemas"] for catalog in none)
    schemas = connection.adbc_get_objects(depth="db_schemas", db_schema_filter="%").read_all().to_pylist()
    assert {"public", "information_schema"} <= {s["db_schema_name"] for c in schemas for s in c["catalog_db_schemas"]}


@pytest.mark.parametrize("name", ["adbc_python", "frames_python", "duckdb_python", "datafusion_python"])
def test_the_page_s_snippets(own_node, name):
    for package in ("duckdb", "datafusion"):
        if name.startswith(package):
            pytest.importorskip(package)
    own_node.sql("CREATE TABLE weather (ts TIMESTAMP, city VARCHAR, temp DOUBLE)")
    own_node.sql("INSERT INTO weather VALUES (TIMESTAMP '2024-01-01', 'Oslo', -3.5), (TIMESTAMP '2024-01-01', 'Rom', 11.0)")
    said = []
    exec(compile(programs.addressed(programs.snippets("python")[name], own_node), name, "exec"), {"print": lambda *words: said.append(words)})
    assert "Oslo" in str(said)
