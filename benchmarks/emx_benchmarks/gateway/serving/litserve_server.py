"""Serves LitServe's endpoint, which takes an upload and answers: ``python litserve_server.py PORT``."""

import sys
from typing import Any

import litserve
from fastapi import Request


class LitNoOp(litserve.LitAPI):
    """An API that does no work."""

    def setup(self, device: str) -> None:
        """Load nothing."""

    def decode_request(self, request: Request) -> bytes:
        """Return the uploaded file; ``request`` is the form, although LitServe calls it a request."""
        data: bytes = request["file"].file.read()
        return data

    def predict(self, data: bytes) -> int:
        """Return the size of the upload in bytes."""
        return len(data)

    def encode_response(self, output: int) -> dict[str, Any]:
        """Return the answer's JSON."""
        return {"bytes": output}


if __name__ == "__main__":
    server = litserve.LitServer(LitNoOp(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
