"""``python -P -m emx_gateway``: serve on EMX_HOST and EMX_PORT."""

import sys

import uvicorn

from emx_gateway.app import UnsafeBind, create_app
from emx_gateway.http.server import GRACE_SECONDS, GatewayServer, protocol
from emx_shared.settings import settings
from emx_shared.store import StoreError


def main() -> None:
    """Serve until stopped; exit with a sentence if that is impossible."""
    try:
        app = create_app()
    except (UnsafeBind, StoreError) as error:
        sys.exit(f"The gateway can't start: {error}")
    chosen = settings()
    config = uvicorn.Config(
        app,
        host=chosen.host,
        port=chosen.port,
        log_level=chosen.log_level,
        http=protocol(chosen.max_connections, chosen.receive_timeout),
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=chosen.keep_alive,
        proxy_headers=bool(chosen.trusted_proxies),
        forwarded_allow_ips=chosen.trusted_proxies,
        server_header=False,
    )
    GatewayServer(config, app.state.stopping.begin).run()


if __name__ == "__main__":
    main()
