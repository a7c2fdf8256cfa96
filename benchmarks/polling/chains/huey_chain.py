"""A task of huey that schedules itself, with the naive body. Arguments: work, or send."""

from __future__ import annotations

import sys

import django

from benchmarks.polling import packages

packages.add_to_path()
django.setup()

from huey import RedisHuey  # noqa: E402

from . import body  # noqa: E402

huey = RedisHuey("chains", url=body.REDIS_URL, results=False)


@huey.task()
def check(pk: int) -> None:
    if wait := body.naive_and_close(pk):
        check.schedule((pk,), delay=wait)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        for pk, _task_id, wait in body.jobs():
            check.schedule((pk,), delay=wait) if wait else check(pk)
    else:
        # A scheduler that looks once a second is its default.
        huey.create_consumer(workers=body.PLACES, worker_type="thread").run()
