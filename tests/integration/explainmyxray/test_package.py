"""What the package exports, and the one root of its exceptions."""

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import explainmyxray
from emx_shared import version
from explainmyxray import AsyncClient, BadImage, Client, ExplainMyXrayError
from support.gateway import RunningGateway
from support.paths import ROOT

PACKAGE = ROOT / "explainmyxray"


def test_every_export_can_be_imported_and_is_known_to_type_checkers() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = [name.name for node in typed.body if isinstance(node, ast.ImportFrom) for name in node.names]
    assert sorted(imported) == sorted(explainmyxray.__all__)
    assert set(explainmyxray.__all__) <= set(dir(explainmyxray))
    for name in explainmyxray.__all__:
        assert getattr(explainmyxray, name) is not None
    assert explainmyxray.__version__ == version.__version__
    assert (PACKAGE / "py.typed").is_file()


def imported_by(statement: str) -> set[str]:
    """Those of some large packages that a statement imports."""
    code = f"import sys; {statement}; print(*{{'httpx', 'pydantic', 'numpy', 'torch'}}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_else() -> None:
    assert imported_by("import explainmyxray") == set()


def test_errors_can_be_named_without_torch() -> None:
    assert "torch" not in imported_by("from explainmyxray import BadImage, CannotStart, NoReport, Report")


def modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(explainmyxray.__path__, "explainmyxray."):
        if found.name != "explainmyxray.__main__":
            yield importlib.import_module(found.name)


def test_every_exception_of_the_package_has_the_one_root() -> None:
    defined = {
        found
        for module in modules()
        for found in vars(module).values()
        if inspect.isclass(found) and issubclass(found, BaseException) and found.__module__ == module.__name__
    }
    assert len(defined) > 15
    assert [found for found in defined if not issubclass(found, ExplainMyXrayError)] == []


def public_functions() -> Iterator[Any]:
    """The exported functions, and the methods of exported classes and of what clients consist of."""
    exported = [getattr(explainmyxray, name) for name in explainmyxray.__all__]
    found = [*exported, *(type(part) for part in vars(Client()).values())]
    for each in found:
        if inspect.isfunction(each):
            yield each
        elif inspect.isclass(each):
            yield each
            own = (vars(base) for base in each.__mro__ if base.__module__.startswith(("explainmyxray.", "emx_")))
            yield from (member for members in own for name, member in members.items() if not name.startswith("_"))


def documented_exceptions() -> Iterator[str]:
    for found in public_functions():
        _, _, section = (inspect.getdoc(found) or "").partition("Raises:\n")
        yield from re.findall(r"^ {4}(\w+):", section, re.MULTILINE)


def test_every_documented_exception_is_exported_and_has_the_one_root() -> None:
    names = set(documented_exceptions())
    assert {"BadImage", "NotFound", "ModelError", "InferenceError", "BadWebhook"} <= names
    for name in names:
        assert not hasattr(builtins, name), name
        assert issubclass(getattr(explainmyxray, name), ExplainMyXrayError), name


NO_IMAGES = {
    "floats": np.zeros((64, 64)),
    "CMYK": Image.new("CMYK", (64, 64)),
    "missing": Path("nowhere") / "mrs-jones.png",
    "folder": ".",
    "object": object(),
    "refused": b"no image",
}


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_an_image_that_is_invalid_here_or_refused_there_is_one_error_to_catch(
    gateway: RunningGateway, kind: str
) -> None:
    image: Any = NO_IMAGES[kind]
    with Client(gateway.url) as client, pytest.raises(explainmyxray.BadImage) as caught:
        client.jobs.submit(image)
    assert isinstance(caught.value, explainmyxray.ApiError) == (kind == "refused")
    assert isinstance(caught.value, OSError) == (kind in ("missing", "folder"))
    assert "jones" not in str(caught.value)
    assert explainmyxray.BadImage is BadImage


def test_a_malformed_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from emx_shared.settings import settings

    monkeypatch.setenv("EMX_PORT", "eighty")
    settings.cache_clear()
    with pytest.raises(explainmyxray.InvalidConnection, match="EMX_PORT"):
        Client()
    settings.cache_clear()


OPERATIONS = {
    "submit_job": "jobs.submit",
    "list_jobs": "jobs.list",
    "erase_jobs": "jobs.erase_study",
    "show_job": "jobs.get",
    "watch_job": "jobs.events",
    "cancel_job": "jobs.cancel",
    "erase_job": "jobs.erase",
    "explain": "read",
    "show_report_as_accepted": "jobs.rendering",
    "show_report": "jobs.report",
    "show_text": "jobs.rendering",
    "show_html": "jobs.rendering",
    "show_pdf": "jobs.rendering",
    "show_overlay": "jobs.overlay",
    "show_image": "jobs.image",
    "show_input": "jobs.input",
    "report_schema": "report_schema",
    "submit_feedback": "feedback.submit",
    "show_feedback": "feedback.versions",
    "list_feedback": "feedback.list",
    "feedback_table": "feedback.table",
    "feedback_coco": "feedback.coco",
    "feedback_agreement": "feedback.agreement",
    "create_upload": "uploads.create",
    "receive_upload": "uploads.create",
    "create_batch": "batches.create",
    "list_batches": "batches.list",
    "show_batch": "batches.get",
    "list_items": "batches.items",
    "stream_results": "batches.results",
    "pause_batch": "batches.pause",
    "resume_batch": "batches.resume",
    "cancel_batch": "batches.cancel",
    "erase_batch": "batches.erase",
    "retry_batch": "batches.retry",
    "rotate_secret": "webhooks.rotate_secret",
    "ping": "webhooks.ping",
    "list_deliveries": "webhooks.deliveries",
    "show_delivery": "webhooks.get_delivery",
    "redeliver": "webhooks.redeliver",
    "export_group": "jobs.export_patient",
    "redeliver_many": "webhooks.redeliver_many",
    "listen": "webhooks.listen",
    "readyz": "ready",
}
"""The method for each operation of the API."""


def test_each_endpoint_has_a_method(gateway: RunningGateway) -> None:
    paths = gateway.client.get("/openapi.json").json()["paths"]
    operations = {operation["operationId"] for methods in paths.values() for operation in methods.values()}
    assert operations - OPERATIONS.keys() == {"healthz"}  # is for whoever starts the process
    for made in (Client(gateway.url), AsyncClient(gateway.url)):
        for method in OPERATIONS.values():
            found: Any = made
            for part in method.split("."):
                found = getattr(found, part)
            assert callable(found)
