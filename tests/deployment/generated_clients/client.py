"""Submits an image, waits for its report and reads an error, with a client generated from the OpenAPI document."""

import io
import json
import sys
from pathlib import Path

from explain_my_xray_client import AuthenticatedClient
from explain_my_xray_client.api.jobs import show_job, submit_job
from explain_my_xray_client.models import Job, JobForm, JobFormPriorityType0, ProblemDocument
from explain_my_xray_client.types import File

url, image = sys.argv[1:]
with AuthenticatedClient(base_url=url, token="") as client:
    client.get_httpx_client().headers.pop("Authorization")  # this server has no keys
    file = File(io.BytesIO(Path(image).read_bytes()), "x.png", "image/png")
    sent = submit_job.sync(client=client, body=JobForm(file=file, priority=JobFormPriorityType0.STAT))
    assert isinstance(sent, Job), sent
    ended = show_job.sync(sent.id, client=client, wait=30)
    assert isinstance(ended, Job) and ended.report, ended
    problem = show_job.sync("unknown", client=client)
    assert isinstance(problem, ProblemDocument)
    print(json.dumps([ended.priority, ended.report.impression, problem.type_]))
