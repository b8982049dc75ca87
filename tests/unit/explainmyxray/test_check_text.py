"""``emx data check-text``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from explainmyxray.cli.main import app

TEXT = """\ufeffThe nodule measures 1.8 cm.

Opacité à 20 °, <5 mm.
A {brace}.
<loc0001>
影
"""


def check_text(*arguments: object, **more: str) -> Result:
    return CliRunner().invoke(app, ["data", "check-text", *map(str, arguments)], **more)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "sentences.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "sentences.txt"


def test_what_can_be_held_is_counted_and_the_rest_is_listed(file: Path) -> None:
    found = check_text(file, "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout) == {
        "sentences": 5,
        "accepted": 2,
        "refused": [
            {"line": 4, "character": "{", "text": "A {brace}."},
            {"line": 5, "character": "<", "text": "<loc0001>"},
            {"line": 6, "character": "影", "text": "影"},
        ],
    }


def test_people_are_told_the_same(file: Path) -> None:
    said = check_text(file).stdout
    assert "5 sentences: 2 accepted, 3 refused (60.00%)." in said
    assert "line 4: '{' in: A {brace}." in said


def test_no_more_than_fifty_are_listed_and_standard_input_will_do() -> None:
    lines = "Clear.\n" + "{\n" * 70
    answer = json.loads(check_text("-", "--json", input=lines).stdout)
    assert (answer["sentences"], answer["accepted"], len(answer["refused"])) == (71, 1, 50)
    assert "and 20 more" in check_text("-", input=lines).stdout


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("Opacité".encode("latin1"))
    for name, words in (("none", "No such file"), ("latin", "isn't UTF-8")):
        found = check_text(tmp_path / name)
        assert found.exit_code == 1 and words in " ".join(found.stderr.split())
