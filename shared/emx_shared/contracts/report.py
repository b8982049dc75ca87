"""The report: what a worker writes, the ledger keeps and every rendering reads."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from emx_shared.contracts.findings import Laterality

DISCLAIMER = "Research software. Not for clinical use: do not base any diagnosis or treatment on this report."
DEMO_WARNING = (
    "Written by the demo model, which was trained on computer-drawn chest phantoms only. "
    "It knows nothing about real radiographs."
)

UNTRAINED_WARNING = (
    "Written by a model that was not trained to write these reports, in its own way of writing boxes: neither its "
    "words nor its boxes have been measured."
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Box(_Frozen):
    """A rectangle on the image, xmin < xmax and ymin < ymax; the origin is the upper left corner."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float


class Location(_Frozen):
    """One abnormality and where it is.

    ``box`` is in pixels of the original image, turned upright, and clipped to it; ``box_normalised`` is the same
    as fractions of width and height; ``box_stored`` the same on the pixels as the file has them.
    """

    label: str = Field(description="Finding, in the words of the finding vocabulary")
    code: str = Field(description="The label as an identifier, such as pleural_effusion")
    snomed_ct: str | None = Field(default=None, description="SNOMED CT concept")
    radlex: str | None = Field(default=None, description="RadLex term, where no SNOMED CT concept is known")
    laterality: Laterality | None = Field(default=None, description="The patient's side")
    box: Box = Field(description="Pixels of the original image, turned upright")
    box_normalised: Box = Field(description="Fractions of the image's width and height, 0 to 1")
    box_stored: Box | None = Field(
        default=None,
        description="The box in pixels as the file stores them, for programs that don't turn them upright; null "
        "in reports from before this field",
    )
    colour: str = Field(description="#rrggbb, the finding's colour in every picture")
    probability: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="What the model gave to the words that name the finding; not calibrated on patients",
    )
    evidence: str | None = None


class ImageFacts(_Frozen):
    """What is known of the image that was read; the pixels are those of the original."""

    width: int
    height: int
    media_type: str
    sha256: str = Field(description="SHA-256 of the bytes as received")
    pixel_spacing: tuple[float, float] | None = Field(
        default=None,
        description="Millimetres between the centres of neighbouring rows, then of neighbouring columns, where a "
        "DICOM file says so (PS3.3 10.7.1.3); at the detector if it has only ImagerPixelSpacing",
    )
    orientation: int = Field(
        default=1,
        ge=1,
        le=8,
        description="How the stored pixels were turned for the upright image whose width, height and boxes are "
        "given, as the values of EXIF's Orientation: 1 not at all; 2 mirrored; 3 by 180 degrees; 4 flipped; "
        "5 transposed; 6 by 90 degrees clockwise; 7 transposed across the other diagonal; 8 by 270 degrees "
        "clockwise. From EXIF, or from PatientOrientation of a DICOM file",
    )

    def stored(self, box: Box) -> Box:
        """Return a box of the upright image in pixels as the file stores them."""
        across, down = (box.xmin, box.xmax), (box.ymin, box.ymax)
        if self.orientation in (2, 3, 6, 7):  # the image's right is where stored rows or columns begin
            across = self.width - box.xmax, self.width - box.xmin
        if self.orientation in (3, 4, 7, 8):  # as is its lower edge
            down = self.height - box.ymax, self.height - box.ymin
        if self.orientation >= 5:
            across, down = down, across
        return Box(xmin=across[0], ymin=down[0], xmax=across[1], ymax=down[1])

    def upright(self, box: Box) -> Box:
        """Return a box in pixels as the file stores them in pixels of the upright image."""
        width, height = (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)
        back = {6: 8, 8: 6}.get(self.orientation, self.orientation)
        return self.model_copy(update={"width": width, "height": height, "orientation": back}).stored(box)


class ModelProvenance(_Frozen):
    """Which model wrote the report, precisely enough to find it again."""

    name: str
    revision: str
    adapter: str | None = None
    quantisation: str
    engine: str
    dialect: str = Field(description="How the model writes boxes: loc or box_2d")
    demo: bool = Field(description="The demo model, which knows computer-drawn phantoms only")
    untrained: bool = Field(default=False, description="Runs as it was published, without an adapter for reports")


class Timings(_Frozen):
    """Seconds spent on each stage by the worker.

    ``decode`` is the decoding of the image's bytes, ``prefill`` the vision tower and the prompt, ``generate``
    the writing of the report. ``prefill`` and ``generate`` are those of the batch that the image was read in.
    """

    decode: float = 0.0
    prefill: float = 0.0
    generate: float = 0.0


class TokenCounts(_Frozen):
    """Tokens of the prompt, image tokens included, and of the report."""

    prompt: int
    generated: int


class Report(_Frozen):
    """A structured report with its evidence. Version 1 of the published schema."""

    schema_version: Literal["1"] = "1"
    findings: str
    impression: str
    locations: tuple[Location, ...]
    abstained: bool = Field(
        default=False,
        description="The model declined to read the image, and the first warning says why; no findings and no "
        "locations then mean nothing",
    )
    warnings: tuple[str, ...] = ()
    image: ImageFacts
    model: ModelProvenance
    timings: Timings
    tokens: TokenCounts
    created_at: datetime
    disclaimer: str = DISCLAIMER
