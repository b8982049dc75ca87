"""Loading a checkpoint: what a report says about the model, and a sentence for everything that may be wrong."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3Processor

from emx_shared.contracts.report import UNTRAINED_WARNING, Report
from emx_shared.grammar import LOC
from emx_training.recipes.full_size import medgemma_config
from emx_worker.engine.engine import Engine
from emx_worker.image_task import Generation, ImageTask
from emx_worker.model import loading
from emx_worker.model.architectures import architecture_of
from emx_worker.model.checkpoint import ModelSpec, describe_base, read_config, read_processor, require_base
from emx_worker.model.loading import LoadedModel, ModelError, load_model

Tasks = Callable[[int], list[ImageTask]]


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """Copy the checkpoint, to damage it."""
    return shutil.copytree(checkpoint, tmp_path / "model")


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(folder, quantisation="none")
    for word in words:
        assert word in str(caught.value)


def test_each_kind_of_weights_writes_reports(loaded: LoadedModel, tasks: Tasks) -> None:
    generation = Engine(loaded).generate(tasks(1))[0]
    assert isinstance(generation, Generation)
    LOC.parse(generation.text)


def test_the_cpu_gets_int4_by_default(checkpoint: Path) -> None:
    assert load_model(checkpoint, device="cpu").provenance.quantisation == "int4-torch"


def test_provenance_is_the_model_specs(loaded: LoadedModel) -> None:
    provenance = loaded.provenance
    assert (provenance.name, provenance.revision, provenance.adapter) == ("tiny", "0", None)
    assert (provenance.dialect, provenance.demo) == ("loc", True)


def test_without_a_model_spec_the_weights_name_themselves(copy: Path) -> None:
    (copy / "emx.json").unlink()
    first = load_model(copy, quantisation="none")
    assert (first.provenance.name, first.provenance.demo) == ("model", False)
    assert first.prompt
    weights = load_file(copy / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert load_model(copy, quantisation="none").provenance.revision != first.provenance.revision


def test_the_layout_of_published_checkpoints_loads(copy: Path, dense: LoadedModel) -> None:
    """Tensors are named as in google/gemma-3-4b-it, and the image processor has its own file."""
    weights = load_file(copy / "model.safetensors")
    old = {name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in weights.items()}
    assert all(name.startswith(("language_model.model.", "vision_tower.", "multi_modal")) for name in old)
    save_file(old, copy / "model.safetensors", metadata={"format": "pt"})
    processor = json.loads((copy / "processor_config.json").read_text())
    images = {**processor.pop("image_processor"), "do_convert_rgb": None, "do_pan_and_scan": None}
    (copy / "preprocessor_config.json").write_text(json.dumps({**images, "processor_class": "Gemma3Processor"}))
    (copy / "processor_config.json").write_text(json.dumps(processor))
    loaded = load_model(copy, quantisation="none")
    assert isinstance(loaded.processor, Gemma3Processor)
    for name, value in dense.model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name


def test_paligemma_loads_from_the_layout_of_its_published_checkpoints(paligemma: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(paligemma, tmp_path / "paligemma-3b-pt-224")
    weights = load_file(folder / "model.safetensors")
    old = {name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in weights.items()}
    assert all(name.startswith(("language_model.model.", "vision_tower.", "multi_modal")) for name in old)
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    images = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    images |= {"do_convert_rgb": None, "processor_class": "PaliGemmaProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "processor_config.json").unlink()
    loaded = load_model(folder, quantisation="none")
    assert type(loaded.processor.image_processor).__name__ == "SiglipImageProcessorPil"
    assert loaded.box_decoding.eos == {loaded.processor.tokenizer.convert_tokens_to_ids("<eos>")}
    for name, value in load_model(paligemma, quantisation="none").model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name


def test_only_the_decoder_of_paligemma_is_quantised(paligemma: Path) -> None:
    for quantisation, kind in (("int4", "Int4Linear"), ("nf4", "Linear4bit")):
        model = load_model(paligemma, quantisation=quantisation).model
        linear = {
            name: type(part).__name__ for name, part in model.named_modules() if "Linear" in type(part).__name__
        }
        assert {kind for name, kind in linear.items() if "language_model" in name} == {kind}
        assert {kind for name, kind in linear.items() if "language_model" not in name} == {"Linear"}


@pytest.mark.parametrize(
    ("gigabytes", "chosen"), [(12, "nf4-bitsandbytes"), (16, "nf4-bitsandbytes"), (24, "bf16")]
)
def test_cuda_has_bf16_weights_where_they_leave_half_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, gigabytes: int, chosen: str
) -> None:
    free = int(gigabytes * 0.95 * 2**30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, gigabytes * 2**30))
    assert loading._quantisation("auto", torch.device("cuda"), medgemma_config()) == chosen
    assert loading._quantisation("nf4", torch.device("cuda"), medgemma_config()) == "nf4-bitsandbytes"


def test_an_unknown_quantisation_is_refused_before_the_model_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Unknown quantisation 'int5'"):
        load_model(tmp_path / "nowhere", quantisation="int5")


def test_weights_in_bf16_are_all_in_bf16(checkpoint: Path, tasks: Tasks) -> None:
    loaded = load_model(checkpoint, quantisation="bf16")
    for one in Engine(loaded, max_batch=2).generate(tasks(3)):
        assert isinstance(one, Generation)
    assert loaded.provenance.quantisation == "bf16"
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}


def test_an_adapter_is_known_to_belong_to_a_commit_or_to_weights(checkpoint: Path, tmp_path: Path) -> None:
    """A hub snapshot is known by its commit, without reading its weights; a copy of it by its weights."""
    snapshot = shutil.copytree(checkpoint, tmp_path / "snapshots" / "0a1b2c")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    base = describe_base("somebody/model", snapshot)
    assert base.commit == "0a1b2c"
    (adapter / "emx.json").write_text(ModelSpec(base=base).model_dump_json(exclude_unset=True))
    require_base(adapter, checkpoint, checkpoint)
    (snapshot / "model.safetensors").unlink()
    require_base(adapter, "somebody/model", snapshot)
    moved = snapshot.rename(tmp_path / "snapshots" / "3d4e5f")
    with pytest.raises(ModelError, match=r"trained on tiny \(commit 0a1b2c\), and this is tiny \(commit 3d4e5f\)"):
        require_base(adapter, "somebody/model", moved)


def test_a_chat_template_in_the_tokenizers_file_will_do(copy: Path) -> None:
    written = read_processor(copy, read_config(copy))
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    rewrite(copy / "tokenizer_config.json", chat_template=template)
    found = read_processor(copy, read_config(copy))
    architecture = architecture_of(read_config(copy))
    assert architecture.prompt(found, "What?") == architecture.prompt(written, "What?")


def test_a_model_without_a_chat_template_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    refused(copy, "processor", "template")


def test_images_are_resized_by_pillow_wherever_torchvision_is_installed(dense: LoadedModel) -> None:
    assert type(dense.processor.image_processor).__name__ == "Gemma3ImageProcessorPil"


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no directory", "nowhere", "give")


def test_a_hub_id_that_cannot_be_downloaded_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr("emx_worker.model.checkpoint.snapshot_download", offline)
    with pytest.raises(ModelError, match="no directory here, and can't be downloaded from the hub"):
        load_model("somebody/some-model")


def test_an_empty_directory_is_no_checkpoint(tmp_path: Path) -> None:
    refused(tmp_path, "config.json", "fetch")


def test_another_architecture_is_refused_before_anything_else(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    (copy / "processor_config.json").unlink()
    refused(copy, "bert", "runs Gemma 3 with images", "medgemma-4b-it", "PaliGemma")


def test_missing_tensors_are_counted_and_named(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    lost = [name for name in weights if "layers.1.mlp" in name and "language" in name]
    kept = {name: value for name, value in weights.items() if name not in lost}
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    refused(copy, f"lack {len(lost)} tensors", "layers.1.mlp", "fetch the checkpoint again")


def test_truncated_weights_are_refused(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    refused(copy, "can't be loaded", "fetch them again")


def test_absent_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    refused(copy, "can't be loaded", "fetch them again")


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    rewrite(copy / "config.json", text_config={**config["text_config"], "intermediate_size": 128})
    refused(copy, "can't be loaded")


def test_a_damaged_config_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    refused(copy, "config.json")


@pytest.mark.parametrize("lost", ["tokenizer.json", "processor_config.json"])
def test_an_incomplete_processor_is_refused(copy: Path, lost: str) -> None:
    (copy / lost).unlink()
    refused(copy, "processor", "restore")


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('["ab"]', "object"),
        ("null", "object"),
        ('{"max_new_tokens": "many"}', "max_new_tokens"),
        ('{"max_new_tokens": 0}', "max_new_tokens"),
        ('{"prompt": 3}', "prompt"),
        ('{"demo": "perhaps"}', "demo"),
    ],
)
def test_an_invalid_model_spec_is_refused(copy: Path, said: str, word: str) -> None:
    (copy / "emx.json").write_text(said)
    refused(copy, "emx.json", word)


def test_an_unknown_dialect_is_refused(copy: Path) -> None:
    rewrite(copy / "emx.json", dialect="box_3d")
    refused(copy, "box_3d", "emx.json")


def test_a_tokenizer_without_locations_is_refused_if_the_model_spec_asks_for_them(
    json_checkpoint: Path, copy: Path
) -> None:
    shutil.copy(json_checkpoint / "tokenizer.json", copy)
    rewrite(copy / "emx.json", dialect="loc")
    refused(copy, "can't write boxes", "adapter trained with <loc0000> to <loc1023>")


def test_the_dialect_is_what_the_tokenizer_was_made_for(json_checkpoint: Path, checkpoint: Path) -> None:
    assert load_model(checkpoint, quantisation="none").provenance.dialect == "loc"
    assert load_model(json_checkpoint, quantisation="none").provenance.dialect == "box_2d"


def test_a_model_as_it_was_published_is_asked_in_its_own_dialect_and_the_report_says_so(
    json_checkpoint: Path, tmp_path: Path, tasks: Tasks
) -> None:
    published = shutil.copytree(json_checkpoint, tmp_path / "medgemma")
    (published / "emx.json").unlink()
    loaded = load_model(published, quantisation="none")
    assert '"box_2d"' in loaded.prompt and "pleural effusion left" in loaded.prompt
    (report,) = Engine(replace(loaded, max_new_tokens=60), max_batch=1).read(tasks(1))
    assert isinstance(report, Report)
    assert report.model.untrained and report.model.dialect == "box_2d"
    assert UNTRAINED_WARNING in report.warnings


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    extra = {**tokenizer["added_tokens"][-1], "id": 2048, "content": "<extra>"}
    rewrite(copy / "tokenizer.json", added_tokens=[*tokenizer["added_tokens"], extra])
    refused(copy, "2049 tokens", "2048")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"device": "abacus"}, "abacus"),
        ({"device": "cuda"}, "CUDA"),
        ({"quantisation": "int3"}, "int3"),
        ({"device": "meta", "quantisation": "int4"}, "CPU only"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(checkpoint: Path, options: dict[str, str], word: str) -> None:
    if word == "CUDA" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ModelError, match=word):
        load_model(checkpoint, **options)
