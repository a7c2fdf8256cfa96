"""How fast the provider was asked: a second chain of wake-ups shows in this, and not in a count.

However many chains poll a job, a script of three steps is over with its third check; but with two
of them it is over too soon.
"""

from collections import defaultdict
from itertools import pairwise

from videojobs.testing import SimulatedProvider


def shortest_wait(provider: SimulatedProvider) -> float:
    """The fewest seconds between two checks of one task."""
    times = defaultdict(list)
    for call in provider.calls:
        if call.kind == "check":
            times[call.task_id].append(call.at)
    return min(later - earlier for at in times.values() for earlier, later in pairwise(at))
