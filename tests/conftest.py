"""Real servers for the tests: Redis, SeaweedFS, a gateway; each stopped by the test that started it."""

import json
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from emx_shared.ledger import Ledger
from emx_shared.redis_state import RedisState
from emx_shared.settings import Settings
from emx_shared.store import Store
from emx_shared.store.directory import DirectoryStore
from emx_shared.store.s3 import S3Store
from explainmyxray.processes import REDIS
from explainmyxray.supervisor import find_redis, free_port
from support.gateway import StartGateway, running_gateway


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="folder for pictures of the workstation")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [find_redis(), *REDIS[1:], "--port", str(port), "--bind", "127.0.0.1"]
    process = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    client = redis.Redis.from_url(url)
    for _ in range(100):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.1)
    yield url
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real SeaweedFS S3 server."""
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    ports = {name: free_port() for name in ("s3.port", "master.port", "volume.port", "filer.port")}
    options = [f"-{name}={port}" for name, port in ports.items()]
    options += [f"-{name}.grpc={free_port()}" for name in ("master.port", "volume.port", "filer.port", "s3.port")]
    folder = tmp_path_factory.mktemp("seaweed")
    command = [
        str(weed),
        f"-logdir={folder}",
        "server",
        "-s3",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        *options,
    ]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    store = S3Store(f"127.0.0.1:{ports['s3.port']}", "ready", "any", "any", "us-east-1", secure=False)
    for attempt in range(60):
        try:
            store.check()
            break
        except Exception:
            if attempt == 59 or process.poll() is not None:
                process.kill()
                raise
            time.sleep(0.5)
    yield f"127.0.0.1:{ports['s3.port']}"
    process.kill()  # asked politely, it takes half a minute
    process.wait(20)


@pytest.fixture(params=["directory", "seaweed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each backend in turn."""
    if request.param == "directory":
        return DirectoryStore(tmp_path / "store")
    endpoint = request.getfixturevalue("seaweed")
    found = S3Store(endpoint, "ready", "any", "any", "us-east-1", secure=False)
    for entry in list(found.list("")):
        found.delete(entry.key)
    return found


class RememberingQueue:
    """Stands where Celery does, to see which messages were sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def enqueue_read(self, fallback_job: str, priority: str) -> None:
        self.sent.append(("read", fallback_job))

    def deliver(self, delivery: str) -> None:
        self.sent.append(("deliver", delivery))

    def advance_batch(self, batch: str) -> None:
        self.sent.append(("advance_batch", batch))

    def erase_batch(self, batch: str) -> None:
        self.sent.append(("erase_batch", batch))


@pytest.fixture
def redis_state(redis_url: str) -> Iterator[RedisState]:
    found = RedisState(redis_url, lease=1.0)
    yield found
    found.connection.client.flushall()


@pytest.fixture
def ledger(redis_state: RedisState, tmp_path: Path) -> Ledger:
    settings = Settings(lease=1.0, abandon_after=0.0, webhook_secret="whsec_" + "c2VjcmV0" * 4)
    return Ledger(DirectoryStore(tmp_path / "ledger"), redis_state, RememberingQueue(), settings)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without location tokens, and with a few rows more than it has tokens, as Gemma 3 has."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from emx_training.pretrain.demo_architecture import build_processor, random_model, save_checkpoint, tiny_config
    from emx_training.pretrain.tokenizer import FIRST_LOC, build_tokenizer
    from emx_worker.model.checkpoint import ModelSpec

    made = json.loads(build_tokenizer().backend_tokenizer.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["id"] < FIRST_LOC]
    special = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(made)),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=special,
    )
    folder, config = tmp_path_factory.mktemp("base") / "base", tiny_config()
    model = random_model(0, config)
    model.resize_token_embeddings(FIRST_LOC + 16, mean_resizing=False)
    spec = ModelSpec(name="base", revision="0", max_new_tokens=140)
    save_checkpoint(model, build_processor(config, tokenizer), spec, folder)
    return folder


@pytest.fixture(scope="session")
def paligemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PaliGemma at its smallest."""
    from transformers import GemmaConfig

    return _paligemma(tmp_path_factory.mktemp("paligemma") / "paligemma", GemmaConfig)


@pytest.fixture(scope="session")
def paligemma2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PaliGemma 2 at its smallest, with a sliding window that is shorter than its prompt."""
    from transformers import Gemma2Config

    return _paligemma(tmp_path_factory.mktemp("paligemma2") / "paligemma2", Gemma2Config, sliding_window=16)


def _paligemma(folder: Path, text_config: Any, **more: Any) -> Path:
    """Random weights; as published ones, its vocabulary has words, <locNNNN>, <segNNN>, <image> and spare rows."""
    import torch
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        PreTrainedTokenizerFast,
        SiglipVisionConfig,
    )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    from emx_training.pretrain.demo_architecture import save_checkpoint
    from emx_training.pretrain.tokenizer import build_tokenizer
    from emx_worker.model.checkpoint import ModelSpec

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer().backend_tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    )
    tokenizer.add_tokens([f"<seg{number:03d}>" for number in range(128)])
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32}, image_seq_length=16)
    processor = PaliGemmaProcessor(images, tokenizer)
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    vision = SiglipVisionConfig(**shape, image_size=32, patch_size=8, num_attention_heads=1, vision_use_head=False)
    rows = len(tokenizer) + 63
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64}
    config = PaliGemmaConfig(
        text_config=text_config(**shape, **heads, vocab_size=rows, **more),
        vision_config=vision,
        vocab_size=rows,
        image_token_index=processor.image_token_id,
        projection_dim=64,
        hidden_size=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PaliGemmaForConditionalGeneration(config)
    spec = ModelSpec(name=folder.name, revision="0", max_new_tokens=140)
    save_checkpoint(model.eval(), processor, spec, folder)
    return folder


@pytest.fixture(scope="session")
def start_gateway() -> StartGateway:
    """Starts a gateway; its settings are given as environment variables."""
    return running_gateway
