"""Serves Ray Serve's asynchronous inference over Celery: ``python ray_application.py PORT REDIS FOLDER``."""

import signal
import sys
from typing import Any

import ray
from fastapi import FastAPI, UploadFile
from ray import serve
from ray.serve.schema import CeleryAdapterConfig, TaskProcessorConfig
from ray.serve.task_consumer import instantiate_adapter_from_config, task_consumer, task_handler

port, redis, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
config = TaskProcessorConfig(
    queue_name="reads", adapter_config=CeleryAdapterConfig(broker_url=redis, backend_url=redis)
)
web = FastAPI()


@serve.deployment(ray_actor_options={"num_cpus": 0})
@task_consumer(task_processor_config=config)
class ReadConsumer:
    """Takes jobs from the queue, and does no work."""

    @task_handler(name="read")
    def read(self, data: bytes) -> int:
        """Return the size of the upload in bytes."""
        return len(data)


@serve.deployment(ray_actor_options={"num_cpus": 0})
@serve.ingress(web)
class JobIngress:
    """Takes uploads over HTTP, and tells the state of jobs."""

    def __init__(self, reader: Any) -> None:
        self.adapter = instantiate_adapter_from_config(config)

    @web.post("/jobs", status_code=202)
    def submit(self, file: UploadFile) -> dict[str, str]:
        """Enqueue an upload, and return the job's id."""
        return {"id": self.adapter.enqueue_task_sync("read", args=[file.file.read()]).id}

    @web.get("/jobs/{id}")
    def show(self, id: str) -> dict[str, str]:
        """Return a job's state."""
        return {"state": self.adapter.get_task_status_sync(id).status}


if __name__ == "__main__":
    ray.init(
        address="local",
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        log_to_driver=False,
        _temp_dir=folder,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(JobIngress.bind(ReadConsumer.bind()))  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
