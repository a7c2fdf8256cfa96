"""Limits for the sizes of packages, modules and functions. See `docs/design.md`."""

import ast
from collections import Counter
from pathlib import Path

APP = Path(__file__).resolve().parent.parent / "videojobs"
MODULES = [path for path in APP.rglob("*.py") if "migrations" not in path.parts]


def test_no_folder_has_more_than_22_modules() -> None:
    sizes = Counter(path.parent.relative_to(APP) for path in MODULES)

    assert {str(folder): size for folder, size in sizes.items() if size > 22} == {}


def test_no_module_has_more_than_300_lines() -> None:
    lengths = {str(path.relative_to(APP)): len(path.read_text().splitlines()) for path in MODULES}

    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_no_function_has_50_lines_or_more() -> None:
    long = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length >= 50:
                    long[f"{path.relative_to(APP)}:{node.name}"] = length

    assert long == {}


def test_each_room_says_what_happens_in_it() -> None:
    rooms = [path for path in MODULES if path.name == "__init__.py" and path.parent != APP]
    silent = [path for path in rooms if not ast.get_docstring(ast.parse(path.read_text()))]

    assert [str(path.relative_to(APP).parent) for path in silent] == []
