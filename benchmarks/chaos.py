"""`./dev chaos`: jobs while workers are killed, the broker is emptied, the database restarts."""

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
    """The exit code: 0 when each run meets each target."""
    options = _parser().parse_args(arguments)
    # So that workers, beat and servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    named = "://" in options.broker
    if options.write and named:
        sys.exit("dev chaos: --write is for the brokers that the benchmark disturbs")
    django.setup()
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        say("the machine is busy with something else, and the figures will show it")
    say("undisturbed")
    calm, broker, own = _half(options, rough=False, seed=options.seed)
    runs = []
    for number in range(1, options.runs + 1):
        say(f"disturbed, run {number} of {options.runs}")
        rough, *_ = _half(options, rough=True, seed=options.seed + number - 1)
        runs.append(Run(calm=calm, rough=rough, broker=broker, own=own))
        say("; ".join(missed(runs[-1])) or f"run {number} meets all targets")
    text = f"{facts(runs[0])}\n\n{table(runs)}"
    print(text)
    if options.write:
        save(f"chaos-{options.broker}", f"Chaos with {broker.split()[0]}", text)
    return 1 if any(missed(run) for run in runs) else 0


def facts(run: Run) -> str:
    """What the figures depend on. No dates: the page's history has them."""
    parts = [f"Python {platform.python_version()}"]
    parts += [f"{name} {version(name)}" for name in ("Django", "Celery", "kombu")]
    text = ", ".join([*parts, run.broker, run.rough.database, f"{os.cpu_count()} cores."])
    if not run.own:
        text += " The broker was at an address that was given: it was used, and not disturbed."
    return text


def _half(options: argparse.Namespace, *, rough: bool, seed: int) -> tuple[Evidence, str, bool]:
    """What a run has left, with what broker, and whether that was one of our own."""
    from .run import carry_out  # It needs Django, which needs the settings.

    directory = Path(tempfile.mkdtemp(prefix="videojobs-chaos-"))
    with ExitStack() as stack:
        broker = stack.enter_context(_broker(options.broker))
        own, name = not broker.address, f"{broker.name} {_version_of(broker)}"
        seen = carry_out(
            options.jobs, broker=broker, directory=directory, rough=rough, seed=seed, say=say
        )
    if options.keep:
        say(f"logs are in {directory}")
    else:
        shutil.rmtree(directory)
    return seen, name, own


def _broker(broker: str) -> Server:
    """One of our own by its name, or the one at an address."""
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
    parser.add_argument("--jobs", type=int, default=1000, help="per run (1000)")
    parser.add_argument(
        "--runs", type=int, default=1, help="disturbed ones, after one that is undisturbed"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the kills' times (1)")
    parser.add_argument(
        "--broker",
        default="redis",
        help="redis or rabbitmq: one of its own (redis). Or the address of one that is only used: "
        "a database or vhost that nobody else uses, since the workers take whatever is there",
    )
    parser.add_argument("--write", action="store_true", help="the table into results/")
    parser.add_argument("--keep", action="store_true", help="the logs of workers and beat")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotFound as error:
        sys.exit(f"dev chaos: {error}")
