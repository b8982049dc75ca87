"""The Python API: a model in this process, without any service."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from emx_shared.contracts.report import Report
from emx_shared.demo_files import DEMO_MODEL
from emx_shared.imaging import BadImage, decode
from emx_shared.root_error import ExplainMyXrayError
from emx_worker.engine.engine import Engine
from emx_worker.image_task import ImageFault, ImageTask
from emx_worker.model.loading import LoadedModel
from emx_worker.model.loading import load_model as load
from explainmyxray.image_input import XRay, file_bytes


class InferenceError(ExplainMyXrayError, RuntimeError):
    """The model produced no report for a valid image.

    Attributes:
        fault: Why, with a stable ``code`` for programs and a ``message`` for people.
    """

    def __init__(self, fault: ImageFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True)
class BoundingBox:
    """The place of a finding, in pixels of the original image. The origin is the image's upper left corner.

    Attributes:
        label: Name of the finding.
        xmin: Left edge.
        ymin: Upper edge.
        xmax: Right edge.
        ymax: Lower edge.
    """

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float


@dataclass(frozen=True)
class Explanation:
    """A report of one image.

    Attributes:
        explanation: Findings, locations and impression as text for people.
        bboxes: The boxes of the findings, in pixels of the original image.
        report: The whole report, with probabilities, warnings and provenance.
    """

    explanation: str
    bboxes: list[BoundingBox]
    report: Report


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model and its engine. Only one thread may use it at a time.

    Attributes:
        loaded: The model with its processor and provenance.
        engine: Runs it on batches of images.
    """

    loaded: LoadedModel
    engine: Engine


def load_model(
    model: Path | str | None = None,
    adapter: Path | str | None = None,
    device: str = "auto",
    quantisation: str = "auto",
) -> tuple[Model, Any]:
    """Load a model and its processor for ``run_inference``.

    Args:
        model: Checkpoint directory or hub id; default the demo model, which knows only computer-drawn phantoms.
        adapter: Directory of a PEFT adapter.
        device: ``auto``, ``cpu`` or ``cuda``.
        quantisation: ``auto``, ``int4``, ``nf4``, ``bf16`` or ``none``.

    Returns:
        The model and its processor.

    Raises:
        ModelError: The checkpoint or the adapter can't be loaded; the text says what to do.
    """
    loaded = load(
        DEMO_MODEL if model is None else model, adapter=adapter, device=device, quantisation=quantisation
    )
    return Model(loaded, Engine(loaded)), loaded.processor


@overload
def run_inference(model: Model, processor: Any, image: XRay) -> Explanation: ...
@overload
def run_inference(model: Model, processor: Any, image: list[XRay]) -> list[Explanation]: ...
def run_inference(model: Model, processor: Any, image: XRay | list[XRay]) -> Explanation | list[Explanation]:
    """Read one image, or a list of images as a batch.

    Args:
        model: The model from ``load_model``.
        processor: Its processor, or another one for the same model.
        image: A path, bytes, an open binary file, a PIL image or an array, as in
            ``explainmyxray.image_input.XRay``; or a list of images.

    Returns:
        The image's report; for a list, a list of reports in the same order.

    Raises:
        BadImage: An image is invalid.
        InferenceError: The model produced no report for an image.
    """
    if isinstance(image, list):
        return _read(model, processor, image)
    return _read(model, processor, [image])[0]


def read_each(model: Model, images: Sequence[XRay]) -> list[Explanation | BadImage | InferenceError]:
    """Read images as a batch. An image that fails has its error in its place, and doesn't stop the others."""
    tasks = [_task_or_error(image) for image in images]
    valid = [task for task in tasks if isinstance(task, ImageTask)]
    answers = dict(zip((task.id for task in valid), model.engine.read(valid), strict=True))
    return [_result(answers[task.id]) if isinstance(task, ImageTask) else task for task in tasks]


def _task_or_error(image: XRay) -> ImageTask | BadImage:
    try:
        return _task(image)
    except BadImage as error:
        return error


def _result(answer: Report | ImageFault) -> Explanation | InferenceError:
    return InferenceError(answer) if isinstance(answer, ImageFault) else _explanation(answer)


def _read(model: Model, processor: Any, images: list[XRay]) -> list[Explanation]:
    engine = model.engine
    if processor is not model.loaded.processor:
        engine = Engine(replace(model.loaded, processor=processor))
    return [_explanation(answer) for answer in engine.read([_task(image) for image in images])]


def _task(image: XRay) -> ImageTask:
    decoded = decode(file_bytes(image))
    return ImageTask(id=uuid.uuid4().hex, image=decoded.image, facts=decoded.facts, warnings=decoded.warnings)


def _explanation(answer: Report | ImageFault) -> Explanation:
    """Convert an engine's answer. Raises InferenceError."""
    if isinstance(answer, ImageFault):
        raise InferenceError(answer)
    boxes = [
        BoundingBox(location.label, location.box.xmin, location.box.ymin, location.box.xmax, location.box.ymax)
        for location in answer.locations
    ]
    return Explanation(explanation=_text(answer), bboxes=boxes, report=answer)


def _text(report: Report) -> str:
    locations = "; ".join(
        f"{location.label}{f' {location.laterality}' if location.laterality else ''} "
        f"({location.box.xmin:.0f}–{location.box.xmax:.0f} px across, "
        f"{location.box.ymin:.0f}–{location.box.ymax:.0f} px down)"
        for location in report.locations
    )
    return f"FINDINGS: {report.findings}\nLOCATIONS: {locations or 'none'}\nIMPRESSION: {report.impression}"
