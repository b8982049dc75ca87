"""ExplainMyXray: chest radiographs in, structured reports with boxes out.

Research software, not for clinical use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explainmyxray.inference import load_model, run_inference

__all__ = ["load_model", "run_inference"]


def __getattr__(name: str) -> Any:
    """Import torch only when a model is wanted (PEP 562)."""
    if name in __all__:
        from explainmyxray import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
