"""An actor of dramatiq that sends itself with a delay, with the naive body.

Arguments: work, or send.
"""

from __future__ import annotations

import sys
import threading

import django

from benchmarks.polling import packages

packages.add_to_path()
django.setup()

import dramatiq  # noqa: E402
from dramatiq.brokers.redis import RedisBroker  # noqa: E402

from . import body  # noqa: E402

broker = RedisBroker(url=body.REDIS_URL)
dramatiq.set_broker(broker)


@dramatiq.actor
def check(pk: int) -> None:
    if wait := body.naive_and_close(pk):
        check.send_with_options(args=(pk,), delay=int(wait * 1000))


if __name__ == "__main__":
    if sys.argv[1] == "send":
        for pk, _task_id, wait in body.jobs():
            check.send_with_options(args=(pk,), delay=int(wait * 1000) or None)
    else:
        dramatiq.Worker(broker, worker_threads=body.PLACES).start()
        threading.Event().wait()
