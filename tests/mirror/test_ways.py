"""Settings that open a way to outputs: plain http, a private authority, a proxy, the API key."""

import contextlib
import hashlib
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import jobs
from tests.support.raw_server import RawServer, answer, make_certificate, redirect
from tests.support.tunnel import TunnelProxy
from videojobs.exceptions import (
    DownloadError,
    NotSent,
    OutputExpired,
    OutputRefused,
    TransportError,
    VideoJobsError,
)
from videojobs.http import transport
from videojobs.mirror import download
from videojobs.providers import client
from videojobs.testing import SAMPLE

SHA256 = hashlib.sha256(SAMPLE).hexdigest()
VIDEO = answer(SAMPLE)
KEY = "sk-9f8e7d6c"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "localhost.pem")


@pytest.fixture(autouse=True)
def configured(settings: Any) -> None:
    """A provider on https, and outputs on this machine."""
    settings.VIDEOJOBS = jobs.fetched_from_here(
        BASE_URL="https://provider.example", CONNECT_TIMEOUT=0.5
    )


def fetched(url: str) -> str:
    """The SHA-256 of an output that is fetched like a mirror step does."""
    found = download.fetch(
        url, io.BytesIO(), progress=lambda *_: None, authorize=client.authorization
    )
    return found.sha256


def failure(url: str) -> VideoJobsError:
    with pytest.raises(VideoJobsError) as caught:
        fetched(url)
    assert "s3cr3t" not in str(caught.value)
    assert KEY not in str(caught.value)
    return caught.value


# Plain http


def test_a_plain_http_url_is_fetched_over_https(settings: Any, certificate: Path) -> None:
    settings.VIDEOJOBS |= {"CA_FILE": str(certificate)}
    with RawServer(VIDEO, tls=certificate) as server:
        assert fetched(f"HTTP://127.0.0.1:{server.port}/%7Ev?Signature=s3cr3t") == SHA256
    assert server.requests[0].startswith(b"GET /%7Ev?Signature=s3cr3t HTTP/1.1")


def test_without_https_a_plain_http_url_is_refused_and_the_setting_named() -> None:
    with RawServer(VIDEO) as server:
        error = failure(f"{server.url}/v?Signature=s3cr3t")
    assert "see ALLOW_HTTP_OUTPUTS" in str(error)
    assert server.requests == [], "nothing was sent in the clear"


def test_with_the_setting_plain_http_is_used_where_https_fails(settings: Any) -> None:
    settings.VIDEOJOBS |= {"ALLOW_HTTP_OUTPUTS": True}
    with RawServer(VIDEO) as server:
        assert fetched(f"{server.url}/v?Signature=s3cr3t") == SHA256


def test_with_the_setting_https_comes_first(settings: Any, certificate: Path) -> None:
    settings.VIDEOJOBS |= {"ALLOW_HTTP_OUTPUTS": True, "CA_FILE": str(certificate)}
    with RawServer(VIDEO, tls=certificate) as server:
        assert fetched(f"http://127.0.0.1:{server.port}/v") == SHA256
    assert server.connections == 1


@pytest.mark.parametrize("allowed", [False, True])
def test_a_redirect_from_https_to_plain_http_is_refused(
    allowed: bool, settings: Any, certificate: Path
) -> None:
    settings.VIDEOJOBS |= {"ALLOW_HTTP_OUTPUTS": allowed, "CA_FILE": str(certificate)}
    with RawServer(VIDEO) as plain, RawServer(redirect(plain.url), tls=certificate) as server:
        assert type(failure(server.url)) is OutputRefused
    assert plain.connections == 0


def test_the_default_port_of_http_is_not_that_of_https() -> None:
    plain = download._PLAIN.match

    assert [plain(f"http://a{port}/v")[1] for port in ("", ":80", ":8080")] == [  # type: ignore[index]
        *("a", "a", "a:8080")
    ]


# A private authority


