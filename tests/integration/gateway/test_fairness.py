"""What one tenant may ask for, and how long another waits for it."""

import concurrent.futures
import io
import time
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from emx_shared.api_keys import KeyRing
from emx_shared.store.directory import DirectoryStore
from support.gateway import StartGateway

MANY = 60


def large_png() -> bytes:
    small = np.random.default_rng(0).integers(0, 255, (250, 250), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((5000, 5000)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def test_a_tenant_with_many_large_images_keeps_no_other_waiting(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    ring = KeyRing(DirectoryStore(tmp_path))
    greedy, modest = ({"Authorization": f"Bearer {ring.create(name)[1]}"} for name in ("greedy", "modest"))
    with start_gateway(redis_url, tmp_path) as gateway, httpx.Client(base_url=gateway.url, timeout=90) as client:
        files = {"file": ("x.png", large_png())}
        large = client.post("/v1/jobs", files=files, headers=greedy).json()["id"]
        small = client.post("/v1/jobs", files={"file": ("x.png", gateway.png())}, headers=modest).json()["id"]

        def ask(path: str, who: dict[str, str]) -> tuple[int, float]:
            answer = httpx.get(gateway.url + path, headers=who, timeout=90)
            return answer.status_code, time.monotonic()

        with concurrent.futures.ThreadPoolExecutor(MANY) as threads:
            asked = [threads.submit(ask, f"/v1/jobs/{large}/image.png", greedy) for _ in range(MANY)]
            time.sleep(1)
            began = time.monotonic()
            assert ask("/v1/jobs", modest)[0] == 200
            assert ask(f"/v1/jobs/{small}/image.png", modest)[0] == 200
            waited = time.monotonic() - began
            unfinished = sum(not each.done() for each in asked)
            statuses = [each.result()[0] for each in asked]
    assert unfinished > MANY / 2, f"the other tenant waited for {MANY - unfinished} images, {waited:.1f} s"
    assert set(statuses) <= {200, 503}
