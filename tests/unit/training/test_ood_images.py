from pathlib import Path

import pytest
import torch

from emx_training.ood.abstention import measure_abstention
from emx_training.ood.ood_images import OodImage, ood_images
from emx_training.pretrain.demo_architecture import (
    build_processor,
    phantom_model_spec,
    random_model,
    save_checkpoint,
    tiny_config,
)
from emx_worker.model.ood_guard import OodGuard, features
from support.paths import RADIOGRAPHS


@pytest.fixture(scope="module")
def shown() -> list[OodImage]:
    return list(ood_images(RADIOGRAPHS))


def test_each_image_has_its_own_name_and_each_group_has_many(shown: list[OodImage]) -> None:
    names = {(one.group, one.name) for one in shown}
    assert len(names) == len(shown)
    groups = {one.group for one in shown}
    assert groups >= {"photograph", "dicom", "text", "noise", "blank"}
    for group in groups:
        assert sum(one.group == group for one in shown) >= 10
    if RADIOGRAPHS.is_dir():
        assert len(shown) >= 200
        assert sum(one.group == "radiograph" for one in shown) >= 80


def test_every_image_is_grey_and_could_be_uploaded(shown: list[OodImage]) -> None:
    for one in shown:
        assert one.image.mode == "L"
        assert min(one.image.size) >= 32, one.name


def test_the_same_noise_is_shown_each_time(shown: list[OodImage]) -> None:
    again = {(one.group, one.name): one.image.tobytes() for one in ood_images(None)}
    for one in shown:
        if one.group != "radiograph":
            assert again[one.group, one.name] == one.image.tobytes()


def test_images_that_a_guard_declines_are_counted(tmp_path: Path) -> None:
    config = tiny_config()
    spec = phantom_model_spec("tiny", "0").model_copy(update={"max_new_tokens": 40})
    save_checkpoint(random_model(0, config), build_processor(config), spec, tmp_path)
    seen = torch.randn(20, 16, 64)
    OodGuard.fit(features(seen), threshold=0.0).save(tmp_path)
    everything = measure_abstention(tmp_path, None)
    assert everything.rate == 1.0 and not everything.read
    OodGuard.fit(features(seen), threshold=float("inf")).save(tmp_path)
    nothing = measure_abstention(tmp_path, None)
    assert nothing.rate == 0.0
    assert len(nothing.read) == nothing.shown.total() == everything.declined.total()
