from pathlib import Path

import pytest

from benchmarks import reporting


def test_a_report_replaces_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "RESULTS", tmp_path / "results")

    reporting.save("mirror", "The mirror step", "| old |")
    reporting.save("mirror", "The mirror step", "| new |")

    assert (tmp_path / "results" / "mirror.md").read_text() == "# The mirror step\n\n| new |\n"
