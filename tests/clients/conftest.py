"""Programs that several suites here share."""

import shutil

import java_programs
import programs
import pytest
import toolchains


@pytest.fixture(scope="session")
def go_programs(tmp_path_factory):
    """Folder of the Go programs: the cases, and the page's snippets by their names. One build: all share their libraries.

    The addresses that snippets name are replaced by those of the variables FLIGHT and HTTP when they run.
    """
    home = programs.home("Go")
    source = tmp_path_factory.mktemp("go") / "source"
    shutil.copytree(programs.HERE / "go", source)
    for name, text in programs.snippets("go").items():
        (source / name).mkdir()
        (source / name / "main.go").write_text(programs.from_environment(text))
    target = source.parent / "bin"
    target.mkdir()
    command = ["go", "build", "-p", "2", "-ldflags", "-s -w", "-o", target, "./..."]
    programs.build(command, cwd=source, env=toolchains.go_settings(home))
    return target


@pytest.fixture(scope="session")
def go_cases(go_programs):
    return go_programs / "cases"


@pytest.fixture(scope="session")
def java_lines(tmp_path_factory):
    """The command that runs the cases of line protocol in Java; arguments follow."""
    return [*java_programs.compiled(tmp_path_factory.mktemp("java") / "classes", "Cases.java", "Lines.java"), "Lines"]
