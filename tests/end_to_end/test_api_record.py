"""docs/api.md is what the service answers."""

import subprocess
import sys

from explainmyxray.supervisor import Supervisor
from support.paths import ROOT


def test_the_recorded_integration_is_what_happens(system: Supervisor) -> None:
    command = [sys.executable, ROOT / "docs" / "record_api.py", system.url]
    recorded = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert recorded.returncode == 0, recorded.stderr
    kept = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert recorded.stdout == kept, "run: python docs/record_api.py URL > docs/api.md"
