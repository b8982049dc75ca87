"""LitServe takes an upload and answers: ``python litserve_server.py PORT``."""

import sys
from typing import Any

import litserve
from fastapi import Request


class NoOp(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def decode_request(self, request: Request) -> bytes:  # of a form, although it says Request
        data: bytes = request["file"].file.read()
        return data

    def predict(self, data: bytes) -> int:
        return len(data)

    def encode_response(self, output: int) -> dict[str, Any]:
        return {"bytes": output}


if __name__ == "__main__":
    server = litserve.LitServer(NoOp(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
