"""How plain our English is: counts idioms in docstrings, comments, texts, templates and Markdown.

`./dev lint` runs it: it fails above `MOST` in 10,000 words, and lists each place. Folders and
files as arguments narrow it: `python -m tests.language videojobs/admin`.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("videojobs", "project", "tests", "benchmarks", "docs")
#: The most idioms in 10,000 words.
MOST = 10

IDIOMS = re.compile(
    r"\b(?:nobody|somebody|anybody|whoever|whomever|whatever|told|tells?|he|his|him(?:self)?"
    r"|what (?:is|was|has|had|came|comes|goes|it|they|no|a|the|can|could|may|does|did)"
    r"|who (?:is|was) at|(?:is|was) at it|for good|by itself)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_TEMPLATE_TAG = re.compile(r"{%-?\s*(?!translate|blocktranslate)[^%]*%}|{{[^}]*}}|<[^>]*>")
#: A text of fewer words than this is a name, or a piece of code.
_FEWEST_WORDS = 3


@dataclass(frozen=True)
class Prose:
    """A piece of English, and the line of the file at which it begins."""

    path: Path
    line: int
    text: str

    @property
    def words(self) -> int:
        return len(_WORD.findall(self.text))

    @property
    def idioms(self) -> list[str]:
        return IDIOMS.findall(self.text)


def prose(path: Path) -> Iterator[Prose]:
    """All English in a file."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from _lines(path, _CODE.sub(_blank, source))
    elif path.suffix == ".html":
        yield from _lines(path, _TEMPLATE_TAG.sub(_blank, source))
    else:
        yield from _of_python(path, source)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _lines(path: Path, text: str) -> Iterator[Prose]:
    for number, line in enumerate(text.splitlines(), 1):
        yield Prose(path, number, line)


def _of_python(path: Path, source: str) -> Iterator[Prose]:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = _CODE.sub(_blank, node.value)
            if len(_WORD.findall(text)) >= _FEWEST_WORDS and " " in text.strip():
                yield Prose(path, node.lineno, text)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Prose(path, token.start[0], _CODE.sub(_blank, token.string.lstrip("#: ")))


def files() -> Iterator[Path]:
    yield from sorted(ROOT.glob("*.md"))
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".md", ".html"} and "migrations" not in path.parts:
                yield path


def main(arguments: list[str]) -> int:
    chosen = [Path(argument).resolve() for argument in arguments] or [ROOT]
    wanted = (path for path in files() if any(path.is_relative_to(place) for place in chosen))
    found = [piece for path in wanted if path != Path(__file__) for piece in prose(path)]
    words = sum(piece.words for piece in found)
    idioms = sum(len(piece.idioms) for piece in found)
    rate = 10_000 * idioms / max(words, 1)
    if arguments or rate > MOST:
        for piece in found:
            if piece.idioms:
                place = f"{piece.path.relative_to(ROOT)}:{piece.line}"
                print(f"{place}: {', '.join(piece.idioms)}: {' '.join(piece.text.split())[:110]}")
    print(f"{idioms} idioms in {words:,} words: {rate:.1f} in 10,000, at most {MOST} are allowed")
    return int(rate > MOST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
