"""Receivers of all signals, which record each signal and its job from inside the worker."""

import os
from typing import Any

from django.dispatch import Signal

from videojobs import signals

PATH = os.environ["VIDEOJOBS_TEST_SIGNALS"]


def _listen(name: str, signal: Signal) -> None:
    def note(job: Any, new: str = "", **_: Any) -> None:
        file = os.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            # A single write, since several workers append to the file and can die at any time.
            os.write(file, f"{job.key}\t{name}\t{new}\n".encode())
        finally:
            os.close(file)

    signal.connect(note, weak=False)


for _name, _signal in vars(signals).copy().items():
    if isinstance(_signal, Signal):
        _listen(_name, _signal)
