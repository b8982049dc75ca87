"""Paths, where a proxy puts a prefix before them."""

from starlette.types import Scope


def path_of(scope: Scope) -> str:
    """Return a request's path without the prefix, whether the proxy has taken that off or not."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path


def full_path_of(scope: Scope) -> str:
    """Return a request's path with the prefix, as ASGI has it and routing of mounted parts needs it."""
    return f"{scope.get('root_path', '')}{path_of(scope)}"
