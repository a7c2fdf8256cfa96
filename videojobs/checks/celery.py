"""System checks for Celery's settings: Redis, database connections and queues."""

import math
from collections import Counter
from collections.abc import Iterator

from celery import Celery, current_app
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections, router
from django.utils.module_loading import import_string

from .. import queue
from ..celery import QUEUES
from ..conf import conf as videojobs_conf
from ..models import VideoJob


def check_celery(*, has_numbers: bool) -> Iterator[CheckMessage]:
    """Yield messages; those about durations only if the settings of the app are numbers."""
    wrong_app = list(_check_app())
    yield from wrong_app
    if has_numbers and not wrong_app:
        yield from _check_visibility_timeout()
    yield from _check_connections()
    yield from _check_queues()


def _check_app() -> Iterator[CheckMessage]:
    path: object = videojobs_conf.CELERY_APP
    if path is None:
        return
    try:
        app = import_string(path.replace(":", ".")) if isinstance(path, str) else None
        reason = "it is not a Celery app"
    except Exception as error:  # importing a module can raise any exception
        app, reason = None, f"it can't be imported: {error}"
    if not isinstance(app, Celery):
        yield Error(
            f"VIDEOJOBS['CELERY_APP'] must be the path of a Celery app: {reason}.",
            hint="For example, 'mysite.celery.app'; None for Celery's default app.",
            id="videojobs.E018",
        )


def _check_visibility_timeout() -> Iterator[CheckMessage]:
    """Redis delivers a message again whose countdown exceeds the visibility timeout."""
    timeout, longest = queue.visibility_timeout(), queue.HORIZON
    if timeout is not None and timeout < 1.5 * longest:
        yield Warning(
            f"Redis redelivers a waiting message after {timeout:g} s, but the longest countdown "
            f"is {longest:g} s.",
            hint="Set visibility_timeout in Celery's broker_transport_options to at least "
            f"{math.ceil(1.5 * longest)} s, for all apps on that Redis.",
            id="videojobs.W004",
        )


def _check_connections() -> Iterator[CheckMessage]:
    """Celery's Django fixup ignores CONN_MAX_AGE unless CELERY_DB_REUSE_MAX is set."""
    conf, alias = current_app.conf, router.db_for_write(VideoJob)
    database = connections[alias]
    # An in-memory broker is for development; without any broker there are no workers.
    broker = str(conf.broker_write_url or conf.broker_url or "memory")
    has_workers = not (conf.task_always_eager or broker.startswith("memory"))
    reconnects = database.vendor != "sqlite" and not database.settings_dict["OPTIONS"].get("pool")
    if not (has_workers and reconnects):
        return
    missing = []
    if not conf.get("CELERY_DB_REUSE_MAX"):
        missing.append("CELERY_DB_REUSE_MAX = 1000")
    if database.settings_dict["CONN_MAX_AGE"] == 0:
        missing.append(f"DATABASES[{alias!r}]['CONN_MAX_AGE'] = 60")
    if missing:
        yield Warning(
            "Celery workers connect to the database again for each task, which takes about 4 ms "
            "of CPU time in the worker and 17 ms in PostgreSQL.",
            hint=f"Set {' and '.join(missing)}.",
            id="videojobs.W006",
        )


def _check_queues() -> Iterator[CheckMessage]:
    """A queue without an exchange and a routing key gets the default ones."""
    conf = current_app.conf
    if not conf.task_queues:
        return
    # A new instance: the app's own one adds queues when they are read.
    queues = current_app.amqp.Queues(conf.task_queues)
    default = {conf.task_default_queue: (conf.task_default_exchange, conf.task_default_routing_key)}
    bindings = default | {name: (q.exchange.name, q.routing_key) for name, q in queues.items()}
    number = Counter(bindings.values())
    shared = [own.name for own in QUEUES if own.name in queues and number[bindings[own.name]] > 1]
    if shared:
        yield Warning(
            f"CELERY_TASK_QUEUES binds {' and '.join(shared)} with the exchange and routing key "
            "of another queue: messages for one queue can be delivered to both.",
            hint="Use QUEUES of videojobs.celery.",
            id="videojobs.W007",
        )
