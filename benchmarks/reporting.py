"""What a benchmark tells: to whoever waits for it, and to the pages of the documentation."""

from __future__ import annotations

import re
import sys
import time


def say(text: str) -> None:
    """A line with the time, apart from the figures."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def written(page: str, mark: str, text: str) -> str:
    """The page with the text between the two marks of this name. ValueError without them."""
    begin, end = f"<!-- {mark} -->\n", f"\n<!-- end of {mark} -->"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not found.search(page):
        raise ValueError(f"the page has no marks for {mark}")
    return found.sub(lambda _: f"{begin}\n{text}\n{end}", page)
