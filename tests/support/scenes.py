"""Generated pictures for the documentation: a sun over hills, in various colors."""

from __future__ import annotations

import math

Colour = tuple[int, int, int]

#: The colors of the upper sky, the horizon, the sun, and the hills from far to near.
PALETTES: list[tuple[str, str, str, list[str]]] = [
    ("264682", "ffbe78", "fff0c8", ["785a78", "503c5f", "28233c"]),
    ("5aaadc", "dcf0fa", "fffadc", ["96be8c", "5a965a", "32693c"]),
    ("0c1028", "323c6e", "e6ebfa", ["283056", "1a203e", "0e1228"]),
    ("963c5a", "ffaa82", "ffe196", ["a0505a", "6e3246", "3c1c2e"]),
    ("7896aa", "ebebe1", "fffffa", ["aab4b9", "788791", "465460"]),
    ("145a6e", "a0dcc8", "fff5be", ["3c8c8c", "1e646e", "0e3e4c"]),
]


def scene(number: int, width: int = 640, height: int = 360) -> bytes:
    """A picture as RGBA bytes; each number gives a different one."""
    *names, hill_names = PALETTES[number % len(PALETTES)]
    above, horizon, sun = (_colour(str(name)) for name in names)
    hills = [_colour(name) for name in hill_names]
    rows = []
    centre, radius = (width * (0.25 + 0.1 * (number % 5)), height * 0.42), height * 0.12
    for y in range(height):
        part = min(1.0, y / (height * 0.75))
        sky = _mixed(above, horizon, part)
        row = [sky] * width
        half = math.sqrt(max(0.0, radius**2 - (y - centre[1]) ** 2))
        for x in range(round(centre[0] - half), round(centre[0] + half)):
            row[x] = sun
        for depth, hill in enumerate(hills):
            top = height * (0.55 + 0.14 * depth)
            for x in range(width):
                wave = math.sin((x + 150 * number + 90 * depth) / (95 - 12 * depth))
                if y > top + wave * height * 0.07:
                    row[x] = hill
        rows.append(bytes(part for colour in row for part in (*colour, 255)))
    return b"".join(rows)


def _colour(name: str) -> Colour:
    red, green, blue = bytes.fromhex(name)
    return red, green, blue


def _mixed(one: Colour, other: Colour, part: float) -> Colour:
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(one, other))
    return red, green, blue
