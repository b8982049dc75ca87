"""The command of every process of the system: ``emx up`` and docker-compose.yml start the same ones."""

GATEWAY = ("python", "-m", "gateway")

_CELERY = ("python", "-m", "celery", "--quiet")
_OPTIONS = ("worker", "--pool", "threads", "--loglevel", "warning", "--without-gossip", "--without-mingle")
COURIER = (*_CELERY, "-A", "gateway.courier", *_OPTIONS)
WORKER = (*_CELERY, "-A", "worker.app", *_OPTIONS)

REDIS = (
    *("redis-server", "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
    *("--protected-mode", "no"),
)
"""Disposable: an old snapshot would lie, and an evicted message would be a lost one.

It has no password: it listens on loopback, or on a network of containers alone.
"""
