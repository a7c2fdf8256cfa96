"""Measure the poll interval, which reveals a second chain of wake-ups.

The number of checks doesn't: a script of three steps always ends with the third check. With two
chains it ends too soon.
"""

from collections import defaultdict
from itertools import pairwise

from videojobs.testing import SimulatedProvider


def shortest_wait(provider: SimulatedProvider) -> float:
    """The shortest time in seconds between two checks of the same task."""
    times = defaultdict(list)
    for call in provider.calls:
        if call.kind == "check":
            times[call.task_id].append(call.at)
    return min(later - earlier for at in times.values() for earlier, later in pairwise(at))
