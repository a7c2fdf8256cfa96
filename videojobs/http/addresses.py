"""Which URLs of a stranger may be asked, and which addresses they may lead to.

The check of a URL is policy only: odd spellings of an address need no parser, since they are judged
as what they resolve to. For addresses, `ipaddress.is_global` alone is no policy: it is true for
multicast, for a cloud's metadata service and for loopback dressed up as IPv6, and Python's versions
disagree. This rule gives equal verdicts on all of them.
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
from urllib.parse import urlsplit

from urllib3.util import parse_url

from ..exceptions import ForbiddenAddress

Network = IPv4Network | IPv6Network

# IPv6 networks whose last 32 bits are an IPv4 address that is reached in the end.
_WRAPPERS = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))

_MAX_URL = 4096
# Below it, ports belong to other protocols than the two that are ours.
_FIRST_FREE_PORT = 1024

_PUBLIC_V6 = IPv6Network("2000::/3")
_FORBIDDEN_V6 = (
    IPv6Network("2001::/23"),  # protocol assignments, Teredo
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4, carries any IPv4 address
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
    """The networks of a list of CIDR notations; ValueError names a wrong one."""
    return tuple(ip_network(str(name)) for name in names)


def check_url(url: str, *, insecure: bool, hosts: Collection[str] = ()) -> str:
    """The host of a URL that may be asked; `ForbiddenAddress` says what is wrong with others.

    Plain http is for `insecure` only. `hosts` are domains, one of which it must lie in; none: any.
    """
    if len(url) > _MAX_URL or not url.isprintable() or set(url) & set("\\ "):
        raise ForbiddenAddress("the URL is too long or has characters that no URL has")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        parse_url(url)  # as requests will: what it can't parse, no later try can ask for
    except ValueError:
        raise ForbiddenAddress("the URL can't be parsed") from None
    if parts.scheme not in ({"https", "http"} if insecure else {"https"}):
        raise ForbiddenAddress("the URL's scheme is not https")
    # With "%", a host is escaped, and another one than it seems, or names a network interface.
    if not host or "%" in host or "@" in parts.netloc:
        raise ForbiddenAddress("the URL has no plain host, or names a user")
    if hosts and not any(_is_within(host, domain) for domain in hosts):
        raise ForbiddenAddress(f"{host} is not in ALLOWED_OUTPUT_HOSTS")
    if port is not None and port not in {80, 443} and port < _FIRST_FREE_PORT:
        raise ForbiddenAddress("the URL's port belongs to another protocol")
    return host


def _is_within(host: str, domain: str) -> bool:
    host, domain = host.rstrip(".").lower(), domain.strip(".").lower()
    return host == domain or host.endswith(f".{domain}")


def resolve(host: str, port: int, allowed: Iterable[Network] | None) -> list[str]:
    """All addresses of `host`, each once, in the resolver's order.

    `ForbiddenAddress` if any of them may not be connected to; `allowed` None forbids none, for
    a host that is the operator's own choice. Raises `OSError` for a name that has no address.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("no name of a host") from None
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if not addresses:
        raise OSError("the name has no address")
    if allowed is not None and not all(may_connect(address, allowed) for address in addresses):
        raise ForbiddenAddress(f"{host} leads into a network that is not public")
    return addresses


def may_connect(address: str, allowed: Iterable[Network] = ()) -> bool:
    """True if `address` is public, or lies in one of the `allowed` networks."""
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
