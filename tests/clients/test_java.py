"""Java clients of line protocol: QuestDB's, InfluxDB 2's and InfluxDB 3's."""

import java_programs
import programs
import pytest

CASES = ["questdb_versions", "questdb_errors", "questdb_tokens", "influxdb2", "influxdb2_tokens", "influxdb3", "influxdb3_tokens"]


@pytest.fixture(scope="module")
def cases(node, java_lines, tmp_path_factory):
    with programs.guarded_node(tmp_path_factory.mktemp("guarded")) as guarded:
        return programs.Cases([*java_lines, node.ready["http"], guarded.ready["http"], programs.WRITER])


@pytest.mark.parametrize("name", CASES)
def test_lines(cases, name):
    cases.check(name)


def test_what_was_written(cases, node):
    assert cases.names() == set(CASES)
    programs.check_lines(node, "java")


@pytest.mark.parametrize("name", ["questdb_java", "influxdb2_java", "influxdb3_java"])
def test_the_page_s_snippets(node, tmp_path, name):
    path = java_programs.classpath()
    source = tmp_path / "Example.java"
    source.write_text(programs.addressed(programs.snippets("java")[name], node))
    programs.output(["java", "-cp", path, source])
    assert node.sql(f"SELECT city, temp FROM {name}") == [("Oslo", -3.5)]
