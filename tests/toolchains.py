"""Packages of other languages' clients: fetched once into a folder, or the reason why they cannot be had.

Needs nothing but the standard library. `tests/run` calls `fetch`; by hand, `python3 tests/toolchains.py FOLDER` prints
the settings under which pytest finds the packages. Nothing here builds or runs a client: that is for their tests, where a
failure is a failure.
"""

import hashlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

CLIENTS = pathlib.Path(__file__).resolve().parent / "clients"
FETCH_SECONDS = 300


def _run(command, cwd, env=None):
    """Runs a command; why it failed, if it did."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, errors="replace",
            timeout=FETCH_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"not fetched within {FETCH_SECONDS} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr + done.stdout)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Package managers end with advice; what went wrong stands before it.
    return next((line for line in lines if "ERR" in line or line.startswith("go: ")), lines[-1] if lines else "it failed")


def _absent(*programs):
    missing = [program for program in programs if not shutil.which(program)]
    return f"not on the path: {', '.join(missing)}" if missing else None


def _kept(home, sources, fetch):
    """Calls `fetch(home)` on an empty folder, unless it was done from the same sources; why not, if not."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    stamp = home / "fetched"
    if stamp.exists() and stamp.read_text() == digest:
        return None
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    why = fetch(home)
    if why is None:
        stamp.write_text(digest)
    return why


def java(home):
    """Jars in `home/jars`."""
    pom = CLIENTS / "java" / "pom.xml"

    def fetch(home):
        command = ["mvn", "-q", "-B", "-f", str(pom), f"-Dmaven.repo.local={home / 'repository'}", "dependency:copy-dependencies"]
        why = _run([*command, f"-DoutputDirectory={home / 'jars'}"], home)
        shutil.rmtree(home / "repository", ignore_errors=True)
        return why

    return _absent("java", "javac", "mvn") or _kept(home, [pom], fetch)


def node(home):
    """Packages in `home/node_modules`."""
    sources = [CLIENTS / "node" / "package.json", CLIENTS / "node" / "package-lock.json"]

    def fetch(home):
        for source in sources:
            shutil.copy(source, home)
        return _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"], home)

    return _absent("node", "npm") or _kept(home, sources, fetch)


def go(home):
    """Modules in `home/modules`; the compiler's cache is to lie in `home/built`."""
    sources = [CLIENTS / "go" / "go.mod", CLIENTS / "go" / "go.sum"]

    def fetch(home):
        return _run(["go", "mod", "download"], CLIENTS / "go", go_settings(home))

    return _absent("go") or _kept(home, sources, fetch)


def go_settings(home):
    """Environment of the go command."""
    return {
        "GOMODCACHE": str(home / "modules"), "GOCACHE": str(home / "built"), "GOTOOLCHAIN": "local", "GOFLAGS": "-modcacherw",
        "CGO_ENABLED": "0", "GOWORK": "off",
    }  # fmt: skip


def sqlalchemy(home, python=sys.executable):
    """Python packages in `home/packages`, apart from all others: their wishes for versions do not fit together."""
    wanted = CLIENTS / "requirements-sqlalchemy.txt"

    def fetch(home):
        options = ["--quiet", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:", "--no-deps"]
        return _run([str(python), "-m", "pip", "install", *options, "--target", str(home / "packages"), "-r", str(wanted)], home)

    return _kept(home, [wanted], fetch)


def fetch(cache, python, missing):
    """Fetches all; the settings under which the tests find them. `missing(what, why)` is told what cannot be had."""
    settings = {}
    kinds = {"Java": java, "Node": node, "Go": go, "SQLAlchemy": lambda home: sqlalchemy(home, python)}
    for kind, get in kinds.items():
        home = pathlib.Path(cache) / kind.lower()
        why = get(home)
        name = f"TANDEM_TEST_{kind.upper()}"
        settings[name if why is None else f"{name}_WHY"] = why or str(home)
        if why is not None:
            missing(f"the clients of {kind}", why)
    return settings


if __name__ == "__main__":
    told = fetch(pathlib.Path(sys.argv[1]).resolve(), sys.executable, lambda *why: print(*why, file=sys.stderr))
    for name, value in told.items():
        print(f"export {name}={shlex.quote(value)}")
