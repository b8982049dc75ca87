"""Build the workstation into ``gateway/emx_gateway/web``, whose files are committed: users need no node.

``python scripts/build_workstation.py`` writes ``workstation/src/api`` from the OpenAPI document and the finding
vocabulary, installs the locked packages and builds. ``--check`` changes nothing, and fails where the committed
files are not what comes out.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from emx_gateway.app import create_app
from emx_shared.contracts.findings import FINDINGS
from emx_shared.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SOURCE, BUILT = ROOT / "workstation", ROOT / "gateway" / "emx_gateway" / "web"
GENERATED = Path("src") / "api"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if anything would change")
    options = parser.parse_args()
    if shutil.which("npm") is None:
        sys.exit("npm is missing. Install Node.js 20.19 or newer (Debian: apt install nodejs npm).")
    if not options.check:
        _build(SOURCE, BUILT)
        return
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder) / "workstation", Path(folder) / "web"
        shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("node_modules"))
        _build(source, built)
        found = [
            *(f"workstation/{GENERATED}/{file}" for file in _differences(SOURCE / GENERATED, source / GENERATED)),
            *(f"gateway/emx_gateway/web/{file}" for file in _differences(BUILT, built)),
        ]
    if found:
        sys.exit(f"Not as it is built: {', '.join(found)}. Run: python scripts/build_workstation.py")


def _build(source: Path, built: Path) -> None:
    """Write what is generated, install what is locked, check and build."""
    _run(source, "npm", "ci", "--no-fund", "--no-audit", "--ignore-scripts")
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "openapi.json"
        document.write_text(json.dumps(create_app(Settings(store=f"file:{folder}/store")).openapi()))
        _run(source, "npx", "openapi-typescript", str(document), "-o", str(source / GENERATED / "schema.ts"))
    vocabulary = [
        {"label": one.label, "code": one.code, "sided": one.sided, "colour": one.colour} for one in FINDINGS
    ]
    (source / GENERATED / "vocabulary.json").write_text(json.dumps(vocabulary, indent=1) + "\n", encoding="utf-8")
    _run(source, "npm", "run", "check")
    _run(source, "npx", "vite", "build", "--outDir", str(built), "--emptyOutDir", "--logLevel", "warn")


def _run(folder: Path, *command: str) -> None:
    ended = subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if ended.returncode:
        sys.exit(f"{' '.join(command[:3])} failed:\n{ended.stdout}")


def _differences(committed: Path, built: Path) -> Iterator[str]:
    """Yield the files that one of two folders lacks, or that differ."""
    files = {
        file.relative_to(folder) for folder in (committed, built) for file in folder.rglob("*") if file.is_file()
    }
    for file in sorted(files):
        one, other = committed / file, built / file
        if not (one.exists() and other.exists() and one.read_bytes() == other.read_bytes()):
            yield str(file)


if __name__ == "__main__":
    main()
