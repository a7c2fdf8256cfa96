"""Download URLs inside an isolated network, and record the addresses that were reached.

Run as a module, it reads cases as JSON from standard input and writes outcomes to standard output.
"""

import contextlib
import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from django.conf import settings
from django.core.files.storage import FileSystemStorage

from videojobs.exceptions import VideoJobsError
from videojobs.mirror import pipeline
from videojobs.mirror.destination import Destination
from videojobs.providers import client

from .name_server import NameServer, Zone
from .network import NAME_SERVER
from .targets import TUNNEL_PORT, Targets

#: The host at which redirects start, and its address.
CDN, CDN_ADDRESS = "cdn.test", "8.8.8.8"
# With a provider on plain HTTP, outputs may use plain HTTP as well.
USUAL = {"BASE_URL": "http://provider.test", "CONNECT_TIMEOUT": 0.3, "DOWNLOAD_TIMEOUT": 5.0}


@dataclass(frozen=True)
class Case:
    """A URL, the names that exist, settings that differ from `USUAL`, and the expected result.

    `reaches` are the addresses that the download may connect to, in order. With `plain`, the URL is
    also requested without address checks, which reaches other addresses.
    """

    title: str
    url: str
    names: Zone = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    reaches: Sequence[str] = ()
    plain: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a download, and the addresses that it connected to, in order.

    `sha256` is that of the downloaded file, if any; `left` are the files left behind; `asked` are
    the names that were resolved. `plain` are the addresses that a client without address checks
    reached with the same URL.
    """

    error: str = ""
    transient: bool = False
    message: str = ""
    sha256: str = ""
    left: list[str] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    authorized: bool = False
    #: Host headers and local ports of the requests that carried the key or other credentials.
    keyed: list[str] = field(default_factory=list)
    #: What a proxy was asked to connect to.
    tunnels: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trusting:
    """Arrivals from a client that uses the environment: the proxy, or else `.netrc`."""

    reached: list[str]
    authorized: bool


class Laboratory:
    """The servers of the network, and the execution of cases."""

    def __init__(self, directory: Path, names: NameServer, targets: Targets) -> None:
        self._directory = directory
        self._names = names
        self._targets = targets

    def outcome(self, case: Case) -> Outcome:
        self._prepare(case)
        outcome = self._download(case.url)
        asked = sorted({name for name, _ in self._names.asked})
        arrivals = self._targets.take()
        return replace(
            outcome,
            reached=[a.address for a in arrivals if a.port != TUNNEL_PORT],
            asked=asked,
            authorized=any(arrival.authorized for arrival in arrivals),
            keyed=[f"{a.host}:{a.port}" for a in arrivals if a.authorized],
            tunnels=[a.request.split()[1].decode() for a in arrivals if a.port == TUNNEL_PORT],
            plain=self._without_checks(case) if case.plain else [],
        )

    def trusting(self) -> Trusting:
        self._prepare(Case("", ""))
        for exceptions in ("", "*"):
            os.environ["no_proxy"] = exceptions
            requests.get(f"http://{CDN}/v.mp4", timeout=1)
        arrivals = self._targets.take()
        return Trusting([a.address for a in arrivals], arrivals[-1].authorized)

    def _prepare(self, case: Case) -> None:
        self._names.zone = {CDN: [[CDN_ADDRESS]], **case.names}
        settings.VIDEOJOBS = {**USUAL, **case.settings}

    def _download(self, url: str) -> Outcome:
        storage = FileSystemStorage(self._directory / "outputs")
        try:
            with pipeline.download(
                url,
                Destination.of(storage),
                "v",
                progress=lambda *_: None,
                authorize=client.authorization,
            ) as done:
                assert done.sha256 == hashlib.sha256(done.path.read_bytes()).hexdigest()
            outcome = Outcome(sha256=done.sha256)
        except VideoJobsError as error:
            outcome = Outcome(type(error).__name__, error.transient, str(error))
        left = [path.name for path in Path(storage.location).glob("*")]
        return replace(outcome, left=left)

    def _without_checks(self, case: Case) -> list[str]:
        self._prepare(case)
        with contextlib.suppress(requests.RequestException, OSError, ValueError):
            _look_and_get(case.url)
        return [arrival.address for arrival in self._targets.take()]


def _look_and_get(url: str) -> None:
    """Resolve the name, then connect, like a client that checks addresses beforehand."""
    socket.getaddrinfo(urlsplit(url).hostname, 80)
    with requests.Session() as session:
        session.trust_env = False
        session.get(url, timeout=1)


def _outcomes(directory: Path, cases: list[Case]) -> Iterator[tuple[str, Any]]:
    with NameServer(NAME_SERVER) as names, Targets() as targets:
        laboratory = Laboratory(directory, names, targets)
        for case in cases:
            yield case.title, asdict(laboratory.outcome(case))
        yield "trusting", asdict(laboratory.trusting())


def main() -> None:
    settings.configure(VIDEOJOBS=USUAL)
    cases = [Case(**fields) for fields in json.load(sys.stdin)]
    json.dump(dict(_outcomes(Path(sys.argv[1]), cases)), sys.stdout)


if __name__ == "__main__":
    main()
