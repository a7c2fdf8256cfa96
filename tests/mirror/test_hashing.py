import hashlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videojobs.mirror.hashing import Sha256


def hashing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "videojobs-hash"]


@given(st.lists(st.binary(max_size=4000), max_size=12))
def test_the_digest_is_that_of_all_pieces_in_their_order(pieces: list[bytes]) -> None:
    digest = Sha256()
    for piece in pieces:
        digest.update(piece)

    assert digest.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_more_can_follow_after_a_digest() -> None:
    digest = Sha256()
    digest.update(b"one")
    digest.hexdigest()
    digest.update(b"two")

    assert digest.hexdigest() == hashlib.sha256(b"onetwo").hexdigest()


@pytest.mark.parametrize("end", [Sha256.hexdigest, Sha256.close])
def test_no_thread_is_left_behind(end: object) -> None:
    digest = Sha256()
    digest.update(b"one")
    assert hashing_threads()

    end(digest)  # type: ignore[operator]

    assert hashing_threads() == []


def test_without_a_piece_no_thread_is_started() -> None:
    Sha256().close()

    assert hashing_threads() == []
