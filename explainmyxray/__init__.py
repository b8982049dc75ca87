"""ExplainMyXray: chest radiographs in, structured reports with boxes out.

Research software, not for clinical use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explainmyxray.client import AsyncClient, Client, verify_webhook
    from explainmyxray.local import load_model, run_inference

__all__ = ["AsyncClient", "Client", "load_model", "run_inference", "verify_webhook"]

_ROOMS = {
    "AsyncClient": "explainmyxray.client",
    "Client": "explainmyxray.client",
    "load_model": "explainmyxray.local",
    "run_inference": "explainmyxray.local",
    "verify_webhook": "explainmyxray.client",
}


def __getattr__(name: str) -> Any:
    """Import torch only when a model is wanted, and httpx only for a client (PEP 562)."""
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
