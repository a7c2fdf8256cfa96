import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videojobs.mirror import disk
from videojobs.mirror.disk import Sha256, WriteBack

EVERY = WriteBack.EVERY


class Disk:
    """A fake disk that counts syncs, blocks until allowed to continue, and raises `error`."""

    def __init__(self) -> None:
        self.syncs = 0
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.error: OSError | None = None

    def sync(self, descriptor: int) -> None:
        self.syncs += 1
        self.begun.set()
        assert self.may_go_on.wait(5)
        os.fsync(descriptor)
        if self.error:
            raise self.error


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr(disk, "_sync_data", found.sync)
    return found


@pytest.fixture
def quick_disk(slow_disk: Disk) -> Disk:
    slow_disk.may_go_on.set()
    return slow_disk


@pytest.fixture
def file(tmp_path: Path) -> Any:
    with (tmp_path / "part").open("wb") as file:
        yield file


def test_a_small_file_is_left_to_the_flush_at_its_end(quick_disk: Disk, file: Any) -> None:
    with WriteBack(file) as write_back:
        write_back.wrote(EVERY - 1)

    assert quick_disk.syncs == 0


def test_the_disk_begins_while_a_large_file_comes_in(quick_disk: Disk, file: Any) -> None:
    with WriteBack(file) as write_back:
        for number in range(1, 4):
            write_back.wrote(number * EVERY)
            write_back.check()

    assert quick_disk.syncs == 3


def test_a_slow_disk_is_not_waited_for(slow_disk: Disk, file: Any) -> None:
    with WriteBack(file) as write_back:
        for number in range(1, 9):
            write_back.wrote(number * EVERY)
            assert slow_disk.begun.wait(5)

        assert slow_disk.syncs == 1
        slow_disk.may_go_on.set()


def test_the_file_stays_open_until_the_write_ends(slow_disk: Disk, file: Any) -> None:
    # After the file is closed, its descriptor may be reused for another file.
    with WriteBack(file) as write_back:
        write_back.wrote(EVERY)
        assert slow_disk.begun.wait(5)
        threading.Timer(0.05, slow_disk.may_go_on.set).start()

    assert slow_disk.may_go_on.is_set()


@pytest.mark.parametrize("ask", ["the next piece", "the end"])
def test_an_error_of_the_disk_that_is_reported_once_only_is_not_lost(
    quick_disk: Disk, file: Any, ask: str
) -> None:
    quick_disk.error = OSError(errno.EIO, "Input/output error")
    with WriteBack(file) as write_back:
        write_back.wrote(EVERY)
        while write_back._thread and write_back._thread.is_alive():
            write_back._thread.join()

        with pytest.raises(OSError, match="Input/output error"):
            write_back.wrote(2 * EVERY) if ask == "the next piece" else write_back.check()


def test_a_directory_can_be_flushed(tmp_path: Path) -> None:
    disk.flush_directory(tmp_path)
    with pytest.raises(FileNotFoundError):
        disk.flush_directory(tmp_path / "gone")


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
