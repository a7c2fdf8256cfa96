"""`./dev chaos`: run jobs while workers are killed and the broker and database are disturbed."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import django
import redis
from kombu import Connection

from tests.support.servers import NotFound, RabbitMQ, Redis, Server

from .findings import Evidence, Run, missed, table
from .reporting import save, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 if all runs meet all targets."""
    options = _parser().parse_args(arguments)
    # Exit normally on SIGTERM, so that workers, beat and servers are stopped as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    named = "://" in options.broker
    if options.write and named:
        sys.exit("dev chaos: --write can't be combined with a broker URL: that one isn't disturbed")
    django.setup()
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        say("The machine is under load from other processes, which affects the figures.")
    say("Undisturbed run.")
    calm, broker, own = _half(options, rough=False, seed=options.seed)
    runs = []
    for number in range(1, options.runs + 1):
        say(f"Disturbed run {number} of {options.runs}.")
        rough, *_ = _half(options, rough=True, seed=options.seed + number - 1)
        runs.append(Run(calm=calm, rough=rough, broker=broker, own=own))
        say("; ".join(missed(runs[-1])) or f"Run {number} meets all targets.")
    text = f"{facts(runs[0])}\n\n{table(runs)}"
    print(text)
    if options.write:
        save(f"chaos-{options.broker}", f"Chaos with {broker.split()[0]}", text)
    return 1 if any(missed(run) for run in runs) else 0


def facts(run: Run) -> str:
    """Describe the environment of the measurement. Git records the date."""
    parts = [f"Python {platform.python_version()}"]
    parts += [f"{name} {version(name)}" for name in ("Django", "Celery", "kombu")]
    text = ", ".join([*parts, run.broker, run.rough.database, f"{os.cpu_count()} cores."])
    if not run.own:
        text += " The broker was at an address that was given: it was used, and not disturbed."
    return text


def _half(options: argparse.Namespace, *, rough: bool, seed: int) -> tuple[Evidence, str, bool]:
    """Execute a run. Returns its findings, the broker's version, and whether it was our own."""
    from .run import carry_out  # It imports models, which require django.setup().

    directory = Path(tempfile.mkdtemp(prefix="videojobs-chaos-"))
    with ExitStack() as stack:
        broker = stack.enter_context(_broker(options.broker))
        own, name = not broker.address, f"{broker.name} {_version_of(broker)}"
        seen = carry_out(
            options.jobs, broker=broker, directory=directory, rough=rough, seed=seed, say=say
        )
    if options.keep:
        say(f"The logs are in {directory}.")
    else:
        shutil.rmtree(directory)
    return seen, name, own


def _broker(broker: str) -> Server:
    """A new broker by name, or the running one at a URL."""
    kind: type[Server] = Redis if broker.startswith("redis") else RabbitMQ
    return kind(address=broker) if "://" in broker else kind.found(own=True)


def _version_of(broker: Server) -> str:
    if isinstance(broker, Redis):
        with redis.Redis.from_url(broker.url) as client:
            return str(client.info("server")["redis_version"])
    with Connection(broker.url) as connection:
        return str(connection.connection.server_properties["version"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="jobs per run (1000)")
    parser.add_argument(
        "--runs", type=int, default=1, help="disturbed runs after the undisturbed one (1)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed for the times of the kills (1)")
    parser.add_argument(
        "--broker",
        default="redis",
        help="redis or rabbitmq to start a new one (redis), or the URL of a running one, which is "
        "not disturbed. The workers consume all messages of its database or vhost, so don't share "
        "it",
    )
    parser.add_argument("--write", action="store_true", help="write the table to results/")
    parser.add_argument("--keep", action="store_true", help="keep the logs of workers and beat")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotFound as error:
        sys.exit(f"dev chaos: {error}")
