"""Clients that run as programs of their own: where their packages are, what each case came to, and the page's snippets."""

import os
import pathlib
import re
import signal
import subprocess

import pytest

import harness

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "clients.md"
WRITER = "writer-0123456789abcdef"
PROGRAM_SECONDS = 150


def home(language):
    """The folder of a language's packages; skips with the reason if they cannot be had."""
    name = f"TANDEM_TEST_{language.upper()}"
    if name not in os.environ:
        pytest.skip(os.environ.get(f"{name}_WHY", f"tests/run fetches the packages of {language}, and says where by {name}"))
    return pathlib.Path(os.environ[name])


def build(command, cwd=None, env=None, seconds=600):
    """Compiles something; a failure fails the test."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def output(command, cwd=None, env=None, seconds=PROGRAM_SECONDS, expect=0):
    """Standard output of a program that ends by itself; its exit code must be `expect`, if that is a number."""
    with subprocess.Popen(
        list(map(str, command)), cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"the program still runs after {seconds} s\n{out[-3000:]}\n{err[-3000:]}") from None
    if expect is not None:
        assert process.returncode == expect, f"exit code {process.returncode}\n{out[-3000:]}\n{err[-3000:]}"
    return out


class Cases:
    """What the cases of a program came to. Each must be asked for by name."""

    def __init__(self, command, **keywords):
        self.text = output(command, expect=None, **keywords)
        self.results = {}
        for line in self.text.splitlines():
            if match := re.match(r"(ok|failed) (\w+)(?:: (.*))?$", line):
                self.results[match[2]] = None if match[1] == "ok" else match[3] or "?"

    def check(self, name):
        assert name in self.results, f"the program did not come to {name}:\n{self.text[-3000:]}"
        assert self.results[name] is None, self.results[name]

    def names(self):
        return set(self.results)


def guarded_node(directory):
    """A node, not started yet, that wants the token WRITER."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokens").write_text(f"write {WRITER}\n")
    (directory / "tokens").chmod(0o600)
    return harness.Node(directory / "store", directory / "run", ["--auth-token-file", directory / "tokens"])


def snippets(language):
    """{name: text} of the page's code in a language. A comment `<!-- snippet: NAME -->` stands before each."""
    found = re.findall(r"<!-- snippet: (\w+) -->\n+```(\w+)\n(.*?)```\n", PAGE.read_text(), re.DOTALL)
    return {name: text for name, kind, text in found if kind == language}


def addressed(text, node):
    """A snippet that talks to `node` instead of the addresses that the page names."""
    assert "127.0.0.1:8815" in text or "127.0.0.1:9000" in text, "the snippet names no address"
    return text.replace("127.0.0.1:8815", node.ready["flight"]).replace("127.0.0.1:9000", node.ready["http"])


def from_environment(text):
    """A Go snippet that is compiled before there is a node: its addresses are those of FLIGHT and HTTP when it runs."""
    assert "127.0.0.1:8815" in text or "127.0.0.1:9000" in text, "the snippet names no address"
    text = text.replace("import (", 'import (\n\tenvironment "os"\n', 1)
    for address, name in (("127.0.0.1:8815", "FLIGHT"), ("127.0.0.1:9000", "HTTP")):
        text = text.replace(address, f'" + environment.Getenv("{name}") + "')
    return text


def check_lines(node, prefix):
    """What the programs wrote by line protocol: the same by all of them."""
    for version in ("auto", "1", "2", "3"):
        table = f"{prefix}_questdb_{version}"
        columns = "count(*), sum(n), round(sum(f), 6), count(DISTINCT city), min(s), count(DISTINCT seen), sum(CASE WHEN b THEN 1 ELSE 0 END)"
        assert node.sql(f"SELECT {columns} FROM {table}") == [(100, 4950, 4960.0, 3, 'line\nbreak "0', 100, 50)], table
        stamps = node.table(f"SELECT min(timestamp) a, max(timestamp) b FROM {table}").to_pylist()[0]
        assert (stamps["a"].value, stamps["b"].value) == (1704067200000000001, 1704067200000000100), table
        types = dict(node.sql(f"SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{table}'"))
        assert ("a" in types) == (version != "1") and ("d" in types) == (version in ("auto", "3")), table
        if "a" in types:
            assert node.sql(f"SELECT a FROM {table} WHERE n = 7") == [([[7.0, 0.5], [1.5, 2.5]],)], table
        if "d" in types:
            assert node.sql(f"SELECT DISTINCT CAST(d AS VARCHAR) LIKE '12.345%' FROM {table}") == [(True,)], table
    assert node.sql(f"SELECT count(*) FROM {prefix}_clash") == [(1,)]
    more = {"java": 1001, "go": 1001, "node": 1000}[prefix]
    rows = node.sql(f"SELECT count(*), sum(n), count(DISTINCT city) FROM {prefix}_influxdb2")
    assert rows == [(more, 499500 + 1000 * (more - 1000), 3)]
    assert node.sql(f"SELECT count(*), sum(n), count(DISTINCT room) FROM {prefix}_influxdb3") == [(1001, 500500, 7)]
