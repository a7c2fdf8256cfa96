"""Which addresses a URL that a stranger named may lead to.

`ipaddress.is_global` alone is no policy: it is true for multicast, for a cloud's metadata service
and for loopback dressed up as IPv6, and Python's versions disagree. This rule gives equal verdicts
on all of them.
"""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network

# IPv6 networks whose last 32 bits are an IPv4 address that is reached in the end.
_WRAPPERS = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))

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
    return tuple(ip_network(name) for name in names)


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
