"""The nginx example of the documents, in a real nginx with TLS and a prefix, in front of a real gateway."""

import io
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from emx_shared.api_keys import KeyRing
from emx_shared.store.directory import DirectoryStore
from explainmyxray.client import Client
from explainmyxray.supervisor import free_port
from support.gateway import RunningGateway, StartGateway
from support.paths import ROOT

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
"""Debian keeps it where users' paths don't lead."""

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx isn't installed")


@pytest.fixture(scope="module")
def proxied(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway
) -> Iterator[tuple[httpx.Client, RunningGateway, ssl.SSLContext]]:
    """A client of the proxy, with an API key, and the gateway behind it."""
    folder = tmp_path_factory.mktemp("nginx")
    certificate, key, port = folder / "tls.pem", folder / "tls.key", free_port()
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            key,
            "-out",
            certificate,
            *subject,
        ],
        check=True,
        capture_output=True,
    )
    _, text = KeyRing(DirectoryStore(folder / "store")).create("north")
    public = {"EMX_PUBLIC_URL": f"https://localhost:{port}/xray", "EMX_TRUSTED_PROXIES": '["127.0.0.1"]'}
    with start_gateway(redis_url, folder / "store", **public) as gateway:
        example = (ROOT / "docs/guides/nginx.conf").read_text()
        for given, here in (
            ("127.0.0.1:8000", gateway.url.removeprefix("http://")),
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("/etc/ssl/xray.example.org.pem", str(certificate)),
            ("/etc/ssl/xray.example.org.key", str(key)),
            ("xray.example.org;", "localhost;"),
            ("proxy_set_header Host $host;", "proxy_set_header Host $http_host;"),  # a port of its own
        ):
            assert given in example
            example = example.replace(given, here)
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; user root;\n"
            f"events {{}}\nhttp {{ access_log off; client_body_temp_path {folder}/body;\n{example}\n}}\n"
        )
        process = subprocess.Popen([str(NGINX), "-p", folder, "-c", folder / "nginx.conf"])
        trust = ssl.create_default_context(cafile=certificate)
        headers = {"Authorization": f"Bearer {text}"}
        base = f"https://localhost:{port}/xray"
        with httpx.Client(base_url=base, verify=trust, headers=headers, timeout=30) as client:
            for _ in range(100):
                try:
                    client.get("/healthz").raise_for_status()
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield client, gateway, trust
        process.terminate()
        process.wait(10)


Proxied = tuple[httpx.Client, RunningGateway, ssl.SSLContext]


def test_addresses_in_answers_work_from_outside(proxied: Proxied) -> None:
    client, gateway, trust = proxied
    sent = client.post("/v1/jobs", files={"file": ("x.png", gateway.png())})
    origin = str(client.base_url).removesuffix("/xray/")
    job = httpx.get(origin + sent.headers["location"], headers=client.headers, verify=trust)
    assert job.json()["id"] == sent.json()["id"]
    upload = client.post("/v1/uploads").json()["url"]
    assert upload.startswith(f"{origin}/xray/v1/uploads/")
    assert httpx.put(upload, content=gateway.png(), verify=trust).status_code == 204
    for _ in range(3):
        client.post("/v1/jobs", files={"file": ("x.png", gateway.png())})
    page = client.get("/v1/jobs", params={"limit": 1})
    following = client.get(str(page.url.join(page.links["next"]["url"])))
    assert following.json()["items"][0]["id"] != page.json()["items"][0]["id"]


def test_the_workstation_and_the_documents_find_their_parts_below_the_prefix(proxied: Proxied) -> None:
    client, _, _ = proxied
    page = client.get("/")
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert client.get(str(page.url.join(address))).status_code == 200, address
    documents = client.get("/docs")
    for address in re.findall(r'(?:src|href)="([^"]+)"', documents.text):
        assert client.get(str(documents.url.join(address))).status_code == 200, address
    (schema,) = re.findall(r"url: '([^']+)'", documents.text)
    assert client.get(str(documents.url.join(schema))).json()["servers"] == [{"url": "/xray"}]


def test_events_come_as_they_happen_and_large_bodies_pass(proxied: Proxied) -> None:
    client, gateway, _ = proxied
    stream = io.BytesIO()
    Image.effect_noise((5000, 5000), 60).save(stream, "PNG", compress_level=0)
    assert len(stream.getvalue()) > 20 * 2**20
    job = client.post("/v1/jobs", files={"file": ("x.png", stream.getvalue())}).json()["id"]
    worker = threading.Thread(target=gateway.written_by_a_worker, args=(job, "FINDINGS: There", " is fluid."))
    worker.start()
    arrived: dict[str, float] = {}
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        for line in events.iter_lines():
            if line.startswith("event: "):
                arrived.setdefault(line.removeprefix("event: "), time.monotonic())
    worker.join()
    assert arrived["ended"] - arrived["text"] > 0.2, "the text came before the report, not with it"


def test_our_client_works_through_a_proxy_and_the_log_has_the_clients_address(
    proxied: Proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, gateway, _ = proxied
    monkeypatch.setenv("SSL_CERT_FILE", str(next(iter_certificates(gateway))))
    key = client.headers["authorization"].removeprefix("Bearer ")
    with Client(str(client.base_url), api_key=key) as ours:
        job = ours.jobs.submit(gateway.png())
        gateway.read_by_a_worker(job.id)
        assert ours.jobs.wait(job, timeout=20).state == "succeeded"


def iter_certificates(gateway: RunningGateway) -> Iterator[Path]:
    store = gateway.ledger.settings.store.removeprefix("file:")
    yield Path(store).parent / "tls.pem"
