"""``python -P -m emx_gateway``: serve on EMX_HOST and EMX_PORT."""

import sys

import uvicorn

from emx_gateway.app import UnsafeBind, create_app
from emx_shared.settings import settings
from emx_shared.store import StoreError


def main() -> None:
    """Serve until stopped; exit with a sentence if that is impossible."""
    try:
        app = create_app()
    except (UnsafeBind, StoreError) as error:
        sys.exit(f"The gateway can't start: {error}")
    uvicorn.run(
        app,
        host=settings().host,
        port=settings().port,
        log_level=settings().log_level,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
