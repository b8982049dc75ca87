"""The documents: the site builds, links resolve, and what is named in them exists."""

import importlib.util
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import explainmyxray
from emx_shared.ledger.scrub import FaultKind
from emx_shared.settings import Settings
from support.documents import DOCS, DOCUMENTS, ROOT, TOP_LEVEL, blocks, shell_lines

GENERATORS = DOCS / "generators"
_LINK = re.compile(r"\]\((?P<target>[^()\s]+)\)")


@cache
def generator(name: str):  # type: ignore[no-untyped-def]
    """Load a module of docs/generators."""
    if str(GENERATORS) not in sys.path:
        sys.path.append(str(GENERATORS))
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert built.returncode == 0, built.stderr
    return folder


class _Loads(HTMLParser):
    """Collects what a page loads when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") != "canonical":
            self.found.append(given.get("href") or "")


def test_the_site_builds_and_loads_nothing_from_other_hosts(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert not [url for url in loads.found if re.match(r"(https?:)?//", url)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", style.read_text(encoding="utf-8")), style


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<=[ :])([\w/.-]+\.md)$", text, re.MULTILINE))
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} <= named


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    generated = {DOCS / page for page in generator("hook").GENERATED}
    for found in _LINK.finditer(document.read_text(encoding="utf-8")):
        path, _, anchor = found["target"].partition("#")
        if path and not re.match(r"[a-z]+:", path):
            target = (document.parent / path).resolve()
            assert target.exists() or (target in generated and document not in TOP_LEVEL), found["target"]
            if anchor and target.suffix == ".md" and target.exists():
                assert anchor in _anchors(target), found["target"]


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_documents_name_no_place_on_the_authors_machine() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"/(work|tmp|home|root|Users)/", document.read_text(encoding="utf-8")), document


@cache
def _files() -> frozenset[str]:
    """Return the files of the clone as paths from its root, except what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return frozenset(file for file in listed if (ROOT / file).is_file())


def test_every_source_file_that_a_document_names_exists() -> None:
    """By its path from the root, or by the end of that path."""
    endings = {"/".join(file.split("/")[start:]) for file in _files() for start in range(file.count("/") + 1)}
    # The changelog has names of the past; the card was written when the model was made.
    for document in set(DOCUMENTS) - {ROOT / "CHANGELOG.md", ROOT / "models" / "demo" / "README.md"}:
        for name in re.findall(r"`([\w./-]+\.(?:py|lark|lua|yml|toml))`", document.read_text(encoding="utf-8")):
            assert name in endings or "NAME" in name, (document, name)


def test_the_guide_names_every_fault_that_a_check_finds() -> None:
    text = (DOCS / "guides" / "operate.md").read_text(encoding="utf-8")
    assert [kind.code for kind in FaultKind if f"`{kind.code}`" not in text] == []


def test_the_life_of_a_job_names_functions_where_they_are() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    place = r"(?:\[[^\]]*\]\(\.\./(?P<link>[^)]+)\)|`(?P<path>[\w./]+\.py)`)"
    seen = 0
    for found in re.finditer(rf"`(?P<name>[\w.]+)`(?: and `(?P<other>\w+)`)? in {place}", text):
        ending = found["link"] or "/" + found["path"]
        (file,) = (file for file in _files() if file.endswith(ending))
        source = (ROOT / file).read_text(encoding="utf-8")
        for name in filter(None, (found["name"], found["other"])):
            assert re.search(rf"(def|class) {name.rpartition('.')[2]}\b", source), found[0]
            seen += 1
    assert seen > 12


