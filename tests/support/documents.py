"""The documents and the code blocks in them."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT

DOCS = ROOT / "docs"
TOP_LEVEL = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
DOCUMENTS = [*TOP_LEVEL, ROOT / "models" / "demo" / "README.md", *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)\n(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_CONTINUED = re.compile(r"\\\n\s*")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        line: number of its first line in the document, from 1.
    """

    document: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(*documents: Path, language: str) -> Iterator[Block]:
    """Yield the code blocks in a language."""
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for found in _BLOCK.finditer(text):
            if found["language"] == language:
                line = text.count("\n", 0, found.start("code")) + 1
                yield Block(document, line, language, textwrap.dedent(found["code"]))


def shell_lines(*documents: Path) -> Iterator[tuple[Block, str]]:
    """Yield each command of the ``sh`` blocks, without its comment, with the block that has it."""
    for block in blocks(*documents, language="sh"):
        for line in _CONTINUED.sub(" ", block.code).splitlines():
            command = re.sub(r"\s+# .*|^# .*", "", line).strip()
            if command:
                yield block, command
