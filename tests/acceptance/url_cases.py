"""URLs that a provider or an attacker could return, and the addresses that each may reach."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.support.addresses import FORBIDDEN, PUBLIC

from .fetching import CDN, CDN_ADDRESS, Case
from .network import SILENT
from .targets import LONELY_ADDRESS, LONELY_PORT

PRIVATE, PUBLIC_V6 = "10.0.0.1", "2001:4860:4860::8888"
SPECIAL = sorted({address for addresses in FORBIDDEN.values() for address in addresses})
#: No client can open a TCP connection to these addresses.
UNREACHABLE = {
    *("224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1", "ff0e::1"),
    *("fe80::1", "fe80::a9fe:a9fe", "fe80::1%1"),  # These need a zone, which a URL can't contain.
}
NAME = "name.test"
FILE = f"http://{NAME}/v.mp4"


def url_of(address: str) -> str:
    return f"http://[{address}]/v.mp4" if ":" in address else f"http://{address}/v.mp4"


def via(location: str, *, code: int = 302) -> str:
    """A URL on the CDN that redirects to `location`."""
    return f"http://{CDN}/{code}/{location.encode().hex()}"


def hops(count: int, target: str) -> str:
    """A URL that leads to `target` after `count` redirects."""
    return hops(count - 1, via(target)) if count else target


def named(title: str, *answers: Sequence[str], **fields: Any) -> Case:
    """A case with a host name that gets these DNS answers. An alias of a private name exists."""
    names = {
        NAME: answers,
        "private.test": [[PRIVATE]],
        "alias-of-private.test": [["private.test"]],
        "circle.test": [[NAME]],
    }
    return Case(title, FILE, names, **fields)


def spelled(hosts: Iterable[str], **fields: Any) -> list[Case]:
    return [Case(f"host {host}", f"http://{host}/v.mp4", **fields) for host in hosts]


def _leading_to(address: str) -> Iterator[Case]:
    """The address directly, as a redirect target, by name, and together with a public address."""
    plain, url = address not in UNREACHABLE, url_of(address)
    yield Case(address, url, plain=plain)
    yield Case(f"redirect to {address}", via(url), reaches=[CDN_ADDRESS], plain=plain)
    if "%" not in address:
        yield named(f"name of {address}", [address], plain=plain)
        yield named(f"name of {address} and a public one", [address, CDN_ADDRESS])
        yield named(f"name of a public one and {address}", [CDN_ADDRESS, address])


ADDRESSES = [case for address in SPECIAL for case in _leading_to(address)]

SPELLINGS = [
    *spelled(
        [
            *("2130706433", "0x7f000001", "017700000001", "0x7f.1", "127.1", "127.0.1", "0"),
            *("0177.0.0.1", "0x7f.0x0.0x0.0x1", "00000.0", "127.0.0.01", "10.0.0.01"),
            *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"),
            *("[0:0:0:0:0:ffff:7f00:1]", "[::FFFF:7F00:1]", "[0::0]"),
            *("localhost", "LocalHost", "ip6-localhost", "intranet", "wiki"),
        ],
        names={"wiki.corp.test": [[PRIVATE]]},
        plain=True,
    ),
    # A client without address checks can't connect to these either; the app rejects them at once.
    *spelled(["１２７.0.0.1", "①②⑦.0.0.1", "127。0。0。1", "127．0．0．1", "%31%30.0.0.1"]),
    *spelled(["[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25lo]", "[fec0::1%251]", "[::1%251]"]),
    *spelled(["[v1.x]", "[8.8.8.8]", "[::ffff:0x7f.1]", "[::1", "[]"]),
]

NAMES = [
    named("alias of a private name", ["private.test"], plain=True),
    named("alias of an alias of a private name", ["alias-of-private.test"], plain=True),
    named("two public and a private one", [CDN_ADDRESS, "1.1.1.1", PRIVATE], plain=True),
    named("private between public ones", [CDN_ADDRESS, PRIVATE, "1.1.1.1"], plain=True),
    named("private IPv4 and public IPv6", [PRIVATE, PUBLIC_V6], plain=True),
    named("public IPv4 and private IPv6", [CDN_ADDRESS, "fd00::1"], plain=True),
    named("silent public and private one", [SILENT[0], PRIVATE], plain=True),
    Case(
        "international name of a private address",
        "http://bücher.test/v.mp4",
        {"xn--bcher-kva.test": [[PRIVATE]]},
        plain=True,
    ),
]

POLICY = [
    *(
        Case(f"URL {url}", url, plain=True)
        for url in (
            f"http://user@{CDN}/v.mp4",
            f"http://user:word@{CDN}/v.mp4",
            f"http://@{CDN}/v.mp4",
            f"http://{CDN}@{PRIVATE}/v.mp4",
            f"http://{CDN}:22/v.mp4",
            f"http://{CDN}:25/v.mp4",
        )
    ),
    *(
        Case(f"URL {url!r}", url)
        for url in (
            *("", "http:", "http://", "http:///v.mp4", "http://:80/v.mp4", "http://?x"),
            *("file:///etc/passwd", "file://localhost/etc/passwd", "data:video/mp4;base64,AAAA"),
            *("ftp://cdn.test/v", "gopher://cdn.test/", "javascript:alert(1)", "cdn.test/v.mp4"),
            f"http://{CDN}\r\nX-Injected: 1/v.mp4",
            f"http://{CDN}/v.mp4\r\nHost: {PRIVATE}",
            *(f"http://{CDN}/\tv.mp4", f"http://{CDN}/\x00", f"http://{CDN}/\u202e4pm"),
            *(f"\x01http://{CDN}/", f"http://{PRIVATE}\\@{CDN}/", f"http://{CDN}\\.evil.test/"),
            *(f"http://{CDN}:0/", f"http://{CDN}:99999/", f"http://{CDN}:x/", f"http://{CDN}:-1/"),
        )
    ),
]

REDIRECTS = [
    *(
        Case(
            f"{code} to private", via(url_of(PRIVATE), code=code), reaches=[CDN_ADDRESS], plain=True
        )
        for code in (301, 302, 303, 307, 308)
    ),
    *(
        Case(f"redirect to {location!r}", via(location), reaches=[CDN_ADDRESS], plain=True)
        for location in (
            f"HTTP://{PRIVATE}/v",
            f"//{PRIVATE}/v",
            f" http://{PRIVATE}/v",
            f"https://{PRIVATE}/v",
            f"http://{PRIVATE}:8080/v",
            f"http://{PRIVATE}:22/v",
            f"http://user@{PRIVATE}/v",
            f"http://{CDN}@{PRIVATE}/v",
            f"http://{CDN}:25/v",
            "http://2130706433/v",
            "http://localhost/v",
        )
    ),
    *(
        Case(f"redirect to {location!r}", via(location), reaches=[CDN_ADDRESS])
        for location in (
            *("file:///etc/passwd", "data:video/mp4,x", "ftp://cdn.test/", "gopher://cdn.test/"),
            *("javascript:1", "ws://cdn.test/", "http://１２７.0.0.1/", "http://127。0。0。1/"),
            *("http://[::1/", "http://[fe80::1%25lo]/", f"http://{PRIVATE}\x00.cdn.test/"),
        )
    ),
    Case("redirects in a loop", f"http://{CDN}/loop", reaches=[CDN_ADDRESS] * 4, plain=True),
    Case("four redirects", hops(4, url_of("1.1.1.1")), reaches=[CDN_ADDRESS] * 4, plain=True),
    Case("three to private", hops(3, url_of(PRIVATE)), reaches=[CDN_ADDRESS] * 3, plain=True),
    Case(
        "redirect to a name that has become private",
        via(f"http://{CDN}/v.mp4"),
        {CDN: [[CDN_ADDRESS], [PRIVATE]]},
        reaches=[CDN_ADDRESS],
        plain=True,
    ),
]

REFUSED = [*ADDRESSES, *SPELLINGS, *NAMES, *POLICY, *REDIRECTS]

#: The first query returns a public address, the next one a private one. The download must check
#: the first answer and connect to it.
REBOUND = [
    named("IPv4", [CDN_ADDRESS], [PRIVATE], reaches=[CDN_ADDRESS], plain=True),
    named("IPv6", [PUBLIC_V6], ["::1"], reaches=[PUBLIC_V6], plain=True),
    named("to metadata", ["1.1.1.1"], ["169.254.169.254"], reaches=["1.1.1.1"], plain=True),
    named("to an alias", ["1.1.1.1"], ["private.test"], reaches=["1.1.1.1"], plain=True),
]

_INTERNATIONAL = {"xn--bcher-kva.test": [[CDN_ADDRESS]]}

STORED = [
    *(Case(address, url_of(address), reaches=[address]) for address in PUBLIC[:-2]),
    Case("::ffff:8.8.8.8", "http://[::ffff:8.8.8.8]/v.mp4", reaches=["8.8.8.8"]),
    Case("64:ff9b::8.8.8.8", "http://[64:ff9b::8.8.8.8]/v.mp4", reaches=["64:ff9b::808:808"]),
    *spelled(["134744072", "0x08080808", "010.010.010.010"], reaches=["8.8.8.8"]),
    *spelled(
        [
            "cdn.test.",
            "CDN.test",
            "cdn.test/a b?c d|[e]\\f",
            "cdn.test:80",
            "cdn.test:8080",
            "cdn.test:",
        ],
        reaches=[CDN_ADDRESS],
    ),
    *spelled(
        ["bücher.test", "BÜCHER.test", "xn--bcher-kva.test"],
        names=_INTERNATIONAL,
        reaches=[CDN_ADDRESS],
    ),
    *(
        Case(f"redirect to {location}", via(location), _INTERNATIONAL, reaches=[CDN_ADDRESS] * 2)
        for location in (
            *("/v.mp4", "v.mp4", f"//{CDN}/v.mp4", f"http://{CDN}:8080/v.mp4", "/vidéo.mp4"),
            *("http://xn--bcher-kva.test/v.mp4", "http://bücher.test/v.mp4"),
            # Unlike browsers, it takes a backslash for a part of the path.
            *(f"/\\{PRIVATE}/", f"\\\\{PRIVATE}/", f"http://{CDN}/a b?c|[d]\\e"),
            # A continued line, and a second header, which is joined to the first.
            *(f"http://{CDN}/\r\n\tv", f"http://{CDN}/v\r\nLocation: http://{PRIVATE}/"),
        )
    ),
    *(
        Case(f"{code} to public", via(url_of("1.1.1.1"), code=code), reaches=["8.8.8.8", "1.1.1.1"])
        for code in (301, 302, 303, 307, 308)
    ),
    Case("three redirects", hops(3, url_of("1.1.1.1")), reaches=[CDN_ADDRESS] * 3 + ["1.1.1.1"]),
    named("NAT64 of a public address", ["64:ff9b::808:808"], reaches=["64:ff9b::808:808"]),
    named("silent first address", [SILENT[0], CDN_ADDRESS], reaches=[CDN_ADDRESS]),
    named("silent IPv6", [SILENT[1], CDN_ADDRESS], reaches=[CDN_ADDRESS]),
    *(
        Case(
            f"first address {first} refuses",
            f"http://{NAME}:{LONELY_PORT}/v.mp4",
            {NAME: [[first, LONELY_ADDRESS]]},
            reaches=[LONELY_ADDRESS],
        )
        for first in ("1.1.1.1", PUBLIC_V6)
    ),
]

RETRIED = [
    *spelled(["nobody.test", "127.0.0.1.", "10.0.0.1.", "localhost."]),
    named("name without an address", []),
    named("aliases in a circle", ["circle.test"]),
    named("all addresses silent", list(SILENT)),
    # A second query, after the first address failed, would return an internal address.
    named("rebound behind a silent address", [SILENT[0]], [PRIVATE], plain=True),
    *(
        Case(f"{code} is not followed", via(url_of(PRIVATE), code=code), reaches=[CDN_ADDRESS])
        for code in (201, 300, 304, 305, 306)
    ),
]
