"""Rules for untrusted URLs, and for the addresses that they resolve to (SSRF protection).

URLs need no parser for unusual spellings of an address, since the resolved address is checked.
For addresses, `ipaddress.is_global` is not enough: it is true for multicast, for a cloud's
metadata service and for IPv4 loopback mapped to IPv6, and its results differ between versions of
Python. The rules here give the same result on all versions.
"""

import socket
from collections.abc import Collection, Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import quote, urlsplit

from urllib3.util import parse_url

from ..exceptions import ForbiddenAddress

Network = IPv4Network | IPv6Network

# IPv6 networks whose last 32 bits are the IPv4 address of the destination.
_WRAPPERS = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))

_MAX_URL = 4096
# Lower ports, except for 80 and 443, belong to other protocols.
_FIRST_FREE_PORT = 1024

# The characters of a request target that HTTP can carry: ASCII without blanks.
_AS_IT_IS = "".join(map(chr, range(0x21, 0x7F)))

_PUBLIC_V6 = IPv6Network("2000::/3")
_FORBIDDEN_V6 = (
    IPv6Network("2001::/23"),  # protocol assignments, Teredo
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4, embeds any IPv4 address
    IPv6Network("3fff::/20"),  # documentation
    IPv6Network("2620:4f:8000::/48"),  # AS112
)
_FORBIDDEN_V4 = (
    IPv4Network("100.64.0.0/10"),  # carrier-grade NAT
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("168.63.129.16/32"),  # a cloud's metadata service, on a public address
)


def networks(names: Iterable[str]) -> tuple[Network, ...]:
    """Parse networks in CIDR notation; raises ValueError that names the first invalid one."""
    return tuple(ip_network(str(name)) for name in names)


def check_url(url: str, *, insecure: bool, hosts: Collection[str] = ()) -> str:
    """Return the host of `url`, or raise `ForbiddenAddress` with the reason.

    Plain http requires `insecure`. The host must be in one of the domains `hosts`, if any.
    """
    if len(url) > _MAX_URL or not url.isprintable():
        raise ForbiddenAddress(f"the URL has control characters, or more than {_MAX_URL}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        # As requests does: a host that it can't parse fails on every attempt.
        parse_url(f"{parts.scheme}://{parts.netloc}")
    except ValueError:
        raise ForbiddenAddress("the URL can't be parsed") from None
    if parts.scheme not in ({"https", "http"} if insecure else {"https"}):
        raise ForbiddenAddress(f"the URL's scheme is not https but {parts.scheme or 'missing'!r}")
    # A "%" escapes another host than the visible one, or begins the name of an interface.
    if not host or "%" in host or set(parts.netloc) & set("@\\ "):
        raise ForbiddenAddress("the URL has no plain host, or contains a user")
    if hosts and not any(_is_within(host, domain) for domain in hosts):
        raise ForbiddenAddress(f"{host} is not in ALLOWED_OUTPUT_HOSTS")
    if port is not None and port not in {80, 443} and port < _FIRST_FREE_PORT:
        raise ForbiddenAddress(f"{host}: the port {port} belongs to another protocol")
    return host


def target(url: str) -> str:
    """The path and the query of a URL as they came: its host may have signed their exact bytes.

    Only characters that HTTP can't carry are quoted.
    """
    rest = url.partition("#")[0].partition("://")[2][len(urlsplit(url).netloc) :]
    return quote(rest if rest.startswith("/") else f"/{rest}", safe=_AS_IT_IS)


def _is_within(host: str, domain: str) -> bool:
    host, domain = host.rstrip(".").lower(), domain.strip(".").lower()
    return host == domain or host.endswith(f".{domain}")


def resolve(host: str, port: int, allowed: Iterable[Network] | None) -> list[str]:
    """All addresses of `host`, without duplicates, in the resolver's order.

    Raises `ForbiddenAddress` if any of them is forbidden, and `OSError` if there are none. With
    `allowed` None, for a host configured by the operator, no address is forbidden.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("invalid hostname") from None
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if not addresses:
        raise OSError("the hostname has no address")
    for address in addresses:
        if allowed is not None and not may_connect(address, allowed):
            raise ForbiddenAddress(
                f"{host} resolves to {address}, which is neither public nor in "
                "ALLOWED_PRIVATE_NETWORKS"
            )
    return addresses


def may_connect(address: str, allowed: Iterable[Network] = ()) -> bool:
    """Whether `address` is public or in one of the `allowed` networks."""
    ip = _unwrap(ip_address(address))
    return any(ip in network for network in allowed) or _is_public(ip)


def _unwrap(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if any(ip in network for network in _WRAPPERS):
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    if isinstance(ip, IPv6Address):
        return ip in _PUBLIC_V6 and not any(ip in network for network in _FORBIDDEN_V6)
    if any(ip in network for network in _FORBIDDEN_V4):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
