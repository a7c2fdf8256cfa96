"""A program that runs the app where Python has no module and no name that only POSIX systems have.

It imports everything, runs `check` and brings a job into storage. `python -m` runs it, with the
settings of the site and a database in the environment. Celery and other libraries choose by
`sys.platform`, so they are imported before the names are taken away. So does `subprocess`, which
needs them later, so the media check is off: its program has a test of its own.
"""

import asyncio
import importlib
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile

import celery.beat
import celery.concurrency.thread
import celery.fixups.django
import celery.worker
import django.core.management
import kombu.transport.memory
import requests

LIBRARIES = (asyncio, celery, kombu, requests, subprocess, tempfile)
MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
#: Names that the documentation of Python says are not available on Windows.
NAMES = {
    os: "O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC "
    "WIFEXITED WNOHANG chown confstr copy_file_range ctermid fchmod fchown fdatasync fork forkpty "
    "fstatvfs getegid geteuid getgid getloadavg getpgid getpgrp getuid getxattr killpg lchown "
    "lockf memfd_create mkfifo mknod nice openpty pidfd_open pipe2 posix_fadvise posix_fallocate "
    "posix_spawn pread pwrite readv register_at_fork sched_getaffinity sched_setaffinity "
    "sched_yield sendfile setgid setpgid setsid setuid setxattr statvfs sysconf ttyname uname "
    "wait wait3 wait4 waitid writev",
    select: "epoll kqueue poll",
    signal: "ITIMER_REAL ITIMER_VIRTUAL SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT "
    "SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH alarm getitimer pause pthread_kill pthread_sigmask "
    "setitimer siginterrupt sigpending sigtimedwait sigwait sigwaitinfo",
    socket: "AF_UNIX MSG_DONTWAIT MSG_NOSIGNAL SO_REUSEPORT TCP_USER_TIMEOUT",
}
#: It can only be imported by a worker that is to be killed.
ARMED = "videojobs.testing.crash_hook"


def take_away() -> None:
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in NAMES.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)


def import_everything() -> None:
    for name in ("videojobs", "project"):
        path = importlib.import_module(name).__path__
        for module in pkgutil.walk_packages(path, f"{name}."):
            if module.name != ARMED:
                importlib.import_module(module.name)


def store_a_video() -> str:
    from django.conf import settings

    from tests.services.steps import run, submitted
    from tests.support.jobs import asked_at
    from videojobs.testing import Script, SimulatedProvider

    with SimulatedProvider(script=Script(["completed"])) as provider:
        settings.VIDEOJOBS = asked_at(provider)
        job = run(submitted(), times=3)
    return f"{job.status}, {job.mirror_status} {job.error}"


if __name__ == "__main__":
    take_away()
    django.setup()
    import_everything()
    django.core.management.call_command("check")
    django.core.management.call_command("migrate", verbosity=0)
    print(store_a_video())
