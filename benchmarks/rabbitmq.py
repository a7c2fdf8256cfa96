"""A RabbitMQ of our own: a node with its own epmd, on free ports, below a private directory."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from kombu import Connection
from kombu.exceptions import OperationalError

from tests.processes import free_port
from tests.servers import ANSWER_SECONDS, Server

PLACES = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin")
# By itself, the node would leave an epmd behind.
PROGRAM = """
epmd -address 127.0.0.1 & epmd=$!
"$0" & node=$!
trap 'kill $node' TERM
while kill -0 $node; do wait $node; done 2>/dev/null
kill $epmd
"""


class RabbitMQ(Server):
    """A node that keeps its queues and persistent messages over `restart` and `kill`."""

    name = "RabbitMQ"
    program = "rabbitmq-server"
    variable = "VIDEOJOBS_TEST_RABBITMQ_URL"
    wheel = "no_such_wheel/"
    own_url = "amqp://guest:guest@127.0.0.1:{port}//"
    stop_signal = signal.SIGTERM

    @classmethod
    def installed_binaries(cls) -> Iterator[Path]:
        # Debian's command on PATH changes to a user that can't write here.
        for place in PLACES:
            if (binary := Path(place, cls.program)).exists():
                yield binary

    @classmethod
    def _runs(cls, binary: Path) -> bool:
        return shutil.which("erl") is not None and shutil.which("epmd") is not None

    def _prepare(self) -> None:
        self._ports = {"RABBITMQ_DIST_PORT": free_port(), "ERL_EPMD_PORT": free_port()}

    def _command(self) -> list[str]:
        values: dict[str, object] = {
            "HOME": self.directory,  # of the Erlang cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"videojobs{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": self.port,
            "RABBITMQ_MNESIA_BASE": self.directory / "mnesia",
            "RABBITMQ_LOG_BASE": self.directory,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": self.directory / "no.conf",
            "RABBITMQ_CONF_ENV_FILE": self.directory / "no-env.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.directory / "plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none"
            ),
            "RUNNING_UNDER_SYSTEMD": "true",  # The script becomes the node, instead of its parent.
            **self._ports,
        }
        settings = [f"{name}={value}" for name, value in values.items()]
        return ["env", *settings, "sh", "-c", PROGRAM, str(self._binary)]

    def answers(self) -> bool:
        try:
            return super().answers()
        except OperationalError:
            return False

    def _is_itself(self) -> bool:
        with Connection(self.url, connect_timeout=ANSWER_SECONDS) as connection:
            name = connection.connection.server_properties["cluster_name"]
        return bool(self.address) or name.startswith(f"videojobs{self.port}@")
