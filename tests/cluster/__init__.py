"""A cluster of real processes under random kills and pauses, the clients that write to it, and the checks of what is left.

`chaos` runs it all; `driver` disturbs nodes, `clients` write and read, `load` writes over fail-overs, `verify` judges, `wire` talks to one node, `spoil` stands
between the nodes and an object store, `links` breaks connections. Knows nothing of pytest.
"""
