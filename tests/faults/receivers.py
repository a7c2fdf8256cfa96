"""Receivers of all signals that write down, from within the worker, what they got for which job."""

import os
from typing import Any

from django.dispatch import Signal

from videojobs import signals

PATH = os.environ["VIDEOJOBS_TEST_SIGNALS"]


def _listen(name: str, signal: Signal) -> None:
    def note(job: Any, new: str = "", **_: Any) -> None:
        file = os.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            # One write: several workers append to it, and any of them may die at any moment.
            os.write(file, f"{job.key}\t{name}\t{new}\n".encode())
        finally:
            os.close(file)

    signal.connect(note, weak=False)


for _name, _signal in vars(signals).copy().items():
    if isinstance(_signal, Signal):
        _listen(_name, _signal)
