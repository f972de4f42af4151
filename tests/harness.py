"""Real processes for the suites: nodes, commands and stores, each bounded in time.

Promises: every process started here is ended here, by its own handle, whatever the test does; a node's log
stays readable in `Node.log` and its last lines are part of every error. Refuses to know any test's subject.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

import adbc_driver_flightsql.dbapi
import pyarrow.flight

READY_SECONDS = 60
STOP_SECONDS = 30
COMMAND_SECONDS = 120


def binary():
    """The program under test: TANDEM_BIN, or the one on the path."""
    found = os.environ.get("TANDEM_BIN") or shutil.which("tandem")
    if not found:
        raise RuntimeError("set TANDEM_BIN to the tandem binary, or use tests/run")
    return found


def clean_environment(extra=None):
    """This process's environment without what would change the product's behaviour."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TANDEM_", "AWS_", "GOOGLE_", "AZURE_", "RUST_LOG"))}
    return {**kept, **(extra or {})}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(check, seconds, what, every=0.05):
    """The first true answer of `check`; an error that says `what` did not happen."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(every)


def run(*arguments, expect=0, stdin=None, env=None, cwd=None, seconds=COMMAND_SECONDS):
    """Runs the program to its end. `expect` is the exit code to insist on; None for any."""
    done = subprocess.run(
        [binary(), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=clean_environment(env),
        cwd=cwd,
    )
    if expect is not None and done.returncode != expect:
        raise AssertionError(
            f"tandem {' '.join(map(str, arguments))}: exit code {done.returncode}, not {expect}\n"
            f"stdout: {done.stdout[-2000:]}\nstderr: {done.stderr[-2000:]}"
        )
    return done


class Node:
    """A node of `tandem serve`. Start with `start`, end with `stop` or `kill`; may be started again."""

    def __init__(self, store, directory=None, options=(), env=None, listen="127.0.0.1"):
        self.store = str(store)
        self.options = [str(o) for o in options]
        self.env = env or {}
        self.listen = listen
        self.directory = pathlib.Path(directory or tempfile.mkdtemp(prefix="tandem-node-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self._owned = directory is None
        self.process = None
        self.ready = None
        self._starts = 0

    # life

    def launch(self):
        """Starts the process without waiting for it to be ready."""
        assert self.process is None, "the node runs already"
        self._starts += 1
        self._ready_file = self.directory / f"ready-{self._starts}.json"
        self.log = self.directory / f"log-{self._starts}.txt"
        command = [
            binary(), "serve", "--store", self.store, "--flight", f"{self.listen}:0", "--http", "127.0.0.1:0",
            "--ready-file", str(self._ready_file), *(() if "--pg" in self.options else ("--pg", "127.0.0.1:0")), *self.options,
        ]  # fmt: skip
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=clean_environment(self.env)
            )
        return self

    def wait_ready(self, seconds=READY_SECONDS):
        def look():
            if self._ready_file.exists():
                return True
            if self.process.poll() is not None:
                code, self.process = self.process.returncode, None
                raise AssertionError(f"the node ended with exit code {code} before it was ready\n{self.log_end()}")
            return False

        wait_until(look, seconds, "the node is ready", every=0.02)
        self.ready = json.loads(self._ready_file.read_text())
        return self

    def is_ready(self):
        """Whether this life of the node answers requests by now."""
        return self._ready_file.exists()

    def start(self):
        return self.launch().wait_ready()

    def kill(self):
        """kill -9, at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            self.process = None

    def freeze(self):
        """SIGSTOP: the process stays, and does nothing until `thaw`."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self, seconds=STOP_SECONDS):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_ended(seconds)

    def wait_ended(self, seconds=STOP_SECONDS):
        """Waits for the process to end by itself; its exit code."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the node still runs after {seconds} s\n{self.log_end()}") from None
        self.process = None
        return code

    def restart(self):
        assert self.stop() == 0, self.log_end()
        return self.start()

    def close(self):
        """Ends the process, and removes the logs unless something is left to look at."""
        self.kill()
        if self._owned and not os.environ.get("TANDEM_KEEP"):
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start() if self.process is None else self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.log_end())
        self.close()

    def log_end(self, lines=40):
        with contextlib.suppress(OSError):
            return "\n".join(["--- " + str(self.log), *self.log.read_text(errors="replace").splitlines()[-lines:]])
        return ""

    def is_up(self):
        return self.process is not None and self.process.poll() is None

    # talking to it

    @property
    def url(self):
        return f"grpc://{self.ready['flight']}"

    def adbc(self, **options):
        """An ADBC DB-API connection."""
        return adbc_driver_flightsql.dbapi.connect(self.url, autocommit=True, db_kwargs=options or None)

    def flight(self):
        """A plain Flight client."""
        return pyarrow.flight.FlightClient(self.url)

    def sql(self, query, parameters=None):
        """One statement over a connection of its own; its rows, or none."""
        with self.adbc() as connection, connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    def table(self, query):
        """One query's result as an Arrow table."""
        with self.adbc() as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetch_arrow_table()

    def get(self, path):
        """(status, text) of an HTTP route."""
        try:
            with urllib.request.urlopen(f"http://{self.ready['http']}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def resident_bytes(self):
        """Memory of the process, now."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def tandem(self, command, *arguments, **keywords):
        """A command of the program, connected to this node."""
        return run(command, "--connect", self.url, *arguments, **keywords)


def put(client, table, batches, headers=(), metadata=None):
    """A plain DoPut of `batches`; the acknowledgements, as JSON values, in order."""
    path = [table] if isinstance(table, str) else list(table)
    descriptor = pyarrow.flight.FlightDescriptor.for_path(*path)
    options = call_options(headers)
    writer, reader = client.do_put(descriptor, batches[0].schema, options)
    acknowledged = []
    try:
        for batch in batches:
            if metadata is None:
                writer.write_batch(batch)
            else:
                writer.write_with_metadata(batch, metadata)
        writer.done_writing()
        while len(acknowledged) < len(batches):
            answer = reader.read()
            if answer is None:
                break
            acknowledged.append(json.loads(answer.to_pybytes()))
    finally:
        writer.close()
    return acknowledged


def call_options(headers=(), seconds=60):
    pairs = [(k.encode(), v.encode()) for k, v in dict(headers).items()]
    return pyarrow.flight.FlightCallOptions(timeout=seconds, headers=pairs)


def ticket(**fields):
    return pyarrow.flight.Ticket(json.dumps(fields).encode())


def action(client, kind, body=b""):
    """The result bodies of a Flight action."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [r.body.to_pybytes() for r in client.do_action(pyarrow.flight.Action(kind, body), call_options())]
