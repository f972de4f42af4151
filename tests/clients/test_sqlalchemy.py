"""SQLAlchemy over Flight SQL; over PostgreSQL's wire it is tried in test_postgres.py."""

import os
import sys

import programs
import pytest

CASES = ["dbapi", "reads", "parameters", "reflection", "core", "writes", "literals", "tokens"]


@pytest.fixture(scope="module")
def alchemy():
    """The command that runs Python with SQLAlchemy and the dialect."""
    packages = programs.home("SQLAlchemy") / "packages"
    return ["env", f"PYTHONPATH={os.pathsep.join([str(packages), str(programs.HERE)])}", sys.executable, "-W", "ignore"]


@pytest.fixture(scope="module")
def cases(node, alchemy, tmp_path_factory):
    node.sql("CREATE TABLE alchemy (ts TIMESTAMP, host VARCHAR, n BIGINT, PRIMARY KEY (ts, host))")
    node.sql("INSERT INTO alchemy VALUES (TIMESTAMP '2024-01-01', 'a', 1), (TIMESTAMP '2024-01-02', 'b', 2)")
    with programs.guarded_node(tmp_path_factory.mktemp("guarded")) as guarded:
        places = [node.ready["flight"], guarded.ready["flight"], programs.WRITER]
        return programs.Cases([*alchemy, programs.HERE / "sqlalchemy_cases.py", *places])


@pytest.mark.parametrize("name", CASES)
def test_sqlalchemy(cases, name):
    cases.check(name)


def test_all_cases_are_asked_for(cases):
    assert cases.names() == set(CASES)


def test_the_page_s_snippet(own_node, alchemy, tmp_path):
    own_node.sql("CREATE TABLE weather (ts TIMESTAMP, city VARCHAR, temp DOUBLE)")
    own_node.sql("INSERT INTO weather VALUES (TIMESTAMP '2024-01-01', 'Oslo', -3.5), (TIMESTAMP '2024-01-01', 'Rom', 11.0)")
    source = tmp_path / "example.py"
    source.write_text(programs.addressed(programs.snippets("python")["sqlalchemy_python"], own_node))
    assert "Oslo" in programs.output([*alchemy, source])
