from pathlib import Path

import pytest
import torch

from emx_training.ood.abstention import decline
from emx_training.ood.ood_images import Stranger, strangers
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
def shown() -> list[Stranger]:
    return list(strangers(RADIOGRAPHS))


def test_each_stranger_is_named_once_and_there_are_many_of_each_group(shown: list[Stranger]) -> None:
    names = {(one.group, one.name) for one in shown}
    assert len(names) == len(shown)
    groups = {one.group for one in shown}
    assert groups >= {"photograph", "dicom", "text", "noise", "blank"}
    for group in groups:
        assert sum(one.group == group for one in shown) >= 10
    if RADIOGRAPHS.is_dir():
        assert len(shown) >= 200
        assert sum(one.group == "radiograph" for one in shown) >= 80


def test_every_stranger_is_a_grey_image_that_could_be_uploaded(shown: list[Stranger]) -> None:
    for one in shown:
        assert one.image.mode == "L"
        assert min(one.image.size) >= 32, one.name


def test_the_same_noise_is_shown_each_time(shown: list[Stranger]) -> None:
    again = {(one.group, one.name): one.image.tobytes() for one in strangers(None)}
    for one in shown:
        if one.group != "radiograph":
            assert again[one.group, one.name] == one.image.tobytes()


def test_what_a_guard_declines_is_counted(tmp_path: Path) -> None:
    config = tiny_config()
    spec = phantom_model_spec("tiny", "0").model_copy(update={"max_new_tokens": 40})
    save_checkpoint(random_model(0, config), build_processor(config), spec, tmp_path)
    seen = torch.randn(20, 16, 64)
    OodGuard.fit(features(seen), threshold=0.0).save(tmp_path)
    everything = decline(tmp_path, None)
    assert everything.rate == 1.0 and not everything.read
    OodGuard.fit(features(seen), threshold=float("inf")).save(tmp_path)
    nothing = decline(tmp_path, None)
    assert nothing.rate == 0.0
    assert len(nothing.read) == nothing.shown.total() == everything.declined.total()
