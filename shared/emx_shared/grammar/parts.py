"""The parts of a report's text, in whatever notation its boxes are written."""

from dataclasses import dataclass

from emx_shared.contracts.findings import Finding, Laterality

LOC_BINS = 1024
"""Number of location bins on each axis, <loc0000> to <loc1023> (PaliGemma, Beyer et al. 2024)."""

INCOMPLETE = "Incomplete."
"""The sentence that closes a section if the token budget ends before the model does."""

OPENING, LOCATIONS, IMPRESSION = "FINDINGS: ", "\nLOCATIONS: ", "\nIMPRESSION: "


class MalformedReport(ValueError):
    """The text breaks the report grammar, or a box in it is invalid."""


@dataclass(frozen=True)
class LocBox:
    """A box in location bins, 0 to 1023 over the image's height and width; ymin < ymax and xmin < xmax.

    Raises:
        MalformedReport: if the numbers are no such box.
    """

    ymin: int
    xmin: int
    ymax: int
    xmax: int

    def __post_init__(self) -> None:
        if not (0 <= self.ymin < self.ymax < LOC_BINS and 0 <= self.xmin < self.xmax < LOC_BINS):
            raise MalformedReport(f"invalid box: {self.ymin} {self.xmin} {self.ymax} {self.xmax}")

    @classmethod
    def of_fractions(cls, ymin: float, xmin: float, ymax: float, xmax: float) -> "LocBox":
        """Return the nearest box in bins to a box in fractions of the image's height and width (0 to 1)."""
        ylow, xlow = (min(max(round(v * (LOC_BINS - 1)), 0), LOC_BINS - 2) for v in (ymin, xmin))
        yhigh, xhigh = (min(max(round(v * (LOC_BINS - 1)), 1), LOC_BINS - 1) for v in (ymax, xmax))
        return cls(ylow, xlow, max(yhigh, ylow + 1), max(xhigh, xlow + 1))

    def fractions(self) -> tuple[float, float, float, float]:
        """Return (ymin, xmin, ymax, xmax) as fractions of the image's height and width (0 to 1)."""
        ymin, xmin, ymax, xmax = (v / (LOC_BINS - 1) for v in (self.ymin, self.xmin, self.ymax, self.xmax))
        return ymin, xmin, ymax, xmax

    def __str__(self) -> str:
        return "".join(f"<loc{v:04d}>" for v in (self.ymin, self.xmin, self.ymax, self.xmax))


@dataclass(frozen=True)
class LocatedFinding:
    """A finding with its side, if it has one, and its box."""

    finding: Finding
    laterality: Laterality | None
    box: LocBox

    @property
    def term(self) -> str:
        """Return what LOCATIONS calls the finding: the label, with its side if it has one."""
        return f"{self.finding.label} {self.laterality}" if self.laterality else self.finding.label

    def __str__(self) -> str:
        return f"{self.term} {self.box}"


@dataclass(frozen=True)
class ReportText:
    """A report's text in parts. ``str()`` writes it with location tokens, and ``parse`` reads that back."""

    findings: str
    locations: tuple[LocatedFinding, ...]
    impression: str

    def __str__(self) -> str:
        located = "; ".join(map(str, self.locations)) or "none"
        return f"{OPENING}{self.findings}{LOCATIONS}{located}{IMPRESSION}{self.impression}"
