"""The Python API: a model in this process, without any service."""

import io
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from shared.imaging import BadImage, decode
from shared.report import Report
from worker.engine.engine import Engine
from worker.loading import LoadedModel
from worker.loading import load_model as load
from worker.study import Study, StudyFault

DEMO_MODEL = Path(__file__).resolve().parent.parent / "models" / "demo"

XRay = str | Path | bytes | Image.Image | npt.NDArray[Any]
"""A path, a file's bytes, a PIL image, or an array: uint8 or uint16 (height, width), uint8 (height, width, 3)."""


class InferenceError(RuntimeError):
    """The model gave no report for an image; ``fault`` says why."""

    def __init__(self, fault: StudyFault) -> None:
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

    Raises worker.loading.ModelError.
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

    Raises shared.imaging.BadImage for what isn't an image, and InferenceError for the first that got no report.
    """
    if isinstance(image, list):
        return _explained(model, processor, image)
    return _explained(model, processor, [image])[0]


def _explained(model: Model, processor: Any, images: list[XRay]) -> list[Explanation]:
    engine = model.engine
    if processor is not model.loaded.processor:
        engine = Engine(replace(model.loaded, processor=processor))
    return [_explanation(answer) for answer in engine.read([_study(image) for image in images])]


def _study(image: XRay) -> Study:
    decoded = decode(_bytes(image))
    return Study(id=uuid.uuid4().hex, image=decoded.image, facts=decoded.facts)


def _bytes(image: XRay) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    # Pixels take the same way as files, so that they mean the same.
    picture = _picture(image) if isinstance(image, np.ndarray) else image
    stream = io.BytesIO()
    try:
        picture.save(stream, format="PNG", compress_level=1, exif=picture.getexif())
    except (OSError, ValueError) as error:  # a mode that PNG hasn't, pixels that can't be loaded, or none
        raise BadImage(f"This PIL image can't be read ({error}): convert it to L, I;16 or RGB.") from None
    return stream.getvalue()


def _picture(pixels: npt.NDArray[Any]) -> Image.Image:
    kind = f"{pixels.dtype.name}, {pixels.ndim}-dimensional"
    if kind == "uint16, 2-dimensional":
        return Image.fromarray(pixels.astype(np.uint16))  # in this machine's byte order
    if kind == "uint8, 2-dimensional" or (kind == "uint8, 3-dimensional" and pixels.shape[2] == 3):
        return Image.fromarray(pixels)
    raise BadImage(
        f"An array of {pixels.dtype} with shape {pixels.shape} can't be read: give uint8 or uint16 of shape "
        "(height, width), or uint8 of shape (height, width, 3)."
    )


def _explanation(answer: Report | StudyFault) -> Explanation:
    if isinstance(answer, StudyFault):
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
