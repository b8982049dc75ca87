"""Writes reference/settings.md from the class Settings."""

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from emx_shared.settings import Settings

ROOT = Path(__file__).resolve().parents[2]

GROUPS: dict[str, tuple[str, ...]] = {
    "Object store": ("store", "s3_access_key", "s3_secret_key", "s3_region", "s3_public"),
    "Redis": ("redis",),
    "Gateway": (
        "host",
        "port",
        "public_url",
        "trusted_proxies",
        "keep_alive",
        "allow_keyless_bind",
        "allowed_hosts",
        "cors_origins",
        "explain_timeout",
        "audit_log",
    ),
    "Client and command line": ("url", "api_key"),
    "Limits": (
        "submit_limit",
        "read_limit",
        "daily_quota",
        "max_queued_per_tenant",
        "max_queued",
        "max_open_per_gateway",
        "max_connections",
        "receive_timeout",
        "max_bytes_in_hand",
        "max_upload_bytes",
        "max_pixels",
        "decode_timeout",
        "decode_memory",
        "max_batch_files",
    ),
    "Model and worker": ("model", "adapter", "device", "quantisation", "slots", "lease", "hang"),
    "A model server in place of the worker's own model": ("server", "server_key", "server_grammar"),
    "Jobs, batches and the reconciler": (
        "job_ttl",
        "upload_ttl",
        "keep_input",
        "retention_inputs",
        "retention_reports",
        "batch_window",
        "reconcile_every",
        "abandon_after",
    ),
    "Webhooks": (
        "webhook_secret",
        "webhook_allow",
        "webhook_allow_private",
        "webhook_timeout",
        "webhook_give_up",
    ),
    "Logs and metrics": ("log_level", "metrics_port", "metrics_host"),
}
"""Settings by concern. A setting that no group names is listed under ``OTHER``."""

OTHER = "Other"

_HEAD = """# Settings

Every setting is an environment variable. Durations are in seconds and sizes in bytes unless the description says
otherwise; an empty variable counts as unset. Generated from `shared/emx_shared/settings.py`, the only place that
reads the environment.

`.env` fills in what `docker-compose.yml` asks for, and nothing else. Any other setting has to be written into
that file: under `x-settings` for all three processes, or under the `environment` of one.

"""


def settings_reference() -> str:
    """Return the page."""
    grouped = {name for names in GROUPS.values() for name in names}
    others = tuple(name for name in Settings.model_fields if name not in grouped)
    text = _HEAD
    for title, names in {**GROUPS, OTHER: others}.items():
        known = [name for name in names if name in Settings.model_fields]
        if known:
            text += f"## {title}\n\n| variable | type | default | |\n| --- | --- | --- | --- |\n"
            text += "".join(_row(name) for name in known) + "\n"
    return text


def variable(name: str) -> str:
    """Return a setting's environment variable."""
    return f"{Settings.model_config['env_prefix']}{name.upper()}"


def _row(name: str) -> str:
    field = Settings.model_fields[name]
    cells = (f"`{variable(name)}`", _type(field.annotation), _default(field.default), field.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _type(annotation: Any) -> str:
    if get_origin(annotation) in (types.UnionType, Union):
        return _type(next(kind for kind in get_args(annotation) if kind is not type(None)))
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is list:
        return "JSON list"
    names = {str: "text", bool: "true or false", float: "number", int: "whole number", Path: "path"}
    return names.get(annotation, str(annotation))


def _default(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    text = str(value)
    if Path(text).is_absolute() and Path(text).is_relative_to(ROOT):
        text = Path(text).relative_to(ROOT).as_posix()
    return f"`{text}`"
