"""Object stores that install from package registries, started on loopback for the tests."""

import os
import pathlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

import harness


def tool(name):
    """A program that came with this interpreter's packages, or a skip with the reason."""
    found = pathlib.Path(sys.executable).parent / name
    if not found.exists():
        pytest.skip(f"{name} cannot be had: its package did not install")
    return str(found)


class S3:
    """A running store and how to reach it."""

    def __init__(self, name, port, bucket, key, secret):
        self.name, self.port, self.bucket = name, port, bucket
        self.options = {
            "endpoint": f"http://127.0.0.1:{port}", "allow_http": "true", "access_key_id": key,
            "secret_access_key": secret, "region": "us-east-1",
        }  # fmt: skip

    def url(self, prefix):
        return f"s3://{self.bucket}/{prefix}"

    def arguments(self):
        return [x for k, v in self.options.items() for x in ("--store-option", f"{k}={v}")]

    def environment(self):
        return {
            "AWS_ENDPOINT_URL": self.options["endpoint"], "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.options["access_key_id"], "AWS_SECRET_ACCESS_KEY": self.options["secret_access_key"],
        }  # fmt: skip


def answers(port):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def started(command, directory, port, env, seconds=60):
    """Starts a store; ends it when the generator is closed."""
    log = directory / "server.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=harness.clean_environment(env), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=directory
        )
    try:
        def up():
            assert process.poll() is None, f"{command[0]} ended at once: {log.read_text(errors='replace')[-2000:]}"
            return answers(port)

        harness.wait_until(up, seconds, f"{command[0]} answers", every=0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory):
    weed = tool("weed")
    directory = tmp_path_factory.mktemp("seaweedfs")
    disk = shutil.disk_usage(directory)
    if disk.free < disk.total * 0.015:
        pytest.skip(f"only {disk.free >> 20} MiB of the disk are free: SeaweedFS takes nothing when less than 1 % is")
    ports = [harness.free_port() for _ in range(5)]
    # Each HTTP port p has a gRPC port p + 10000.
    while max(ports) + 10_000 > 65_535 or len(set(ports)) < 5:
        ports = [20_000 + p % 30_000 for p in (harness.free_port() for _ in range(5))]
    command = [
        weed, "mini", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-webdav=false",
        "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-master.port={ports[0]}", f"-volume.port={ports[1]}",
        f"-filer.port={ports[2]}", f"-s3.port={ports[3]}", f"-admin.port={ports[4]}", "-bucket=test",
    ]  # fmt: skip
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    for _ in started(command, directory, ports[3], keys):
        yield S3("seaweedfs", ports[3], "test", "k", "s")


@pytest.fixture(scope="session")
def ministack(tmp_path_factory):
    program = tool("ministack")
    directory = tmp_path_factory.mktemp("ministack")
    port = harness.free_port()
    env = {
        "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SERVICES": "s3", "S3_PERSIST": "1", "S3_DATA_DIR": str(directory / "data"),
    }  # fmt: skip
    for _ in started([program], directory, port, env):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/test", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        yield S3("ministack", port, "test", "test", "test")


@pytest.fixture(scope="session")
def s3rver(tmp_path_factory):
    """A store without conditional writes: the negative control."""
    home = os.environ.get("TANDEM_TEST_S3RVER")
    if not home:
        pytest.skip("s3rver cannot be had: " + os.environ.get("TANDEM_TEST_S3RVER_WHY", "use tests/run, which installs it with npm"))
    directory = tmp_path_factory.mktemp("s3rver")
    port = harness.free_port()
    program = pathlib.Path(home) / "node_modules" / "s3rver" / "bin" / "s3rver.js"
    command = [
        shutil.which("node"), str(program), "--directory", str(directory), "--port", str(port), "--address", "127.0.0.1",
        "--configure-bucket", "test", "--silent",
    ]  # fmt: skip
    for _ in started(command, directory, port, {}):
        yield S3("s3rver", port, "test", "S3RVER", "S3RVER")
