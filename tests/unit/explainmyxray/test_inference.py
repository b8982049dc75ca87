"""The Python API, on everything that it calls an image."""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import explainmyxray
from emx_shared.grammar import parse
from emx_shared.imaging import BadImage, NotAnImage
from emx_worker.model.loading import ModelError
from explainmyxray.local import Explanation, InferenceError, Model, load_model, run_inference

WIDTH, HEIGHT = 90, 60
GRAY = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)
GRAY[0, :2] = 0, 255  # so that stretching 16 bits to 8 is exact
Loaded = tuple[Model, Any]


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint: Path) -> Loaded:
    return load_model(tiny_checkpoint, quantisation="none")


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def same(one: Explanation, other: Explanation) -> bool:
    return (one.explanation, one.bboxes) == (other.explanation, other.bboxes)


@pytest.fixture(scope="module")
def wanted(loaded: Loaded) -> Explanation:
    return run_inference(*loaded, png(Image.fromarray(GRAY)))


IMAGES = {
    "PIL, gray": Image.fromarray(GRAY),
    "PIL, RGB": Image.fromarray(GRAY).convert("RGB"),
    "PIL, 16 bits": Image.fromarray(GRAY.astype(np.uint16) * 257),
    "array, gray": GRAY,
    "array, RGB": np.stack([GRAY] * 3, axis=-1),
    "array, 16 bits": GRAY.astype(np.uint16) * 257,
    "array, 12 bits": GRAY.astype(np.uint16) * 16,
    "array, 16 bits, big-endian": (GRAY.astype(np.uint16) * 257).astype(">u2"),
    "array, transposed in memory": np.asfortranarray(GRAY),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_the_same_pixels_give_the_same_report_in_any_form(loaded: Loaded, wanted: Explanation, kind: str) -> None:
    image: Any = IMAGES[kind]
    assert same(run_inference(*loaded, image), wanted)


def test_a_path_is_read_as_its_bytes_are(loaded: Loaded, wanted: Explanation, tmp_path: Path) -> None:
    file = tmp_path / "chest.png"
    file.write_bytes(png(Image.fromarray(GRAY)))
    assert same(run_inference(*loaded, file), wanted)
    assert same(run_inference(*loaded, str(file)), wanted)


def test_a_list_is_read_as_a_batch(loaded: Loaded, wanted: Explanation) -> None:
    turned = np.ascontiguousarray(GRAY.T)
    first, second, third = run_inference(*loaded, [GRAY, turned, png(Image.fromarray(GRAY))])
    assert same(first, wanted)
    assert same(third, wanted)
    assert not same(second, wanted)
    assert (second.report.image.width, second.report.image.height) == (HEIGHT, WIDTH)
    assert run_inference(*loaded, []) == []


def test_a_pil_image_is_turned_upright_as_its_file_is(loaded: Loaded) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(GRAY).save(stream, "JPEG", quality=100, exif=exif)
    by_file = run_inference(*loaded, stream.getvalue())
    by_image = run_inference(*loaded, Image.open(stream))
    assert (by_file.report.image.width, by_file.report.image.height) == (HEIGHT, WIDTH)
    assert same(by_file, by_image)


def test_the_result_has_the_text_the_boxes_and_the_report(loaded: Loaded) -> None:
    results = run_inference(*loaded, [np.roll(GRAY, shift) for shift in range(30)])
    assert any(result.bboxes for result in results)
    for result in results:
        report = result.report
        assert result.explanation.startswith(f"FINDINGS: {report.findings}\nLOCATIONS: ")
        assert result.explanation.endswith(f"\nIMPRESSION: {report.impression}")
        assert [box.label for box in result.bboxes] == [place.label for place in report.locations]
        for box, place in zip(result.bboxes, report.locations, strict=True):
            assert 0 <= box.xmin < box.xmax <= WIDTH
            assert 0 <= box.ymin < box.ymax <= HEIGHT
            assert (box.xmin, box.ymin) == (place.box.xmin, place.box.ymin)
            assert f"{place.label}" in result.explanation
        if not result.bboxes:
            parse(result.explanation)


def test_another_processor_may_be_given(loaded: Loaded, wanted: Explanation) -> None:
    model, processor = loaded
    assert same(run_inference(model, copy.deepcopy(processor), GRAY), wanted)


NOT_IMAGES = {
    "text": b"hello",
    "no bytes": b"",
    "half a file": png(Image.fromarray(GRAY))[:400],
    "a tiny image": Image.new("L", (8, 8)),
    "a PIL image in floats": Image.new("F", (64, 64)),
    "a PIL image in CMYK": Image.new("CMYK", (64, 64)),
    "a PIL image that can't be loaded": Image.open(io.BytesIO(png(Image.fromarray(GRAY))[:400])),
    "an array of floats": np.zeros((64, 64)),
    "an array of truths": np.zeros((64, 64), dtype=bool),
    "an array of four channels": np.zeros((64, 64, 4), dtype=np.uint8),
    "an array of one channel": np.zeros((64, 64, 1), dtype=np.uint8),
    "a line": np.zeros(64, dtype=np.uint8),
    "an empty array": np.zeros((0, 64), dtype=np.uint8),
}


@pytest.mark.parametrize("kind", NOT_IMAGES)
def test_what_is_no_image_is_refused(loaded: Loaded, kind: str) -> None:
    image: Any = NOT_IMAGES[kind]
    with pytest.raises(BadImage):
        run_inference(*loaded, image)


def test_a_file_of_another_kind_is_told_apart(loaded: Loaded) -> None:
    with pytest.raises(NotAnImage):
        run_inference(*loaded, b"GIF89a" + bytes(100))


def test_an_image_that_gets_no_report_raises_its_fault(loaded: Loaded) -> None:
    model, processor = loaded
    refusing = copy.copy(processor)
    refusing.image_processor = copy.deepcopy(processor.image_processor)
    refusing.image_processor.image_mean = [float("nan")] * 3
    with pytest.raises(InferenceError) as caught:
        run_inference(model, refusing, [GRAY, GRAY])
    assert caught.value.fault.code == "not_finite"
    assert str(caught.value) == caught.value.fault.message


def test_a_model_that_is_not_there_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no directory"):
        load_model(tmp_path / "nowhere")


def test_the_package_offers_both_functions() -> None:
    assert (explainmyxray.load_model, explainmyxray.run_inference) == (load_model, run_inference)
    with pytest.raises(AttributeError):
        explainmyxray.nothing  # noqa: B018
