"""A private PostgreSQL with pgvector, in a folder of its own, which ends with the process that started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "pass word/ä?&%"
SETTINGS = {
    "listen_addresses": "",  # a socket in the folder, and no port
    "fsync": "off",  # what these tests kill are clients and servers, not machines
    "shared_buffers": "32MB",
    "max_connections": "30",
}


class Cluster:
    """A cluster in *folder*, whose superuser is ``alice``; the programs are those of the *package* of PostgreSQL."""

    def __init__(self, package: Path, folder: Path) -> None:
        self.folder = folder
        self._server: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root. What dies with its parent needs nobody to stop it.
        as_nobody = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        self._run = ["setpriv", "--pdeathsig=INT", *as_nobody] if shutil.which("setpriv") else []
        if as_nobody:  # who may not be able to read the environment
            for part in (f"{package.name}.libs", f"{package.name}/pginstall"):
                shutil.copytree(package.parent / part, folder / part, symlinks=True)
            package = folder / package.name
        self._tools = package / "pginstall" / "bin"
        secret = folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        if as_nobody:
            for path in (folder, secret):
                shutil.chown(path, "nobody", "nogroup")
        made = ["-D", "data", "-U", "alice", "-A", "scram-sha-256", "--pwfile", secret.name, "-E", "UTF8", "-N"]
        subprocess.run(
            [*self._command("initdb"), *made], cwd=folder, env=_environment(), stdout=subprocess.PIPE, check=True
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [*self._command("postgres"), "-D", "data", "-k", str(self.folder), *settings]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, cwd=self.folder, env=_environment(), stdout=log, stderr=log)
        ready = [str(self._tools / "pg_isready"), "-q", "-h", str(self.folder)]
        while subprocess.run(ready, env=_environment(), check=False).returncode:
            assert self._server.poll() is None, (self.folder / "log").read_text(encoding="utf-8")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends connections in order, SIGQUIT is a crash."""
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(30)
            self._server = None

    def dsn(self, database: str = "postgres", user: str = "alice") -> str:
        """Its URL, without a password."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def _command(self, name: str) -> list[str]:
        return [*self._run, str(self._tools / name)]


def _environment() -> dict[str, str]:
    return {"LC_ALL": "C", "PATH": os.environ["PATH"], "TZ": "UTC"}


@contextmanager
def running(package: Path) -> Iterator[Cluster]:
    """A cluster that runs as long as the block."""
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:  # short: the path of a socket is
        cluster = Cluster(package, Path(folder))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
