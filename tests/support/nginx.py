"""A real nginx for tests, with a given configuration."""

from __future__ import annotations

import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import ANSWER_SECONDS, Server, obtain

# A single process, so that it reads files as the user who runs the tests. The temporary paths are
# set since only root can write to the default ones.
CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    server {{
        listen 127.0.0.1:{port};
        location = {whoami} {{ return 200 $pid; }}
        {options}
    }}
}}
"""
WHOAMI = "/.videojobs-whoami"


class Nginx(Server):
    """An nginx on a free port; `options` are the directives of its `server` block.

    A running nginx at an address can't be used, since each test needs its own configuration.
    """

    name = "nginx"
    program = "nginx"
    variable = ""
    own_url = "http://127.0.0.1:{port}"
    stop_signal = signal.SIGTERM

    @classmethod
    def _runs(cls, binary: Path) -> bool:
        try:
            answer = subprocess.run([binary, "-v"], capture_output=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return answer.returncode == 0

    def _command(self) -> list[str]:
        text = CONFIGURATION.format(
            directory=self.directory,
            port=self.port,
            whoami=WHOAMI,
            options="\n".join(self._options),
        )
        file = self.directory / "nginx.conf"
        file.write_text(text)
        log = str(self.directory / "log")  # Includes errors before the configuration is read.
        return [str(self._binary), "-e", log, "-p", str(self.directory), "-c", str(file)]

    def _is_itself(self) -> bool:
        with urllib.request.urlopen(f"{self.url}{WHOAMI}", timeout=ANSWER_SECONDS) as answer:
            return bool(answer.read() == str(self.pid).encode())


@contextmanager
def serving(configuration: str) -> Iterator[Nginx]:
    """Run an nginx with these directives in its `server` block. Without nginx, see `obtain`."""
    with obtain(Nginx, own=True, options=[configuration]) as server:
        yield server
