"""``embedbatch serve``: the embedded model on a port. The only place for uvicorn."""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address
from types import FrameType

from ..errors import ConfigurationError
from ..local import LocalApp, load

try:
    import uvicorn
except ModuleNotFoundError:
    raise ConfigurationError(
        "serve needs the package uvicorn. Install it with: pip install 'embedbatch[serve]'"
    ) from None

_PATIENCE = 10  # seconds for the requests that are being answered when it is to stop


class _Server(uvicorn.Server):
    """uvicorn's server, for which a signal is a wish to stop: its own raises the signal anew when all is done."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at the second signal, without waiting for what is being answered."""
        self.force_exit = self.should_exit
        self.should_exit = True


def serve(host: str, port: int, api_key: str | None) -> None:
    """Answer requests at *host* and *port*, where 0 is any port that is free, until a signal comes."""
    app = LocalApp(api_key=api_key)
    with _listen(host, port) as listening:
        load()  # what is missing is said now, and the first request need not wait
        shown = f"[{host}]" if ":" in host else host
        port = listening.getsockname()[1]
        keyless = "no key is asked for" if api_key is None else "with the key it was given"
        print(f"Serving the model local at http://{shown}:{port}/v1, {keyless}. Ctrl-C stops it.", flush=True)
        if api_key is None and not _is_loopback(listening):
            print("embedbatch: warning: everyone who reaches this machine can use it: see --api-key", file=sys.stderr)
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_PATIENCE,
        )
        _Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"--host, --port: cannot listen at {host!r}, port {port}: {error}") from error


def _is_loopback(listening: socket.socket) -> bool:
    return ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback
