"""MkDocs hook: adds the pages that are generated from the code, and the documents at the top of the clone."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from cli_reference import cli_reference
from http_reference import http_reference
from metrics_reference import metrics_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from settings_reference import settings_reference
from vocabulary_reference import vocabulary_reference

ROOT = Path(__file__).resolve().parents[2]

GENERATED: dict[str, Callable[[], str]] = {
    "reference/http.md": http_reference,
    "reference/cli.md": cli_reference,
    "reference/settings.md": settings_reference,
    "reference/metrics.md": metrics_reference,
    "reference/vocabulary.md": vocabulary_reference,
}
"""Pages and what writes them."""

TOP_LEVEL = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "model_card.md": "models/demo/README.md",
}
"""Pages that are files outside docs/."""

_LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])+)\]\((?P<target>[^()\s]+)\)")
_FILE = re.compile(r"[\w./-]+(\.\w+|/)")
_IMAGE = re.compile(r"(!\[[^\]]*\]\()docs/")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and the top-level documents."""
    for path, write in GENERATED.items():
        files.append(File.generated(config, path, content=write()))
    for path, source in TOP_LEVEL.items():
        text = _FRONT_MATTER.sub("", (ROOT / source).read_text(encoding="utf-8"))
        text = _IMAGE.sub(r"\1", _relinked(text, ROOT / source, path))
        text = f"---\nhide: [navigation]\n---\n{text}" if path == "index.md" else text
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files outside docs/ into plain text, as the site doesn't contain those files."""
    if page.file.src_uri in TOP_LEVEL or page.file.src_uri in GENERATED:
        return markdown
    return _relinked(markdown, ROOT / "docs" / page.file.src_uri, page.file.src_uri)


def _relinked(text: str, source: Path, page: str) -> str:
    """Point links of a file at pages of the site; a link to any other file of the clone becomes its text."""

    def relink(match: re.Match[str]) -> str:
        path, _, anchor = match["target"].partition("#")
        if not path or ":" in path:
            return match[0]
        inside = _page_of(Path(os.path.normpath(source.parent / path)))
        if inside is None:
            return f"`{match['text']}`" if _FILE.fullmatch(match["text"]) else match["text"]
        target = os.path.relpath(inside, Path(page).parent)
        return f"[{match['text']}]({target}{'#' + anchor if anchor else ''})"

    return _LINK.sub(relink, text)


def _page_of(path: Path) -> str | None:
    for page, source in TOP_LEVEL.items():
        if path == ROOT / source:
            return page
    return path.relative_to(ROOT / "docs").as_posix() if path.is_relative_to(ROOT / "docs") else None
