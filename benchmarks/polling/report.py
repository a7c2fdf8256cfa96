"""Medians, ratios and tables. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns, except the first, are aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table, or a dash if there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, with the lowest and the highest value in parentheses."""
    if not values:
        return "–"
    lowest, highest = number(min(values), digits), number(max(values), digits)
    return f"{number(median(values), digits)} ({lowest} to {highest})"


def paired_ratio(values: Mapping[int, float], base: Mapping[int, float]) -> float | None:
    """The median of the ratios of each round, since a round's runs share the machine's state."""
    ratios = [values[turn] / base[turn] for turn in values if base.get(turn)]
    return median(ratios) if ratios else None


def percentile(values: Sequence[float], part: float) -> float | None:
    """The value that `part` of the values, from 0 to 1, don't exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)] if ordered else None


def slope(first: tuple[float, float], second: tuple[float, float]) -> float:
    """The growth per unit between two points (x, y)."""
    return (second[1] - first[1]) / (second[0] - first[0])


def headroom(capacity: float, busiest: float) -> str:
    """Whether the provider could have slowed a contestant down. Both are calls per second."""
    times = capacity / busiest
    warning = "" if times >= 3 else " **This is too little: the provider may be the bottleneck.**"
    return f"The provider can answer {times:.0f} times as many calls as the busiest run.{warning}"


def section(text: str, title: str, body: str) -> str:
    """A report with one section replaced, or added at the end."""
    heading, found = f"## {title}", False
    parts = text.split("\n## ")
    kept = [parts[0].rstrip()]
    for part in parts[1:]:
        if part.split("\n", 1)[0] == title:
            kept.append(f"{heading}\n\n{body.strip()}")
            found = True
        else:
            kept.append(f"## {part.rstrip()}")
    if not found:
        kept.append(f"{heading}\n\n{body.strip()}")
    return "\n\n".join(kept) + "\n"
