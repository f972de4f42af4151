"""Node.js clients of line protocol: QuestDB's, InfluxDB 2's and InfluxDB 3's."""

import shutil

import programs
import pytest

CASES = ["questdb_versions", "questdb_errors", "questdb_tokens", "influxdb2", "influxdb2_tokens", "influxdb3", "influxdb3_tokens"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder from which programs find the packages."""
    home = programs.home("Node")
    folder = tmp_path_factory.mktemp("node-programs")
    (folder / "node_modules").symlink_to(home / "node_modules")
    shutil.copy(programs.HERE / "node" / "lines.mjs", folder)
    return folder


@pytest.fixture(scope="module")
def cases(node, folder, tmp_path_factory):
    with programs.guarded_node(tmp_path_factory.mktemp("guarded")) as guarded:
        command = ["node", "lines.mjs", node.ready["http"], guarded.ready["http"], programs.WRITER]
        return programs.Cases(command, cwd=folder)


@pytest.mark.parametrize("name", CASES)
def test_lines(cases, name):
    cases.check(name)


def test_what_was_written(cases, node):
    assert cases.names() == set(CASES)
    programs.check_lines(node, "node")


@pytest.mark.parametrize("name", ["questdb_node", "influxdb2_node", "influxdb3_node"])
def test_the_page_s_snippets(node, folder, name):
    (folder / "example.mjs").write_text(programs.addressed(programs.snippets("js")[name], node))
    programs.output(["node", "example.mjs"], cwd=folder)
    assert node.sql(f"SELECT city, temp FROM {name}") == [("Oslo", -3.5)]
