import contextlib
import socket
import traceback
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.addresses import FORBIDDEN, PUBLIC
from videojobs.exceptions import ForbiddenAddress
from videojobs.http import addresses

NETWORKS = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "4000::/2",
    "8000::/1",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]

v4 = st.ip_addresses(v=4)
special = st.sampled_from(NETWORKS).flatmap(lambda name: st.ip_addresses(network=name))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_connected_to(address: str) -> None:
    assert addresses.may_connect(address)


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, a) for kind, found in FORBIDDEN.items() for a in found]
)
def test_no_special_address_may_be_connected_to(kind: str, address: str) -> None:
    assert not addresses.may_connect(address)


@given(special)
def test_no_address_in_a_special_network_may_be_connected_to(address: Any) -> None:
    assert not addresses.may_connect(str(address))


@given(
    v4 | special.filter(lambda ip: ip.version == 4), st.sampled_from(["::ffff:0:0", "64:ff9b::"])
)
def test_a_wrapped_address_is_checked_as_the_inner_one(ip: Any, wrapper: str) -> None:
    wrapped = IPv6Address(int(IPv6Address(wrapper)) | int(ip))
    assert addresses.may_connect(str(wrapped)) == addresses.may_connect(str(ip))


@given(st.ip_addresses(v=6))
def test_an_address_that_may_be_connected_to_is_global_unicast(ip: IPv6Address) -> None:
    homes = [ip_network(name) for name in ("2000::/3", "::ffff:0:0/96", "64:ff9b::/96")]
    assert not addresses.may_connect(str(ip)) or any(ip in network for network in homes)


@given(special, st.sampled_from(NETWORKS))
def test_an_allowed_network_opens_itself_and_nothing_else(address: Any, name: str) -> None:
    network = ip_network(name)
    opened = addresses.may_connect(str(address), addresses.networks([name]))
    assert opened == (address in network)


def test_an_allowed_network_is_open_to_the_wrapped_spelling_too() -> None:
    assert addresses.may_connect("::ffff:10.1.2.3", addresses.networks(["10.0.0.0/8"]))


def test_an_allowed_network_takes_nothing_away_from_the_public_ones() -> None:
    assert addresses.may_connect("8.8.8.8", addresses.networks(["10.0.0.0/8"]))


@pytest.mark.parametrize("name", ["10.0.0.1/8", "nonsense", "", "10.0.0.0/33"])
def test_a_wrong_network_is_named_in_the_error(name: str) -> None:
    with pytest.raises(ValueError, match=name or "''"):
        addresses.networks([name])


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://cdn.example/v.mp4?Sig=a%20b&x=1", "cdn.example"),
        ("HTTPS://CDN.example:443/", "cdn.example"),
        ("https://cdn.example:8443/v", "cdn.example"),
        ("https://[2606:4700::1]/v", "2606:4700::1"),
        ("https://büche.example/ü", "büche.example"),
        ("https://2130706433/", "2130706433"),  # the resolved address is checked
        ("https://cdn.example/a b", "cdn.example"),
        (" https://cdn.example/", "cdn.example"),
        ("https://cdn.example/a\\b?c=\\d|[e]", "cdn.example"),
    ],
)
def test_a_plain_https_url_may_be_asked(url: str, host: str) -> None:
    assert addresses.check_url(url, insecure=False) == host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cdn.example/v.mp4",
        "//cdn.example/v.mp4",
        "file:///etc/passwd",
        "data:video/mp4;base64,AAAA",
        "ftp://cdn.example/v",
        "gopher://cdn.example/v",
        "javascript:alert(1)",
        "https:",
        "https://",
        "https:///v.mp4",
        "https://:443/v",
        "https://?x",
        "https://user@cdn.example/",
        "https://user:pass@cdn.example/",
        "https://@cdn.example/",
        "https://cdn.example@127.0.0.1/",
        "https://cdn.example\\@127.0.0.1/",
        "https://cdn.example\\.evil.example/",
        "https://cdn.example @127.0.0.1/",
        "https://cdn example/",
        "https://cdn.example/\r\nX-Injected: 1",
        "https://cdn.example/\tv",
        "https://cdn.example/\x00",
        "\x01https://cdn.example/",
        "https://cdn.example/\u202e4pm",
        "https://cdn.example/\ud800",
        "https://cdn.example%2f.evil.example/",
        "https://%31%30.0.0.1/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://１２７.0.0.1/",
        "https://①②⑦.0.0.1/",
        "https://127。0。0。1/",
        "https://[v1.x]/",
        "https://[8.8.8.8]/",
        "https://[::1/",
        "https://[nonsense]/",
        "https://cdn.example:0/",
        "https://cdn.example:22/",
        "https://cdn.example:25/",
        "https://cdn.example:99999/",
        "https://cdn.example:x/",
        "https://cdn.example:-1/",
        "https://cdn.example/" + "a" * 4096,
    ],
)
@pytest.mark.parametrize("insecure", [False, True])
def test_any_other_url_is_refused(url: str, insecure: bool) -> None:
    with pytest.raises(ForbiddenAddress):
        addresses.check_url(url, insecure=insecure)