def test_a_private_authority_is_trusted_only_by_the_setting(
    settings: Any, certificate: Path
) -> None:
    with RawServer(VIDEO, tls=certificate) as server:
        assert type(failure(server.url)) is NotSent
        settings.VIDEOJOBS |= {"CA_FILE": str(certificate)}
        assert fetched(server.url) == SHA256


def test_public_authorities_stay_trusted_beside_a_private_one(
    settings: Any, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = make_certificate(tmp_path / "public.pem")
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(public))
    settings.VIDEOJOBS |= {"CA_FILE": str(certificate)}
    with RawServer(VIDEO, tls=public) as one, RawServer(VIDEO, tls=certificate) as other:
        assert [fetched(one.url), fetched(other.url)] == [SHA256, SHA256]


def test_the_provider_s_certificate_may_be_of_the_private_authority(
    settings: Any, certificate: Path
) -> None:
    settings.VIDEOJOBS |= {"CA_FILE": str(certificate)}
    with RawServer(tls=certificate) as server:
        assert asked(server.url).body == b"ok"


def test_without_its_file_no_request_is_sent(settings: Any, certificate: Path) -> None:
    settings.VIDEOJOBS |= {"CA_FILE": "/no/such/file.pem"}
    with RawServer(tls=certificate) as server:
        with pytest.raises(NotSent, match="No such file"):
            asked(server.url)
        assert server.connections == 0


def asked(url: str, **headers: str) -> transport.Reply:
    """The reply to a request to the provider."""
    return transport.request(
        "GET", url, headers=headers, connect_timeout=2, timeout=5, max_bytes=1000, fresh=True
    )


# A proxy


@pytest.fixture
def proxy(settings: Any) -> Iterator[TunnelProxy]:
    with TunnelProxy() as proxy:
        settings.VIDEOJOBS |= {"PROXY_URL": f"http://user:s3cr3t@127.0.0.1:{proxy.port}"}
        yield proxy


@pytest.fixture
def trusted(settings: Any, certificate: Path) -> None:
    settings.VIDEOJOBS |= {"CA_FILE": str(certificate)}


