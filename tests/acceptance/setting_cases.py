"""URLs for settings that allow a private network, or only certain hosts."""

from collections.abc import Mapping
from typing import Any

from .fetching import CDN, CDN_ADDRESS, Case
from .url_cases import PRIVATE, SPECIAL, named, url_of, via


def opening(network: str) -> Mapping[str, Any]:
    return {"ALLOWED_PRIVATE_NETWORKS": [network]}


#: A network, and the special addresses in it.
NETWORKS = {
    "10.0.0.0/24": {PRIVATE, "::ffff:10.0.0.1", "64:ff9b::10.0.0.1"},
    "fd00:ec2::/64": {"fd00:ec2::254", "fd00:ec2::23"},
}

STILL_CLOSED = [
    *(
        Case(f"{address} next to {network}", url_of(address), settings=opening(network))
        for network, inside in NETWORKS.items()
        for address in [*SPECIAL, "10.0.1.0", "fd00:ec2:0:1::"]
        if address not in inside
    ),
    Case(
        "redirect from an opened network into another one",
        "http://10.0.0.1/302/" + url_of("10.0.1.1").encode().hex(),
        settings=opening("10.0.0.0/24"),
        reaches=[PRIVATE],
    ),
    named("opened and closed", [PRIVATE, "10.0.1.1"], settings=opening("10.0.0.0/24")),
    named("closed and opened", ["10.0.1.1", PRIVATE], settings=opening("10.0.0.0/24")),
]

OPENED = [
    Case("10.0.0.1", url_of(PRIVATE), settings=opening("10.0.0.0/24"), reaches=[PRIVATE]),
    Case(
        "::ffff:10.0.0.1",
        url_of("::ffff:10.0.0.1"),
        settings=opening("10.0.0.0/24"),
        reaches=[PRIVATE],
    ),
    Case(
        "fd00:ec2::254",
        url_of("fd00:ec2::254"),
        settings=opening("fd00:ec2::/64"),
        reaches=["fd00:ec2::254"],
    ),
    Case(
        "redirect into an opened network",
        via(url_of(PRIVATE)),
        settings=opening("10.0.0.0/24"),
        reaches=[CDN_ADDRESS, PRIVATE],
    ),
    Case("public", url_of("1.1.1.1"), settings=opening("10.0.0.0/24"), reaches=["1.1.1.1"]),
]

_HOSTS = {"ALLOWED_OUTPUT_HOSTS": [CDN]}
_OTHERS = {
    "eu.cdn.test": [["1.1.1.1"]],
    "inside.cdn.test": [[PRIVATE]],
    **{name: [["9.9.9.9"]] for name in ("other.test", "evilcdn.test", "cdn.test.other.test")},
}


def narrowed(title: str, url: str, *reaches: str) -> Case:
    return Case(title, url, _OTHERS, _HOSTS, reaches)


ELSEWHERE = [
    narrowed("another host", "http://other.test/v.mp4"),
    narrowed("a host that ends like it", "http://evilcdn.test/v.mp4"),
    narrowed("a host that begins like it", "http://cdn.test.other.test/v.mp4"),
    narrowed("its address", url_of(CDN_ADDRESS)),
    narrowed("its name as a user", "http://cdn.test@other.test/v.mp4"),
    narrowed("its name as a zone", "http://[2001:4860:4860::8888%25.cdn.test]/v.mp4"),
    narrowed("its name behind a backslash", "http://other.test\\.cdn.test/v.mp4"),
    narrowed("its name behind an escape", "http://other.test%2f.cdn.test/v.mp4"),
    narrowed("a subdomain that leads inside", "http://inside.cdn.test/v.mp4"),
    narrowed("redirect to another host", via("http://other.test/v.mp4"), CDN_ADDRESS),
    narrowed("redirect to its address", via(url_of(CDN_ADDRESS)), CDN_ADDRESS),
    narrowed("redirect to a subdomain inside", via("http://inside.cdn.test/"), CDN_ADDRESS),
    narrowed(
        "redirect to a subdomain and then elsewhere",
        via("http://eu.cdn.test/302/" + b"http://other.test/".hex()),
        *(CDN_ADDRESS, "1.1.1.1"),
    ),
]

WITHIN = [
    narrowed("the host itself", f"http://{CDN}/v.mp4", CDN_ADDRESS),
    narrowed("with a dot at its end", f"http://{CDN}./v.mp4", CDN_ADDRESS),
    narrowed("a subdomain", "http://EU.cdn.test/v.mp4", "1.1.1.1"),
    narrowed("redirect to a subdomain", via("http://eu.cdn.test/v"), CDN_ADDRESS, "1.1.1.1"),
    narrowed("relative redirect", via("/v.mp4"), CDN_ADDRESS, CDN_ADDRESS),
]
