"""One primary at a time on an object store: the roles, the fences and the silence that counts are all objects there."""

import pytest

import harness
from cluster.load import TABLE, Load, become, roles


@pytest.mark.seconds(300)
def test_a_killed_primary_is_replaced(seaweedfs, tmp_path):
    url = seaweedfs.url("failover")

    def node(name, *options):
        return harness.Node(url, tmp_path / name, [*seaweedfs.arguments(), "--node-id", name, *options])

    with node("a", "--mode", "single-primary") as a, node("b") as b, node("c") as c:
        become([a, b, c], ["primary", "standby", "standby"])
        a.sql(TABLE)
        with Load([a, b, c]) as load:
            a.kill()
            load.wait_for(20)
        print(f"kill -9 of the primary: the writers' longest gap was {load.longest_gap():.2f} s")
        load.verify(b, c)
        assert sorted(roles([b, c])) == ["primary", "standby"]
        # It comes back as what it is now, and catches up.
        a.start()
        become([a], ["standby"])
        load.verify(a)
