"""The engine with random weights: whatever the model would say, the report parses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.grammar import parse
from shared.report import ImageFacts, Report
from training.architecture import Manifest, build_processor, demo_config, random_model, save_checkpoint
from worker.engine.engine import Engine
from worker.loading import LoadedModel, ModelError, load_model
from worker.study import Reading, Study


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, config = tmp_path_factory.mktemp("model"), demo_config()
    manifest = Manifest(name="random", revision="0")
    save_checkpoint(random_model(0, config), build_processor(config), manifest, folder)
    return folder


@pytest.fixture(scope="module", params=["none", "int4"])
def loaded(request: pytest.FixtureRequest, checkpoint: Path) -> LoadedModel:
    return load_model(checkpoint, quantisation=request.param)


def studies(count: int) -> list[Study]:
    random = np.random.default_rng(0)
    facts = ImageFacts(width=200, height=120, media_type="image/png", sha256="0" * 64)
    pixels = random.integers(0, 255, (count, 120, 200), dtype=np.uint8)
    return [Study(id=str(n), image=Image.fromarray(image), facts=facts) for n, image in enumerate(pixels)]


@pytest.mark.parametrize("budget", [60, 100, 256])
def test_every_report_parses_at_every_budget(loaded: LoadedModel, budget: int) -> None:
    for reading in Engine(replace(loaded, max_new_tokens=budget)).write(studies(5)):
        assert isinstance(reading, Reading)
        parse(reading.text)
        assert reading.generated_tokens <= budget


def test_a_budget_below_the_shortest_report_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ModelError):
        Engine(replace(loaded, max_new_tokens=3))


def test_a_batch_reads_as_one_study_at_a_time_does(checkpoint: Path) -> None:
    engine = Engine(load_model(checkpoint, quantisation="none"))
    together = engine.write(studies(4))
    alone = [engine.write([study])[0] for study in studies(4)]
    assert [reading.text for reading in together] == [reading.text for reading in alone]


def test_boxes_lie_on_the_original_image(loaded: LoadedModel) -> None:
    for report in Engine(loaded).read(studies(8)):
        assert isinstance(report, Report)
        for place in report.locations:
            assert 0 <= place.box.xmin < place.box.xmax <= 200
            assert 0 <= place.box.ymin < place.box.ymax <= 120
