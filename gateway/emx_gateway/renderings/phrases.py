"""How the facts of a report are worded, alike in every rendering."""

import unicodedata
from collections import Counter
from datetime import UTC
from typing import get_args

from emx_shared.contracts.report import Location, Report
from emx_shared.ledger.records import FeedbackVersion, LocationVerdict

NOTICE = "Research only, not for clinical use"
TITLE = "Chest radiograph report"


def name(place: Location) -> str:
    """Return a location's name: ``pleural effusion, left``."""
    return f"{place.label}, {place.laterality}" if place.laterality else place.label


def short_name(place: Location) -> str:
    """Return a location's name for the picture: ``pleural effusion (L)``."""
    return f"{place.label} ({place.laterality[0].upper()})" if place.laterality else place.label


def percent(place: Location) -> str:
    """Return a probability as ``82 %``; empty where the model gave none."""
    return "" if place.probability is None else f"{100 * place.probability:.0f} %"


def corners(place: Location) -> str:
    """Return a box as ``x 40–70, y 30–55``, in pixels of the original image."""
    box = place.box
    return f"x {box.xmin:.0f}–{box.xmax:.0f}, y {box.ymin:.0f}–{box.ymax:.0f}"


def about_boxes(report: Report) -> str:
    """Explain what the numbers of a location are."""
    size = f"{report.image.width} × {report.image.height}"
    return (
        f"Boxes are in pixels of the original image, {size}, from its upper left corner. "
        "The probability is what the model gave to its words; it is not calibrated on patients."
    )


def no_locations(report: Report) -> str:
    """Say why there are no locations."""
    return "not assessed" if report.abstained else "none"


def cautions(report: Report) -> list[str]:
    """Return what a reader must know before the first word, in two words each."""
    model = report.model
    known = [(report.abstained, "NOT READ"), (model.demo, "Demo model"), (model.untrained, "Untrained model")]
    return [words for applies, words in known if applies]


def written(report: Report) -> str:
    """Return when the report was written, to the second."""
    at = report.created_at
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if at.tzinfo else f"{at:%Y-%m-%d %H:%M:%S}"


def model_line(report: Report) -> str:
    """Name and revision of the model, and of its adapter."""
    model = report.model
    adapter = f", adapter {model.adapter}" if model.adapter else ""
    return f"{model.name}, revision {model.revision}{adapter}"


def provenance(report: Report) -> list[tuple[str, str]]:
    """Return where the report comes from, as pairs of a term and its description."""
    model, image, spent, tokens = report.model, report.image, report.timings, report.tokens
    return [
        ("Model", model_line(report)),
        ("Run as", f"quantisation {model.quantisation}, engine {model.engine}, boxes as {model.dialect}"),
        ("Image", f"{image.width} × {image.height} px, {image.media_type}"),
        ("SHA-256", image.sha256),
        ("Time", f"decode {spent.decode:.2f} s, prefill {spent.prefill:.2f} s, generate {spent.generate:.2f} s"),
        ("Tokens", f"{tokens.prompt} in the prompt, {tokens.generated} generated"),
        ("Written", written(report)),
    ]


def review(version: FeedbackVersion | None) -> str:
    """Return what a reader said of the report, as one paragraph of plain text; empty where nobody did.

    ``Reviewed by AB on 2026-11-30: agrees; 2 findings agreed, 1 corrected. Comment: …``, with the date in UTC.
    """
    if version is None:
        return ""
    counts = Counter(each.verdict for each in version.locations)
    verdicts = [verdict for verdict in get_args(LocationVerdict) if counts[verdict]]
    told = [f"{counts[verdict]} {verdict}" for verdict in verdicts]
    if told:
        first = counts[verdicts[0]]
        told[0] = f"{first} finding{'s' if first > 1 else ''} {verdicts[0]}"
    said = "; ".join(filter(None, (f"{version.verdict}s", ", ".join(told))))
    comment = _one_line(version.comment or "")
    at = f"{version.reviewed_at.astimezone(UTC):%Y-%m-%d}"
    return f"Reviewed by {version.reviewer} on {at}: {said}.{comment and f' Comment: {comment}'}"


def _one_line(text: str) -> str:
    """Join a text's lines, without what can't be seen: controls, and changes of direction."""
    return " ".join("".join(each for each in word if each.isprintable()) for word in text.split()).strip()


def spelled(text: str, encoding: str) -> str:
    """Replace characters that ``encoding`` lacks, for fonts that have no others.

    A character that it lacks becomes its likeness (– a hyphen, ł an l, é an e), or ? where it has none. What
    can't be seen (controls, changes of direction) is left out, and any white space becomes a space.
    """
    return "".join(_spelled(character, encoding) for character in unicodedata.normalize("NFC", text))


_LIKENESS = {
    **dict.fromkeys("‐‑‒–—―−", "-"),
    **dict.fromkeys("‘’‚′", "'"),
    **dict.fromkeys("“”„″«»", '"'),
    **dict(zip("×•·≈øØłŁđıµμ", "x**~oOlLdiuu", strict=True)),
    **dict(zip("≤≥±→ßæÆœŒ°", ("<=", ">=", "+/-", "->", "ss", "ae", "AE", "oe", "OE", " deg"), strict=True)),
}


def _spelled(character: str, encoding: str) -> str:
    if unicodedata.category(character) in ("Cf", "Cs", "Mn"):
        return ""
    if not character.isprintable():
        return " "
    decomposed = unicodedata.normalize("NFKD", character)
    bare = "".join(part for part in decomposed if not unicodedata.combining(part))
    for candidate in (character, _LIKENESS.get(character, ""), bare):
        if candidate and candidate.encode(encoding, "ignore").decode(encoding) == candidate:
            return candidate
    return "?"
