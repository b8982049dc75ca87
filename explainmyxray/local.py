"""The Python API: a model in this process, without any service."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from emx_shared.contracts.report import Report
from emx_shared.demo_model import DEMO_MODEL
from emx_shared.imaging import BadImage, decode
from emx_worker.engine.engine import Engine
from emx_worker.image_task import ImageFault, ImageTask
from emx_worker.model.loading import LoadedModel
from emx_worker.model.loading import load_model as load
from explainmyxray.image_input import XRay, file_bytes


class InferenceError(RuntimeError):
    """The model gave no report for an image; ``fault`` says why."""

    def __init__(self, fault: ImageFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True)
class BoundingBox:
    """Where a finding is, in pixels of the original image; the origin is its upper left corner."""

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float


@dataclass(frozen=True)
class Explanation:
    """A report for people, its boxes, and the whole of it."""

    explanation: str
    bboxes: list[BoundingBox]
    report: Report


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model with the engine that runs it. For one thread at a time."""

    loaded: LoadedModel
    engine: Engine


def load_model(
    model: Path | str | None = None,
    adapter: Path | str | None = None,
    device: str = "auto",
    quantisation: str = "auto",
) -> tuple[Model, Any]:
    """The model and its processor, for ``run_inference``.

    Parameters:
        model: checkpoint directory or hub id; None for the demo model, which knows computer-drawn phantoms only.
        adapter: directory of a PEFT adapter.
        device: ``auto``, ``cpu`` or ``cuda``.
        quantisation: ``auto``, ``int4``, ``nf4`` or ``none``.

    Raises emx_worker.model.loading.ModelError.
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
    """Read one image, or a list of them as a batch.

    Raises emx_shared.imaging.BadImage for an invalid image, and InferenceError for the first that got no report.
    """
    if isinstance(image, list):
        return _explained(model, processor, image)
    return _explained(model, processor, [image])[0]


def read_each(model: Model, images: Sequence[XRay]) -> list[Explanation | BadImage | InferenceError]:
    """Read images as a batch; those that can't be read leave their error in their place."""
    tasks = [_task_or_error(image) for image in images]
    good = [task for task in tasks if isinstance(task, ImageTask)]
    answers = dict(zip((task.id for task in good), model.engine.read(good), strict=True))
    return [_result(answers[task.id]) if isinstance(task, ImageTask) else task for task in tasks]


def _task_or_error(image: XRay) -> ImageTask | BadImage:
    try:
        return _task(image)
    except BadImage as error:
        return error


def _result(answer: Report | ImageFault) -> Explanation | InferenceError:
    return InferenceError(answer) if isinstance(answer, ImageFault) else _explanation(answer)


def _explained(model: Model, processor: Any, images: list[XRay]) -> list[Explanation]:
    engine = model.engine
    if processor is not model.loaded.processor:
        engine = Engine(replace(model.loaded, processor=processor))
    return [_explanation(answer) for answer in engine.read([_task(image) for image in images])]


def _task(image: XRay) -> ImageTask:
    decoded = decode(file_bytes(image))
    return ImageTask(id=uuid.uuid4().hex, image=decoded.image, facts=decoded.facts)


def _explanation(answer: Report | ImageFault) -> Explanation:
    if isinstance(answer, ImageFault):
        raise InferenceError(answer)
    boxes = [
        BoundingBox(found.label, found.box.xmin, found.box.ymin, found.box.xmax, found.box.ymax)
        for found in answer.locations
    ]
    return Explanation(explanation=_prose(answer), bboxes=boxes, report=answer)


def _prose(report: Report) -> str:
    located = "; ".join(
        f"{found.label}{f' {found.laterality}' if found.laterality else ''} "
        f"({found.box.xmin:.0f}–{found.box.xmax:.0f} px across, {found.box.ymin:.0f}–{found.box.ymax:.0f} px down)"
        for found in report.locations
    )
    return f"FINDINGS: {report.findings}\nLOCATIONS: {located or 'none'}\nIMPRESSION: {report.impression}"
