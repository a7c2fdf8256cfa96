"""Run the site, a worker and, without an API key, the simulated provider in one process."""

import contextlib
import logging
import socket
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError, call_command
from django.db.models import Q

from project.celery import app
from project.embedded import running_worker
from videojobs.conf import conf
from videojobs.models import VideoJob
from videojobs.testing import Script, SimulatedProvider
from videojobs.testing.script import DIRECTIVES

LOGIN = "dev"
# These log each step and each sweep.
_CHATTY = ("celery.app.trace", "celery.worker.strategy", "celery.beat")


class Command(BaseCommand):
    help = "Run the site with admin, worker and, when no API key is set, the simulated provider."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="the first port to try")

    def handle(self, *, port: int, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("serve creates a login with a known password: set DJANGO_DEBUG=1.")
        call_command("migrate", verbosity=0)
        self._make_login()
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        with contextlib.ExitStack() as stack:
            if settings.SIMULATED:
                stack.enter_context(self._simulator())
            stack.enter_context(running_worker(app, beat=True))
            address = f"127.0.0.1:{_free_port(port)}"
            self.stdout.write(
                f"\n  Gallery   http://{address}/\n"
                f"  Admin     http://{address}/admin/\n"
                f"  Login     {LOGIN}, password {LOGIN}\n"
                f"  Provider  {conf.BASE_URL}\n"
                "  Submit    ./dev manage videojobs_submit 'A kitten in the grass' --duration 5\n"
                "  Press Ctrl-C to stop.\n"
            )
            call_command("runserver", address, use_reloader=False, stdout=self.stdout)

    def _make_login(self) -> None:
        users = get_user_model().objects
        if not users.filter(username=LOGIN).exists():
            users.create_superuser(LOGIN, password=LOGIN)

    def _simulator(self) -> SimulatedProvider:
        """The simulated provider on a fixed port, so that jobs continue after a restart."""
        port: int = settings.SIMULATOR_PORT
        if not _is_free(port):
            raise CommandError(
                f"The simulated provider needs port {port}, which is in use. "
                "Set VIDEOJOBS_SIMULATOR_PORT to a free port."
            )
        self.stdout.write(
            "VIDEOJOBS_API_KEY is not set: the provider is simulated, nothing is billed, and jobs "
            f"are polled every {conf.POLL_INTERVAL:g} s instead of every 30 s."
        )
        self.stdout.write(f"Words in a prompt control the simulation: {', '.join(DIRECTIVES)}.")
        provider = SimulatedProvider(api_key=conf.API_KEY, script=Script.from_prompt, port=port)
        # Jobs of an earlier run continue, as they would with a real provider.
        for job in VideoJob.objects.filter(endpoint__startswith=conf.BASE_URL).exclude(
            Q(provider_task_id=None) | Q(mirror_status="stored")
        ):
            provider.add_task(str(job.provider_task_id), Script.from_prompt(job.prompt))
        return provider


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return bool(probe.connect_ex(("127.0.0.1", port)))


def _free_port(wanted: int) -> int:
    """`wanted`, or the first free port of the 49 after it."""
    for port in range(wanted, wanted + 50):
        if _is_free(port):
            return port
    raise CommandError(f"No free port from {wanted} to {wanted + 49}. Choose one with --port.")
