"""The commands of the system's processes, for ``emx up`` and docker-compose.yml alike.

``-P`` keeps the working directory out of Python's module path, so that nothing in it is ever imported.
"""

GATEWAY = ("python", "-P", "-m", "emx_gateway")
COURIER = ("python", "-P", "-m", "emx_gateway.courier")
WORKER = ("python", "-P", "-m", "emx_worker")

REDIS = (
    *("redis-server", "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
    *("--protected-mode", "no"),
)
"""Redis without snapshots, which would be out of date, and without eviction, which would lose messages.

In containers it has no password, on a network of its own; ``emx up`` gives it one, and binds it to loopback.
"""
