"""pandas and polars through ADBC."""

import pandas as pd
import polars as pl
import pytest


@pytest.fixture
def connection(node):
    with node.adbc() as opened:
        yield opened


def test_pandas_writes_and_reads(connection):
    frame = pd.DataFrame({
        "ts": pd.date_range("2024-01-01", periods=1000, freq="min"), "host": [f"h{i % 5}" for i in range(1000)], "v": range(1000),
    })  # fmt: skip
    assert frame.to_sql("pandas_t", connection, index=False, if_exists="fail") in (1000, None)
    with pytest.raises(Exception, match="pandas_t"):
        frame.to_sql("pandas_t", connection, index=False, if_exists="fail")
    frame.to_sql("pandas_t", connection, index=False, if_exists="append")
    got = pd.read_sql("SELECT host, count(*) AS n, sum(v) AS v FROM pandas_t GROUP BY host ORDER BY host", connection)
    assert got["n"].tolist() == [400] * 5
    assert got["v"].sum() == 2 * frame["v"].sum()
    frame.head(10).to_sql("pandas_t", connection, index=False, if_exists="replace")
    assert len(pd.read_sql("SELECT * FROM pandas_t", connection)) == 10
    back = pd.read_sql("SELECT * FROM pandas_t ORDER BY ts", connection)
    pd.testing.assert_frame_equal(back, frame.head(10), check_dtype=False)
    assert len(pd.read_sql("SELECT * FROM pandas_t WHERE v >= 5", connection)) == 5


def test_polars_writes_and_reads(connection):
    frame = pl.DataFrame({
        "ts": pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 1, 9), "1h", eager=True),
        "host": ["a", "b"] * 5, "v": [float(i) for i in range(10)], "tags": [["x", "y"]] * 10,
    })  # fmt: skip
    frame.write_database("polars_t", connection, if_table_exists="fail", engine="adbc")
    frame.write_database("polars_t", connection, if_table_exists="append", engine="adbc")
    got = pl.read_database("SELECT * FROM polars_t ORDER BY ts, v", connection)
    assert got.height == 20
    assert got.unique(maintain_order=True).sort("ts").equals(frame.sort("ts"))
    frame.head(3).write_database("polars_t", connection, if_table_exists="replace", engine="adbc")
    assert pl.read_database("SELECT count(*) AS n FROM polars_t", connection).item() == 3
    one = pl.read_database("SELECT v FROM polars_t WHERE host = ?", connection, execute_options={"parameters": ("b",)})
    assert one["v"].to_list() == [1.0]


def test_polars_categories_and_enums(connection):
    frame = pl.DataFrame({"c": pl.Series(["red", "blue", None], dtype=pl.Categorical), "n": [1, 2, 3]})
    frame.write_database("polars_c", connection, if_table_exists="replace", engine="adbc")
    got = pl.read_database("SELECT c FROM polars_c ORDER BY n", connection)
    assert got["c"].to_list() == ["red", "blue", None]
