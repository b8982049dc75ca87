"""docs/guides/http_by_example.md is what the service answers."""

import subprocess
import sys

from explainmyxray.supervisor import Supervisor
from support.paths import ROOT


def test_the_recorded_integration_is_what_happens(system: Supervisor) -> None:
    command = [sys.executable, ROOT / "docs" / "generators" / "http_by_example.py", system.url]
    recorded = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert recorded.returncode == 0, recorded.stderr
    kept = (ROOT / "docs" / "guides" / "http_by_example.md").read_text(encoding="utf-8")
    assert recorded.stdout == kept, (
        "run: python docs/generators/http_by_example.py URL > docs/guides/http_by_example.md"
    )