@pytest.mark.usefixtures("trusted")
def test_an_output_is_fetched_by_a_proxy_that_gets_the_checked_address(
    proxy: TunnelProxy, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(VIDEO, tls=certificate) as server:
        assert fetched(f"https://localhost:{server.port}/v?Signature=s3cr3t") == SHA256
    assert set(proxy.targets) <= {f"127.0.0.1:{server.port}", f"[::1]:{server.port}"}
    assert b"Proxy-Authorization: Basic dXNlcjpzM2NyM3Q=\r\n" in proxy.requests[0]
    assert b"Signature" not in proxy.requests[0], "the tunnel is encrypted"
    assert b"Proxy-Authorization" not in server.requests[0]


def test_a_forbidden_address_is_not_asked_for_by_a_proxy_either(
    proxy: TunnelProxy, settings: Any
) -> None:
    settings.VIDEOJOBS |= {"ALLOWED_PRIVATE_NETWORKS": []}

    for url in ("https://127.0.0.1/v", "https://localhost/v", "https://169.254.169.254/v"):
        assert type(failure(url)) is OutputRefused

    assert proxy.requests == []


def test_a_name_that_only_the_proxy_knows_is_asked_for_where_its_domain_is_listed(
    proxy: TunnelProxy, settings: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown(monkeypatch)
    settings.VIDEOJOBS |= {"CA_FILE": str(certificate)}
    with RawServer(VIDEO, tls=certificate) as server:
        proxy.leads_to = ("127.0.0.1", server.port)
        assert type(failure("https://localhost/v")) is NotSent
        assert proxy.requests == []

        settings.VIDEOJOBS |= {"ALLOWED_OUTPUT_HOSTS": ["localhost"]}
        assert fetched("https://localhost/v") == SHA256

    assert proxy.targets == ["localhost:443"]


def test_the_provider_s_own_name_is_left_to_the_proxy(
    proxy: TunnelProxy, settings: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown(monkeypatch)
    settings.VIDEOJOBS |= {"CA_FILE": str(certificate)}
    with RawServer(tls=certificate) as server:
        proxy.leads_to = ("127.0.0.1", server.port)
        reply = asked("https://localhost/v1/", Authorization=f"Bearer {KEY}")

    assert (reply.body, proxy.targets) == (b"ok", ["localhost:443"])
    assert KEY.encode() not in proxy.requests[0]


def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no name but that of the proxy be resolved here."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "localhost":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


REFUSALS = {
    "it wants a password": (b"HTTP/1.1 407 Auth\r\n\r\n", "the proxy opened no tunnel: HTTP 407"),
    "it may not": (b"HTTP/1.1 403 No\r\nX: y\r\n\r\n", "the proxy opened no tunnel: HTTP 403"),
    "it is no proxy": (b"SSH-2.0-x 200\r\n\r\n", "the proxy opened no tunnel: no HTTP"),
    "it hangs up": (b"HTTP/1.1 200 OK\r\n", "the proxy sent no complete response"),
    "it never ends": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000, "sent no complete response"),
}


@pytest.mark.parametrize(("refusal", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_proxy_that_opens_no_tunnel_is_named_and_nothing_was_sent(
    refusal: bytes, message: str, proxy: TunnelProxy
) -> None:
    proxy.refusal = refusal

    error = failure("https://127.0.0.1:8443/v?Signature=s3cr3t")

    assert type(error) is NotSent
    assert message in str(error)


def test_a_proxy_that_is_gone_is_named(settings: Any, closed_port: int) -> None:
    settings.VIDEOJOBS |= {"PROXY_URL": f"http://user:s3cr3t@127.0.0.1:{closed_port}"}

    error = failure("https://127.0.0.1:8443/v")

    assert type(error) is NotSent
    assert "the proxy 127.0.0.1: Connection refused" in str(error)


def test_a_proxy_that_never_answers_ends_at_the_time_out(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.VIDEOJOBS |= {"PROXY_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        assert type(failure("https://127.0.0.1:8443/v")) is NotSent


@pytest.mark.parametrize("url", ["socks5://user:s3cr3t@proxy", "http://[", "proxy:3128"])
def test_a_setting_that_is_no_proxy_is_named_and_nothing_is_sent(settings: Any, url: str) -> None:
    settings.VIDEOJOBS |= {"PROXY_URL": url}

    assert "PROXY_URL is not an http URL" in str(failure("https://127.0.0.1:8443/v"))


def test_a_proxy_of_the_environment_is_not_used(
    certificate: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.VIDEOJOBS |= {"CA_FILE": str(certificate)}
    with TunnelProxy() as proxy, RawServer(VIDEO, tls=certificate) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert fetched(server.url) == SHA256
    assert proxy.requests == []


# Outputs behind the key


@pytest.fixture
def behind_key(settings: Any, certificate: Path) -> Any:
    """Makes a server the provider, whose outputs are behind the key."""

    def is_provider(server: RawServer) -> None:
        settings.VIDEOJOBS |= {
            "BASE_URL": f"{server.url}/api",
            "CA_FILE": str(certificate),
            "SEND_KEY_FOR_OUTPUTS": True,
        }

    return is_provider


def keys(server: RawServer) -> list[bool]:
    """Whether each request had the key."""
    return [f"\r\nAuthorization: Bearer {KEY}\r\n".encode() in r for r in server.requests]


def test_an_output_at_the_provider_is_requested_with_the_key(
    behind_key: Any, certificate: Path
) -> None:
    with RawServer(VIDEO, tls=certificate) as server:
        behind_key(server)
        assert fetched(f"{server.url}/v1/videos/x/content") == SHA256
    assert keys(server) == [True]


def test_without_the_setting_no_output_is_requested_with_the_key(
    behind_key: Any, certificate: Path, settings: Any
) -> None:
    with RawServer(answer(b"", status="401 No"), tls=certificate) as server:
        behind_key(server)
        settings.VIDEOJOBS |= {"SEND_KEY_FOR_OUTPUTS": False}
        error = failure(server.url)
    assert keys(server) == [False]
    assert type(error) is OutputExpired
    assert "see SEND_KEY_FOR_OUTPUTS" in str(error)


def test_an_expired_url_at_the_provider_is_no_matter_of_the_key(
    behind_key: Any, certificate: Path, settings: Any
) -> None:
    with RawServer(answer(b"", status="404 No"), tls=certificate) as server:
        behind_key(server)
        settings.VIDEOJOBS |= {"SEND_KEY_FOR_OUTPUTS": False}
        assert str(failure(server.url)) == "127.0.0.1: HTTP 404"


def test_an_output_at_another_origin_is_requested_without_the_key(
    behind_key: Any, certificate: Path
) -> None:
    with RawServer(tls=certificate) as server, RawServer(VIDEO, tls=certificate) as other:
        behind_key(server)
        assert fetched(other.url) == SHA256
    assert keys(other) == [False]


def test_a_redirect_within_the_provider_keeps_the_key(behind_key: Any, certificate: Path) -> None:
    with RawServer(redirect("/files/v"), VIDEO, tls=certificate) as server:
        behind_key(server)
        assert fetched(server.url) == SHA256
    assert keys(server) == [True, True]


def test_a_redirect_to_another_origin_ends_the_key_even_if_it_leads_back(
    behind_key: Any, certificate: Path
) -> None:
    with RawServer(tls=certificate) as server, RawServer(tls=certificate) as other:
        behind_key(server)
        server.answers = (redirect(f"{other.url}/a"), VIDEO)
        other.answers = (redirect(f"{server.url}/b"),)
        assert fetched(server.url) == SHA256
    assert (keys(server), keys(other)) == ([True, False], [False])


def test_a_url_that_leads_to_the_provider_by_a_redirect_has_no_key(
    behind_key: Any, certificate: Path
) -> None:
    with RawServer(VIDEO, tls=certificate) as server:
        behind_key(server)
        with RawServer(redirect(f"{server.url}/v"), tls=certificate) as other:
            assert fetched(other.url) == SHA256
    assert (keys(server), keys(other)) == ([False], [False])


@pytest.mark.parametrize("spelling", ["localhost", "127.0.0.1.", "2130706433"])
def test_another_name_of_the_provider_is_another_origin(
    spelling: str, behind_key: Any, certificate: Path
) -> None:
    with RawServer(VIDEO, tls=certificate) as server:
        behind_key(server)
        # Some of them are no names of the certificate.
        with contextlib.suppress(DownloadError, TransportError):
            fetched(f"https://{spelling}:{server.port}/v")
    assert True not in keys(server)


def test_the_rest_of_an_output_is_requested_with_the_key(
    behind_key: Any, certificate: Path
) -> None:
    tag = 'ETag: "5d41402a"'
    first = answer(SAMPLE, tag)[: 700 - len(SAMPLE)]
    span = f"Content-Range: bytes 700-{len(SAMPLE) - 1}/{len(SAMPLE)}"
    rest = answer(SAMPLE[700:], span, tag, status="206 Partial Content")
    with RawServer(first, rest, tls=certificate) as server:
        behind_key(server)
        assert fetched(server.url) == SHA256
    assert keys(server) == [True, True]


def test_the_key_is_never_sent_in_the_clear_instead_of_over_https(
    behind_key: Any, certificate: Path, settings: Any
) -> None:
    with RawServer(VIDEO) as server:
        behind_key(server)
        settings.VIDEOJOBS |= {
            "BASE_URL": f"https://127.0.0.1:{server.port}/api",
            "ALLOW_HTTP_OUTPUTS": True,
        }
        assert fetched(server.url) == SHA256
    assert keys(server) == [False]