def test_every_setting_is_described_in_its_group() -> None:
    settings = generator("settings_reference")
    page = settings.settings_reference()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"| `{settings.variable(name)}` |" in page
    grouped = [name for names in settings.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(Settings.model_fields), f"change GROUPS in {settings.__file__}"
    assert str(ROOT) not in page


def test_every_setting_that_a_document_names_exists() -> None:
    known = {f"EMX_{name.upper()}" for name in Settings.model_fields}
    for document in DOCUMENTS:
        for name in re.findall(r"\bEMX_[A-Z0-9_]*[A-Z0-9]\b", document.read_text(encoding="utf-8")):
            assert name in known, (document, name)


def test_every_metric_and_every_alert_is_described() -> None:
    metrics = generator("metrics_reference")
    page = metrics.metrics_reference()
    declared = (ROOT / "shared" / "emx_shared" / "prometheus_metrics.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"(emx_\w+)"', declared))
    assert names == set(metrics.metrics())
    rules = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text(encoding="utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    for name in names | alerts:
        assert f"| `{name}` |" in page


def test_every_metric_that_a_document_names_exists() -> None:
    known = set(generator("metrics_reference").metrics())
    packages = {"emx_shared", "emx_gateway", "emx_worker", "emx_training", "emx_benchmarks"}
    for document in DOCUMENTS:
        for name in re.findall(r"`(emx_[a-z_]+)`", document.read_text(encoding="utf-8")):
            assert name in known | packages, (document, name)


def test_every_operation_of_the_api_is_described_with_its_scope_and_its_problems() -> None:
    http = generator("http_reference")
    page, document = http.http_reference(), http.openapi_document()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            heading = f"### {method.upper()} {path} {{ #{operation['operationId']} }}\n"
            assert heading in page
            section = page.partition(heading)[2].partition("\n### ")[0]
            for needed in operation.get("security", []):
                assert f"Scope: `{needed['HTTPBearer'][0]}`" in section
            for parameter in operation.get("parameters", []):
                assert f"| `{parameter['name']}` |" in section
            for status in operation["responses"]:
                assert f"| {status} | `" in section or f"**Answer {status}**" in section, (path, status)
    for name in document["components"]["schemas"]:
        assert f"### {name} {{ #schema-{name.lower()} }}" in page


def test_every_public_name_is_in_the_python_reference(site: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (site / "reference" / "python").glob("*.html"))
    documented = {name.rpartition(".")[2] for name in re.findall(r'<h\d id="([\w.]+)"', pages)}
    aliases = {"JobEvent", "__version__"}
    assert set(explainmyxray.__all__) - aliases <= documented


def test_the_list_of_client_methods_is_complete() -> None:
    text = (DOCS / "reference" / "python" / "index.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `client\.(\w+)` \| (.+) \|$", text, re.MULTILINE))
    with explainmyxray.Client("http://127.0.0.1:1") as client:
        for resource, names in listed.items():
            public = {name for name in dir(getattr(client, resource)) if not name.startswith("_")}
            assert set(re.findall(r"`(\w+)`", names)) == public, resource
        assert set(listed) == {name for name in vars(client) if not name.startswith("_")}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_every_command_can_be_pasted_into_a_shell(shell: str) -> None:
    """An interactive zsh, as macOS has it, knows no comments, and takes ? and * for patterns of files."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: on Debian, apt install {shell}")
    for block in blocks(*DOCUMENTS, language="sh"):
        parsed = subprocess.run([shell, "-n"], input=block.code, capture_output=True, text=True)
        assert parsed.returncode == 0, f"{block}: {parsed.stderr}"
        for line in block.code.splitlines():
            unquoted = re.sub(r"'[^']*'|\"[^\"]*\"|\$\(", "", line)
            assert not re.search(r"(^|\s)#", unquoted), f"{block}: say it beside the command: {line}"
            assert not re.search(r"[?*\[]", unquoted), f"{block}: quote this: {line}"


def _commands() -> Iterator[tuple[str, str]]:
    for block, command in shell_lines(*DOCUMENTS):
        yield str(block), command


def test_every_emx_command_in_the_documents_exists() -> None:
    known = {command.name: command for command in generator("cli_reference").commands()}
    page = generator("cli_reference").cli_reference()
    for name in known:
        assert f"# {name}\n" in page
    seen = 0
    for place, line in _commands():
        words = shlex.split(line)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if not words or Path(words[0]).name != "emx":
            continue
        seen += 1
        name = "emx"
        while len(words) > 1 and f"{name} {words[1]}" in known:
            name = f"{name} {words.pop(1)}"
        assert name in known, f"{place}: {line}"
        assert not known[name].group, f"{place}: {line}"
        options = {option for parameter in known[name].parameters for option in parameter.names}
        for word in words[1:]:
            assert not word.startswith("-") or word.partition("=")[0] in options, f"{place}: {line}"
    assert seen > 10


def test_every_emx_command_in_running_text_exists() -> None:
    known = {command.name for command in generator("cli_reference").commands()}
    groups = {name for name in known if name.count(" ") == 1}
    for document in DOCUMENTS:
        for name, following in re.findall(r"`emx ([a-z]+)(?: ([a-z-]+))?", document.read_text(encoding="utf-8")):
            assert f"emx {name}" in groups, (document, name)
            inner = {command for command in known if command.startswith(f"emx {name} ")}
            assert not inner or not following or f"emx {name} {following}" in inner, (document, name, following)


def test_every_module_and_script_that_a_command_runs_exists() -> None:
    for place, line in _commands():
        words = shlex.split(line)
        programs = [
            word
            for word in words
            if word.startswith(("./", "docs/", "scripts/")) and word.endswith((".py", ".sh"))
        ]
        if words[0] == "./test.sh" and words[1:]:
            programs.append(words[1] if words[1].startswith("tests/") else f"tests/{words[1]}")
        for program in programs:
            assert (ROOT / program).exists(), f"{place}: {line}"
        for flag, module in itertools.pairwise(words):
            if flag == "-m" and Path(words[0]).name.startswith(("python", "accelerate")):
                assert importlib.util.find_spec(module), f"{place}: {line}"


def test_the_hooks_before_a_commit_call_programs_that_exist() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    for hook in (hook for repository in config["repos"] for hook in repository["hooks"]):
        program, *arguments = hook["entry"].split()
        assert hook["language"] == "system"
        assert (Path(sysconfig.get_path("scripts")) / Path(program).name).exists(), hook["id"]
        for argument in arguments:
            assert not argument.endswith(".py") or (ROOT / argument).exists(), hook["id"]


def test_python_blocks_pass_the_type_checker(tmp_path: Path) -> None:
    """So they compile, and use only names, arguments and attributes that exist."""
    named = {}
    for number, block in enumerate(blocks(*DOCUMENTS, language="python")):
        file = tmp_path / f"block_{number}.py"
        file.write_text(block.code + "\n", encoding="utf-8")
        named[file.name] = str(block)
    assert len(named) > 8
    # An example may take for granted that the report is there.
    command = [sys.executable, "-m", "mypy", "--disable-error-code", "union-attr", "--no-error-summary"]
    command += map(str, tmp_path.glob("*.py"))
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    said = re.sub(r"\S*(block_\d+\.py)", lambda found: named[found[1]], checked.stdout)
    assert checked.returncode == 0, said + checked.stderr
