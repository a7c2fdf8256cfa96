"""The lines and tests that `./dev invariants` names exist."""

import pytest

from tests.invariants import MUTANTS, ROOT, Mutant


def test_each_invariant_is_on_the_list() -> None:
    assert {mutant.invariant for mutant in MUTANTS} == {f"I{number}" for number in range(1, 12)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.invariant}-{mutant.file}")
def test_the_line_that_keeps_an_invariant_stands_where_the_list_says(mutant: Mutant) -> None:
    text = (ROOT / "videojobs" / mutant.file).read_text()

    assert mutant.breaks(text) != text


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.invariant}-{mutant.file}")
def test_the_test_that_must_notice_is_there(mutant: Mutant) -> None:
    file, _, name = mutant.test.partition("::")

    assert f"def {name}" in (ROOT / "tests" / file).read_text()
