"""SQLAlchemy over Flight SQL, by the dialect of flightsql-dbapi: a program of its own, since that package says that it wants
an SQLAlchemy older than the one it works with. Arguments: a node's Flight address, one that wants tokens, a token. Prints
"ok NAME" or "failed NAME: why"."""

import sys
import traceback
import warnings

warnings.simplefilter("ignore")

import flightsql.sqlalchemy  # noqa: E402, F401
from sqlalchemy import BigInteger, Column, MetaData, String, Table, create_engine, func, inspect, select, text  # noqa: E402

ADDRESS = f"datafusion+flightsql://{sys.argv[1]}?insecure=True"
PREPARED = "&feature-sqlalchemy-prepared-statements=on&feature-sqlalchemy-primary-keys=on"
engine = create_engine(ADDRESS + PREPARED)


def dbapi():
    connection = engine.raw_connection()
    cursor = connection.cursor()
    cursor.execute("SELECT host FROM alchemy WHERE n = ? AND host = ?", [2, "b"])
    assert [tuple(row) for row in cursor.fetchall()] == [("b",)]


def reads():
    with engine.connect() as connection:
        assert connection.execute(text("SELECT host, n FROM alchemy ORDER BY n")).fetchall() == [("a", 1), ("b", 2)]


def parameters():
    with engine.connect() as connection:
        query = text("SELECT host FROM alchemy WHERE n = :n AND host <> :other")
        assert connection.execute(query, {"n": 2, "other": "it's"}).fetchall() == [("b",)]


def reflection():
    looked = inspect(engine)
    assert "alchemy" in looked.get_table_names(schema="public")
    assert "public" in looked.get_schema_names()
    columns = looked.get_columns("alchemy", schema="public")
    assert [(c["name"], c["nullable"]) for c in columns] == [("ts", False), ("host", False), ("n", True)]
    assert looked.get_pk_constraint("alchemy", schema="public")["constrained_columns"] == ["ts", "host"]


def core():
    table = Table("alchemy", MetaData(), autoload_with=engine, schema="public")
    with engine.connect() as connection:
        assert connection.execute(select(table.c.host).where(table.c.n == 1)).fetchall() == [("a",)]
        assert connection.execute(select(func.count()).select_from(table).where(table.c.host.in_(["a", "b"]))).scalar() == 2


def writes():
    table = Table("alchemy_made", MetaData(), Column("n", BigInteger), Column("t", String))
    with engine.connect() as connection:
        table.create(connection, checkfirst=True)
        assert inspect(engine).has_table("alchemy_made")
        connection.execute(table.insert(), [{"n": i, "t": f"t{i}"} for i in range(3)])
        assert connection.execute(select(table.c.n, table.c.t).order_by(table.c.n)).fetchall() == [(0, "t0"), (1, "t1"), (2, "t2")]


def literals():
    """Without the feature, the dialect writes NULL where a parameter is: told here because it surprises."""
    with create_engine(ADDRESS).connect() as connection:
        assert connection.execute(text("SELECT host FROM alchemy WHERE n = :n"), {"n": 2}).fetchall() == []


def tokens():
    guarded, token = sys.argv[2:]
    with create_engine(f"datafusion+flightsql://{guarded}?insecure=True&token={token}{PREPARED}").connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    try:
        create_engine(f"datafusion+flightsql://{guarded}?insecure=True{PREPARED}").connect()
    except Exception as error:
        assert "nauthenticated" in repr(error), error
    else:
        raise AssertionError("no token was needed")


failed = False
for case in (dbapi, reads, parameters, reflection, core, writes, literals, tokens):
    try:
        case()
        print("ok", case.__name__)
    except Exception:
        failed = True
        print(f"failed {case.__name__}: {' '.join(traceback.format_exc().split())[-1500:]}")
sys.exit(failed)
