"""The whole system on an S3 server instead of a directory, with random weights of the demo model's shape."""

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from emx_shared.store.s3 import S3Store
from emx_training.pretrain.demo_architecture import (
    build_processor,
    demo_config,
    phantom_model_spec,
    random_model,
    save_checkpoint,
)
from explainmyxray.supervisor import Supervisor, free_port


def test_a_study_goes_through_s3(seaweed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = demo_config()
    spec = phantom_model_spec("random", "0")
    save_checkpoint(random_model(0, config), build_processor(config), spec, tmp_path / "model")
    monkeypatch.setenv("EMX_MODEL", str(tmp_path / "model"))
    monkeypatch.setenv("EMX_STORE", f"s3+http://{seaweed}/ready")
    monkeypatch.setenv("EMX_S3_ACCESS_KEY", "any")
    monkeypatch.setenv("EMX_S3_SECRET_KEY", "any")
    image = io.BytesIO()
    Image.effect_noise((300, 200), 60).save(image, "PNG")
    system = Supervisor(free_port(), tmp_path / "data")
    try:
        system.start()
        for _ in system.wait_until_ready():
            pass
        with httpx.Client(base_url=system.url, timeout=120) as client:
            answer = client.post("/explain", files={"file": ("x.png", image.getvalue())})
            assert answer.status_code == 200, answer.text
            job = answer.json()
            assert job["report"]["model"]["name"] == "random"
            overlay = client.get(f"/v1/jobs/{job['id']}/overlay.png").content
            assert Image.open(io.BytesIO(overlay)).size == (300, 200)
            keys = [entry.key for entry in _store(seaweed).list(f"jobs/{job['id']}/")]
            assert len(keys) == 3  # request, input, outcome
            assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
            assert not list(_store(seaweed).list(f"jobs/{job['id']}/input-"))
    finally:
        system.stop()


def _store(endpoint: str) -> S3Store:
    return S3Store(endpoint, "ready", "any", "any", "us-east-1", secure=False)
