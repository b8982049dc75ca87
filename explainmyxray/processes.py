"""The command of every process of the system: ``emx up`` and docker-compose.yml start the same ones.

``-P`` keeps the working directory out of Python's module path, so that nothing in it is ever imported.
"""

GATEWAY = ("python", "-P", "-m", "emx_gateway")
COURIER = ("python", "-P", "-m", "emx_gateway.courier")
WORKER = ("python", "-P", "-m", "emx_worker")

REDIS = (
    *("redis-server", "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
    *("--protected-mode", "no"),
)
"""Disposable: an old snapshot would lie, and an evicted message would be a lost one.

It has no password: it listens on loopback, or on a network of containers alone.
"""
