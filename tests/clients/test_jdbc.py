"""The Arrow Flight SQL JDBC driver, by which Java programs, DBeaver, DataGrip, Tableau and Metabase come."""

import java_programs
import programs
import pytest

CASES = [
    "connect", "ddl", "types", "parameters", "batches", "changes", "metadata", "every_getter", "transactions", "auto_commit",
    "errors", "large_results", "cancel", "time_travel", "tokens",
]  # fmt: skip
JAR = "flight-sql-jdbc-driver"


@pytest.fixture(scope="module")
def cases(node, tmp_path_factory):
    directory = tmp_path_factory.mktemp("jdbc")
    java = java_programs.compiled(directory / "classes", "Cases.java", "Jdbc.java", only=JAR)
    with programs.guarded_node(directory / "guarded") as guarded:
        return programs.Cases([*java, "Jdbc", node.ready["flight"], guarded.ready["flight"], programs.WRITER])


@pytest.mark.parametrize("name", CASES)
def test_jdbc(cases, name):
    cases.check(name)


def test_all_cases_are_asked_for(cases):
    assert cases.names() == set(CASES)


def test_the_page_s_snippet(node, tmp_path):
    path = java_programs.classpath(JAR)
    source = tmp_path / "Example.java"
    source.write_text(programs.addressed(programs.snippets("java")["jdbc"], node))
    assert "Oslo -3.5" in programs.output(["java", java_programs.OPEN, "-cp", path, source])
