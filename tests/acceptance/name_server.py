"""A DNS server whose answers can change from query to query, as in DNS rebinding."""

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Self, TypeAlias

A, CNAME, AAAA = 1, 5, 28
#: Name → its answers: the n-th query gets the n-th answer, and the last answer repeats. An answer
#: has addresses, or the single name that this name is an alias of (CNAME). Queries are counted for
#: each record type.
Zone: TypeAlias = Mapping[str, Sequence[Sequence[str]]]

_ANSWER, _NO_SUCH_NAME = 0x8580, 0x8583
_INTERNET = 1
_LONGEST_CHAIN = 8


class NameServer:
    """Answers queries on UDP port 53 of `address` from `zone`, which can be replaced at any time.

    `asked` counts the queries for each name and type since the last replacement.
    """

    def __init__(self, address: str) -> None:
        self.asked: Counter[tuple[str, int]] = Counter()
        self._zone: Zone = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    @property
    def zone(self) -> Zone:
        return self._zone

    @zone.setter
    def zone(self, zone: Zone) -> None:
        self._zone = zone
        self.asked = Counter()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._reply(query), client)

    def _reply(self, query: bytes) -> bytes:
        name, end = _read_name(query, 12)
        kind = int.from_bytes(query[end : end + 2])
        self.asked[name, kind] += 1
        records = list(self._records(name, kind))
        flags = _ANSWER if name in self._zone else _NO_SUCH_NAME
        header = query[:2] + struct.pack("!5H", flags, 1, len(records), 0, 0)
        return header + query[12 : end + 4] + b"".join(records)

    def _records(self, name: str, kind: int) -> Iterator[bytes]:
        question = name
        for _alias in range(_LONGEST_CHAIN):
            answers = self._zone.get(name, [[]])
            found = answers[min(self.asked[question, kind], len(answers)) - 1]
            target = ""
            for value in found:
                record = _record(name, value)
                target = value if record[0] == CNAME else target
                if record[0] in {kind, CNAME}:
                    yield record[1]
            if not target:
                return
            name = target


def _record(name: str, value: str) -> tuple[int, bytes]:
    """The type and the bytes of an A, AAAA or CNAME record for `name`, with a TTL of 0."""
    try:
        ip = ip_address(value)
    except ValueError:
        kind, data = CNAME, _write_name(value)
    else:
        kind, data = (A if ip.version == 4 else AAAA), ip.packed
    return kind, _write_name(name) + struct.pack("!HHIH", kind, _INTERNET, 0, len(data)) + data


def _read_name(message: bytes, start: int) -> tuple[str, int]:
    labels = []
    while length := message[start]:
        labels.append(message[start + 1 : start + 1 + length].decode("latin-1").lower())
        start += 1 + length
    return ".".join(labels), start + 1


def _write_name(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
