"""``emx model``: what a model needs, and what to do where it can't be had."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import huggingface_hub
import psutil
import pytest
from huggingface_hub.errors import GatedRepoError
from typer.testing import CliRunner

from emx_shared.settings import settings
from emx_training.recipes.full_size import medgemma_config
from emx_worker.model.footprint import footprint
from explainmyxray.cli.main import app


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["model", *arguments])


@pytest.fixture
def shape(tmp_path: Path) -> str:
    """A folder with MedGemma-4B's configuration, and nothing else."""
    medgemma_config().save_pretrained(tmp_path)
    return str(tmp_path)


def test_medgemma_needs_what_the_full_size_was_measured_to_need() -> None:
    needed = footprint(medgemma_config())
    assert needed.parameters == 4_300_079_472
    assert needed.stored == 2 * needed.parameters
    assert 4.2e9 < needed.int4 < 5.3e9
    assert 3.5e9 < needed.nf4 < 4.5e9
    assert 8.6e9 < needed.bf16 < 9.5e9
    assert needed.full > 17e9


def test_a_machine_that_can_is_told_so(shape: str) -> None:
    result = run("check", shape, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["to_download"] == 0
    assert found["obstacles"] == []
    assert "This machine can run it" in run("check", shape).stdout


@pytest.fixture
def chosen(shape: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Set EMX_MODEL to such a folder."""
    monkeypatch.setenv("EMX_MODEL", shape)
    settings.cache_clear()
    yield shape
    settings.cache_clear()


def test_the_model_of_the_settings_is_checked_unless_another_is_named(chosen: str, tmp_path: Path) -> None:
    assert json.loads(run("check", "--json").stdout)["model"] == chosen
    assert "/no/such" in run("check", "/no/such").stderr


def test_a_model_that_is_a_directory_is_not_downloaded(chosen: str) -> None:
    result = run("pull")
    assert result.exit_code == 1
    assert "nothing to download" in result.stderr


def test_a_machine_with_too_little_memory_is_told_what_to_do(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * 10**9))
    result = run("check", shape)
    assert result.exit_code == 1
    assert "Memory is too small" in result.stdout


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: str(Path(shape) / "config.json"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    result = run("check", "google/medgemma-4b-it")
    assert result.exit_code == 1
    assert "The disk is too full" in result.stdout


@pytest.mark.parametrize("command", ["check", "pull"])
def test_without_access_the_licence_and_the_token_are_explained(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gated(*_: Any, **__: Any) -> None:
        request = httpx.Request("GET", "https://hub.invalid")
        raise GatedRepoError("gated", response=httpx.Response(403, request=request))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", gated)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    result = run(command)
    assert result.exit_code == 1
    for hint in ("google/medgemma-4b-it is gated", "Health AI Developer Foundations", "HF_TOKEN", "EMX_MODEL"):
        assert hint in result.stderr


@pytest.mark.parametrize("command", ["check", "pull"])
def test_without_network_it_says_so(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    result = run(command, "somebody/model")
    assert result.exit_code == 1
    assert "can't be reached" in result.stderr


def test_pull_says_where_it_lies_and_how_to_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def snapshot(name: str, **how: Any) -> str:
        asked[name] = how
        return str(tmp_path / "0a1b2c")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    result = run("pull", "somebody/model", "--revision", "v1")
    assert result.exit_code == 0
    assert asked["somebody/model"]["revision"] == "v1"
    assert "0a1b2c" in result.stdout
    assert "EMX_MODEL=somebody/model" in result.stdout
