"""Go clients: ADBC's Flight SQL driver, also behind database/sql, Arrow's Flight SQL client, QuestDB's and InfluxDB's."""

import programs
import pytest

CASES = [
    "adbc_statements", "adbc_parameters", "adbc_ingest", "adbc_metadata", "adbc_transactions", "adbc_errors", "adbc_tokens",
    "database_sql", "database_sql_transactions", "database_sql_pool",
    "flightsql_statements", "flightsql_prepared", "flightsql_metadata", "flightsql_transactions", "flightsql_ingest",
    "flightsql_cancel", "flightsql_tokens",
    "questdb_versions", "questdb_errors", "questdb_tokens", "influxdb2", "influxdb2_tokens", "influxdb3", "influxdb3_tokens",
]  # fmt: skip


@pytest.fixture(scope="module")
def cases(node, go_cases, tmp_path_factory):
    with programs.guarded_node(tmp_path_factory.mktemp("guarded")) as guarded:
        places = [one.ready[port] for one in (node, guarded) for port in ("flight", "http")]
        return programs.Cases([go_cases, *places, programs.WRITER])


@pytest.mark.parametrize("name", CASES)
def test_go(cases, name):
    cases.check(name)


def test_what_was_written(cases, node):
    assert cases.names() == set(CASES)
    programs.check_lines(node, "go")


def run(programs_folder, name, node):
    return programs.output([programs_folder / name], env={"FLIGHT": node.ready["flight"], "HTTP": node.ready["http"]})


@pytest.mark.parametrize("name", ["adbc_go", "flightsql_go"])
def test_the_page_s_snippets_that_read(go_programs, own_node, name):
    assert "Oslo -3.5" in run(go_programs, name, own_node)


@pytest.mark.parametrize("name", ["questdb_go", "influxdb2_go", "influxdb3_go"])
def test_the_page_s_snippets_that_write(go_programs, node, name):
    run(go_programs, name, node)
    assert node.sql(f"SELECT city, temp FROM {name}") == [("Oslo", -3.5)]