def test_plain_http_is_for_the_insecure_only() -> None:
    assert addresses.check_url("http://cdn.example:8000/v", insecure=True) == "cdn.example"
    with pytest.raises(ForbiddenAddress, match="scheme is not https"):
        addresses.check_url("http://cdn.example/v", insecure=False)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://cdn.example/%7Ea/%7ea/~a?x=%2F%2f", "/%7Ea/%7ea/~a?x=%2F%2f"),
        ('https://cdn.example/[a]|{b}^`?c=[d]|"<>', '/[a]|{b}^`?c=[d]|"<>'),
        ("https://cdn.example/a/../b/./c//d", "/a/../b/./c//d"),
        ("https://cdn.example/a\\b", "/a\\b"),
        ("https://cdn.example/100%?a=%zz", "/100%?a=%zz"),
        ("https://cdn.example/a b?c d", "/a%20b?c%20d"),
        ("https://cdn.example/ü", "/%C3%BC"),
        ("https://cdn.example/a?", "/a?"),
        ("https://cdn.example/a?b#c", "/a?b"),
        ("https://cdn.example?a", "/?a"),
        ("HTTPS://cdn.example:443", "/"),
        ("https://[2606:4700::1]:8443/v", "/v"),
    ],
)
def test_a_url_is_sent_as_it_came(url: str, sent: str) -> None:
    assert addresses.target(url) == sent


@given(st.text() | st.text().map("https://".__add__) | st.text().map("https://a".__add__))
def test_checking_a_url_raises_nothing_but_forbidden_address(url: str) -> None:
    with contextlib.suppress(ForbiddenAddress):
        assert addresses.check_url(url, insecure=False)


def test_the_error_of_a_url_does_not_show_it() -> None:
    for url in ("https://s3cr3t@cdn.example", "ftp://s3cr3t", "https://[s3cr3t", "s3cr3t\n"):
        with pytest.raises(ForbiddenAddress) as caught:
            addresses.check_url(url, insecure=False)
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value)).replace(url, "")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Fake DNS: hostname → addresses."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return real(host, port, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def test_a_name_resolves_to_each_of_its_addresses_once_in_order(answers: Any) -> None:
    answers["cdn.example"] = ["8.8.8.8", "1.1.1.1", "8.8.8.8"]
    assert addresses.resolve("cdn.example", 443, ()) == ["8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_forbidden_address_forbids_the_name_wherever_it_stands(
    answers: Any, position: int
) -> None:
    found = ["8.8.8.8", "1.1.1.1"]
    found.insert(position, "10.0.0.1")
    answers["cdn.example"] = found
    with pytest.raises(ForbiddenAddress, match=r"^cdn\.example resolves to"):
        addresses.resolve("cdn.example", 443, ())


def test_the_operator_s_own_host_is_not_checked(answers: Any) -> None:
    answers["provider.example"] = ["10.0.0.1"]
    assert addresses.resolve("provider.example", 443, None) == ["10.0.0.1"]


@pytest.mark.parametrize(
    "spelling",
    [
        *("2130706433", "0x7f000001", "017700000001", "127.1", "127.0.1", "0x7f.1"),
        *("0177.0.0.1", "0x7f.0x0.0x0.0x1", "127.0.0.01", "0", "00000.0"),
        *("１２７.0.0.1", "①②⑦.0.0.1", "127。0。0。1", "127．0．0．1"),
        *("::ffff:7f00:1", "0:0:0:0:0:FFFF:127.0.0.1", "0::1", "localhost", "127.0.0.1"),
    ],
)
def test_unusual_spellings_of_loopback_are_forbidden(spelling: str) -> None:
    with pytest.raises(ForbiddenAddress):
        addresses.resolve(spelling, 443, ())


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", "."])
def test_what_is_no_name_of_a_host_has_no_address(host: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011
        addresses.resolve(host, 443, ())


def test_a_name_without_an_address_is_an_error(answers: Any) -> None:
    answers["empty.example"] = []
    with pytest.raises(OSError, match="no address"):
        addresses.resolve("empty.example", 443, ())


def test_the_inner_address_of_a_wrapper_is_its_last_32_bits() -> None:
    assert addresses._unwrap(IPv6Address("::ffff:1.2.3.4")) == IPv4Address("1.2.3.4")


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("cdn.example.com", True),
        ("CDN.Example.com.", True),
        ("eu.cdn.example.com", True),
        ("example.com", False),
        ("evilcdn.example.com", False),
        ("cdn.example.com.evil.net", False),
        ("cdn-example.com", False),
    ],
)
def test_a_host_lies_in_a_domain_by_whole_labels(host: str, fits: bool) -> None:
    for domain in ("cdn.example.com", ".cdn.example.com"):
        if fits:
            assert addresses.check_url(f"https://{host}/v.mp4", insecure=False, hosts=[domain])
        else:
            with pytest.raises(ForbiddenAddress, match="ALLOWED_OUTPUT_HOSTS"):
                addresses.check_url(f"https://{host}/v.mp4", insecure=False, hosts=[domain])
