"""How Java programs are compiled and started here."""

import programs

# The JDBC driver reaches into the JDK.
OPEN = "--add-opens=java.base/java.nio=ALL-UNNAMED"


def classpath(only=""):
    """Of the jars whose names begin with `only`."""
    jars = sorted((programs.home("Java") / "jars").glob(f"{only}*.jar"))
    assert jars, only
    return ":".join(map(str, jars))


def compiled(directory, *sources, only=""):
    """The command that runs a class of these sources."""
    path = classpath(only)
    programs.build(["javac", "-d", directory, "-cp", path, *(programs.HERE / "java" / source for source in sources)])
    return ["java", OPEN, "-cp", f"{path}:{directory}"]
