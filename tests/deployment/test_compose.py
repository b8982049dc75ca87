"""docker-compose.yml, read by a parser; its object store is started for real, from the wheel."""

import os
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.utils.build import exclude_paths

from emx_shared.api_keys import KeyRing
from emx_shared.settings import Settings
from emx_shared.store import StoreError
from emx_shared.store.directory import DirectoryStore
from emx_shared.store.s3 import S3Store
from emx_shared.version import __version__
from explainmyxray.processes import COURIER, GATEWAY, REDIS, WORKER
from explainmyxray.supervisor import free_port
from support.paths import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("gateway", "courier", "worker")
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_every_part_is_there() -> None:
    assert set(SERVICES) == {*OURS, "redis", "seaweedfs", "prometheus", "alertmanager", "grafana"}


@pytest.mark.parametrize(
    ("name", "command"), [("gateway", GATEWAY), ("courier", COURIER), ("worker", WORKER), ("redis", REDIS)]
)
def test_commands_are_those_that_emx_up_starts(name: str, command: tuple[str, ...]) -> None:
    assert tuple(SERVICES[name]["command"]) == command


def test_the_images_own_commands_are_the_same() -> None:
    commands = re.findall(r"^CMD \[(.*?)\]", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert [tuple(re.findall(r'"(.*?)"', command)) for command in commands] == [GATEWAY, WORKER]


def test_our_processes_have_no_rights_that_they_do_not_need() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert service["user"] == "10001:10001"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert users == ["10001:10001"] * 2


def test_only_loopback_is_published() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert "127.0.0.1:8000:8000" in ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_workers_can_be_scaled() -> None:
    assert not {"container_name", "ports", "hostname"} & set(SERVICES["worker"])


def test_every_setting_is_one_that_we_read() -> None:
    for name in OURS:
        for variable in SERVICES[name]["environment"]:
            assert variable == "HF_TOKEN" or variable.removeprefix("EMX_").lower() in Settings.model_fields


def test_secrets_are_asked_for() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert asked == {"EMX_S3_ACCESS_KEY", "EMX_S3_SECRET_KEY", "EMX_WEBHOOK_SECRET", "GRAFANA_PASSWORD"}
    offered = set(re.findall(r"^#? ?(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert offered == set(re.findall(r"\$\{(\w+)", text))


def test_images_are_pinned_and_what_they_copy_exists() -> None:
    for service in SERVICES.values():
        assert re.search(r":v?\d", service["image"])
        assert "build" not in service or service["image"].endswith(f":{__version__}")
    for line in re.findall(r"^COPY (\S+) ", DOCKERFILE, re.MULTILINE):
        assert (ROOT / line).exists()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists()


def test_the_build_context_has_all_that_the_images_copy() -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    context = exclude_paths(str(ROOT), patterns)
    for source in re.findall(r"^COPY (\S+) ", DOCKERFILE, re.MULTILINE):
        command = ["git", "ls-files", "--", source]
        files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        assert files, source
        assert not set(files) - context


def test_the_requirements_are_those_of_the_extras() -> None:
    command = [sys.executable, "scripts/lock_requirements.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    torch = {
        extra: "\ntorch==" in (ROOT / f"requirements-{extra}.txt").read_text() for extra in ("gateway", "worker")
    }
    assert torch == {"gateway": False, "worker": True}


def test_the_object_store_starts_with_its_command_and_asks_for_the_keys(tmp_path: Path) -> None:
    port = free_port()
    ours = {"-dir": str(tmp_path), "-s3.port": str(port), "-s3.ip.bind": "127.0.0.1"}
    command = []
    for option in SERVICES["seaweedfs"]["command"]:
        name = option.partition("=")[0]
        command.append(f"{name}={ours.pop(name)}" if name in ours else option)
    assert not ours
    for part in ("master.port", "volume.port", "filer.port"):
        command += [f"-{part}={free_port()}", f"-{part}.grpc={free_port()}"]
    command += [f"-s3.port.grpc={free_port()}"]
    weed = str(Path(sysconfig.get_path("scripts")) / "weed")
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert set(SERVICES["seaweedfs"]["environment"]) <= set(environment)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [weed, f"-logdir={tmp_path}", *command], env=environment, stdout=log, stderr=log
        )
    try:
        with_key = S3Store(f"127.0.0.1:{port}", "explainmyxray", "key", "secret", "us-east-1", secure=False)
        _wait_for(with_key)
        with_key.put("a", b"1")
        assert with_key.get("a") == b"1"
        with pytest.raises(StoreError):
            S3Store(f"127.0.0.1:{port}", "explainmyxray", "key", "wrong", "us-east-1", secure=False).get("a")
    finally:
        process.kill()
        process.wait(20)


def _wait_for(store: S3Store) -> None:
    give_up = time.monotonic() + 60
    while True:
        try:
            return store.check()
        except StoreError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.5)


def test_the_gateways_image_has_the_command_that_makes_keys(tmp_path: Path) -> None:
    for folder in ("shared", "gateway", "explainmyxray"):
        assert f"COPY {folder} {folder}" in DOCKERFILE.partition("AS worker")[0]
    command = [sys.executable, "-m", "explainmyxray", "keys", "create", "--tenant", "ward-3"]
    store = {"EMX_STORE": f"file:{tmp_path}"}
    made = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **store}, capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    assert KeyRing(DirectoryStore(tmp_path)).find(made.stdout.strip())
