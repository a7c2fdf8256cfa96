from __future__ import annotations

import errno
import json
import signal
import threading
from contextlib import suppress
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser

from videojobs.management.base import JobCommand
from videojobs.testing import Call, Script, SimulatedProvider
from videojobs.testing.script import DIRECTIVES


class Command(JobCommand):
    help = "Run a simulated provider in the foreground, for trying out a site at no cost."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
        parser.add_argument(
            "--port", type=int, default=8900, help="0: any free port (default: %(default)s)"
        )
        parser.add_argument("--api-key", default="sim-5d1f08c7", help="default: %(default)s")
        parser.add_argument(
            "--seconds",
            type=float,
            default=8.0,
            help="time to generate a video (default: %(default)s)",
        )

    def handle(self, *, host: str, port: int, api_key: str, seconds: float, **_: Any) -> None:
        if seconds <= 0:
            raise CommandError("--seconds must be greater than 0.")
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        script = partial(Script.from_prompt, seconds=seconds)
        provider = SimulatedProvider(api_key, script, host, port)
        try:
            provider.start()
        except (OSError, OverflowError) as exc:
            raise CommandError(_advice(host, port, exc)) from exc
        try:
            self._introduce(provider)
            self._report_creates(provider)
        except KeyboardInterrupt:
            self.stdout.write("Stopped.")
        finally:
            provider.stop()

    def _introduce(self, provider: SimulatedProvider) -> None:
        settings = {
            "BASE_URL": provider.base_url,
            "API_KEY": provider.api_key,
            "ALLOWED_PRIVATE_NETWORKS": ["127.0.0.0/8"],
        }
        self.stdout.write(
            "The simulated provider is running. To use it, put into your settings\n\n"
        )
        self.stdout.write(f"  VIDEOJOBS = {json.dumps(settings)}\n\n")
        self.stdout.write("or run the site of this repository with\n\n")
        self.stdout.write(f"  VIDEOJOBS_BASE_URL={provider.base_url}")
        self.stdout.write(f"  VIDEOJOBS_API_KEY={provider.api_key}")
        self.stdout.write("  VIDEOJOBS_ALLOWED_PRIVATE_NETWORKS=127.0.0.0/8\n\n")
        self.stdout.write("These words in a prompt change the result:\n\n")
        for word, meaning in DIRECTIVES.items():
            self.stdout.write(f"  {word:<9} {meaning}")
        self.stdout.write("\nPress Ctrl-C to stop it.")
        self.stdout.flush()

    def _report_creates(self, provider: SimulatedProvider) -> None:
        reported: list[Call] = []
        while True:
            # With a timeout, since a signal doesn't wake a thread that is about to wait for a lock.
            with suppress(TimeoutError):
                provider.wait_for(lambda p: len(p.creates) > len(reported), timeout=0.5)
            for call in provider.creates[len(reported) :]:
                self.stdout.write(_line(call, provider))
                reported.append(call)
            self.stdout.flush()


def _line(call: Call, provider: SimulatedProvider) -> str:
    if call.task_id is None:
        return "refused"
    task = provider.tasks[call.task_id]
    # repr escapes control sequences for the terminal.
    return f"{task.id}  {task.model[:40]!r}  {task.prompt[:60]!r}"


def _advice(host: str, port: int, exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
        return f"Port {port} is in use. Choose another port with --port."
    return f"Can't listen on {host}:{port} ({exc}). Change --host or --port."
