"""Options and fixtures of all tests, and the tier of each by its folder."""

from pathlib import Path

import pytest

pytest_plugins = ["support.object_stores", "support.servers", "support.reports"]

TIERS = ("unit", "integration", "end_to_end", "deployment")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="folder for pictures of the workstation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, so that ``-m unit`` selects as ``tests/unit`` does."""
    for item in items:
        tier = next((part for part in item.path.relative_to(Path(__file__).parent).parts if part in TIERS), None)
        if tier:
            item.add_marker(tier)
