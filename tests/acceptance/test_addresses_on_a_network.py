"""Requests for URLs that could lead to internal addresses, with real sockets and a real DNS server.

All public and private addresses belong to one machine in an isolated network, which records every
connection. The environment always sets a proxy and a `.netrc`.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from ipaddress import ip_address
from typing import Any

import certifi
import pytest

from videojobs.testing import SAMPLE

from . import network, setting_cases, url_cases
from .fetching import CDN, CDN_ADDRESS, Case, Outcome
from .targets import TUNNEL_PORT

GROUPS = {
    "refused": url_cases.REFUSED,
    "rebound": url_cases.REBOUND,
    "stored": url_cases.STORED,
    "retried": url_cases.RETRIED,
    "still closed": setting_cases.STILL_CLOSED,
    "opened": setting_cases.OPENED,
    "elsewhere": setting_cases.ELSEWHERE,
    "within": setting_cases.WITHIN,
}
SHA256 = hashlib.sha256(SAMPLE).hexdigest()
PROXY_ADDRESS = "9.9.9.8"
PROXY = f"http://{PROXY_ADDRESS}:3128"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of each case, by its group and title, and that of the trusting client."""
    directory = tmp_path_factory.mktemp("network")
    netrc = directory / ".netrc"
    netrc.write_text("default login intruder password s3cr3t\n")
    netrc.chmod(0o600)
    variables = {
        **{"HOME": str(directory), "NETRC": str(netrc), "no_proxy": "", "NO_PROXY": ""},
        **dict.fromkeys(PROXIES, PROXY),
    }
    cases = [
        asdict(replace(case, title=f"{group}: {case.title}"))
        for group, cases in GROUPS.items()
        for case in cases
    ]
    module = "tests.acceptance.fetching"
    text = network.run_inside(directory, module, text=json.dumps(cases), variables=variables)
    found: dict[str, Any] = json.loads(text)
    assert len(found) == len(cases) + 1, "two cases of a group have the same title"
    return found


@pytest.fixture(scope="module")
def outcomes(seen: dict[str, Any]) -> dict[str, Outcome]:
    return {title: Outcome(**fields) for title, fields in seen.items() if title != "trusting"}


#: The settings that open a way to outputs. The key of the second is at the host of all redirects.
KEY = "sk-51c0ffee"
_WITH_KEY = {"SEND_KEY_FOR_OUTPUTS": True, "API_KEY": KEY, "BASE_URL": f"http://{CDN}"}
_BY_PROXY = {"PROXY_URL": f"http://user:s3cr3t@9.9.9.7:{TUNNEL_PORT}"}
_PLAIN_HTTP = {"ALLOW_HTTP_OUTPUTS": True, "BASE_URL": "https://provider.test"}
WAYS: dict[str, dict[str, Any]] = {
    "plain http": _PLAIN_HTTP,
    "the key": _WITH_KEY,
    "a proxy": _BY_PROXY,
    "a private authority": {"CA_FILE": certifi.where()},
    "the key, a proxy and a private authority": {
        **_WITH_KEY,
        **_BY_PROXY,
        "CA_FILE": certifi.where(),
    },
    "plain http by a proxy": {**_PLAIN_HTTP, **_BY_PROXY},
}
HOSTILE = ("refused", "still closed", "elsewhere")
FRIENDLY = ("stored", "opened", "within")


@pytest.fixture(scope="module", params=list(WAYS.values()), ids=list(WAYS))
def on_this_way(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Case, Outcome]]:
    """Each case and its outcome, with more settings."""
    cases = {
        f"{group}: {case.title}": replace(
            case, plain=False, settings={**case.settings, **request.param}
        )
        for group in (*HOSTILE, "rebound", *FRIENDLY)
        for case in GROUPS[group]
    }
    directory = tmp_path_factory.mktemp("network")
    text = network.run_inside(
        directory,
        "tests.acceptance.fetching",
        text=json.dumps([asdict(replace(case, title=title)) for title, case in cases.items()]),
        variables={"HOME": str(directory), **dict.fromkeys(PROXIES, "")},
    )
    found = json.loads(text)
    return {title: (case, Outcome(**found[title])) for title, case in cases.items()}


def test_with_more_ways_open_no_url_leads_further(
    on_this_way: dict[str, tuple[Case, Outcome]],
) -> None:
    further = {
        title: outcome.reached
        for title, (case, outcome) in on_this_way.items()
        if not set(outcome.reached) <= set(case.reaches)
    }
    assert further == {}


def test_with_more_ways_open_no_hostile_url_is_fetched(
    on_this_way: dict[str, tuple[Case, Outcome]],
) -> None:
    fetched = {
        title: outcome
        for title, (_, outcome) in on_this_way.items()
        if title.startswith(HOSTILE) and (outcome.sha256 or outcome.left)
    }
    assert fetched == {}


def test_with_more_ways_open_a_good_url_is_still_fetched(
    on_this_way: dict[str, tuple[Case, Outcome]],
) -> None:
    wrong = {
        title: outcome
        for title, (case, outcome) in on_this_way.items()
        if title.startswith(FRIENDLY)
        and (outcome.sha256 != SHA256 or set(outcome.reached) != set(case.reaches))
    }
    assert wrong == {}


def test_on_no_way_the_key_goes_anywhere_but_to_the_provider_s_own_origin(
    on_this_way: dict[str, tuple[Case, Outcome]],
) -> None:
    keyed = {host for _, outcome in on_this_way.values() for host in outcome.keyed}

    assert keyed <= {f"{CDN}:80"}


def test_only_where_the_key_is_to_be_sent_it_is(
    on_this_way: dict[str, tuple[Case, Outcome]],
) -> None:
    is_sent = any(case.settings.get("SEND_KEY_FOR_OUTPUTS") for case, _ in on_this_way.values())

    assert any(outcome.keyed for _, outcome in on_this_way.values()) == is_sent


def test_a_proxy_is_asked_for_nothing_but_checked_addresses(
    on_this_way: dict[str, tuple[Case, Outcome]],
) -> None:
    asked = {
        target.rpartition(":")[0].strip("[]")
        for _, outcome in on_this_way.values()
        for target in outcome.tunnels
    }

    assert {host for host in asked if not is_address(host)} == set()


def is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def each(*groups: str, only: Callable[[Case], bool] = lambda _: True) -> pytest.MarkDecorator:
    """Parametrize a test with the cases of these groups."""
    found = [(f"{group}: {case.title}", case) for group in groups for case in GROUPS[group]]
    chosen = [
        pytest.param(title, list(case.reaches), id=title) for title, case in found if only(case)
    ]
    return pytest.mark.parametrize(("title", "reaches"), chosen)


def plain(case: Case) -> bool:
    return case.plain


@each("refused", "still closed", "elsewhere")
def test_a_url_that_leads_where_it_may_not_is_refused_and_nothing_is_sent_there(
    title: str, reaches: list[str], outcomes: dict[str, Outcome]
) -> None:
    outcome = outcomes[title]
    assert (outcome.error, outcome.transient, outcome.reached) == ("OutputRefused", True, reaches)


@each("refused", only=plain)
def test_a_client_without_a_guard_is_led_further(
    title: str, reaches: list[str], outcomes: dict[str, Outcome]
) -> None:
    assert outcomes[title].plain[len(reaches) :]


@each("stored", "rebound", "opened", "within")
def test_a_url_that_leads_where_it_may_is_fetched_whole(
    title: str, reaches: list[str], outcomes: dict[str, Outcome]
) -> None:
    outcome = outcomes[title]
    assert (outcome.message, outcome.sha256, outcome.reached) == ("", SHA256, reaches)


@each("rebound")
def test_a_client_that_looks_before_it_calls_is_led_elsewhere(
    title: str, reaches: list[str], outcomes: dict[str, Outcome]
) -> None:
    assert outcomes[title].plain not in ([], reaches)


@each("retried")
def test_what_may_be_there_later_is_tried_again_and_nothing_is_sent_elsewhere(
    title: str, reaches: list[str], outcomes: dict[str, Outcome]
) -> None:
    assert outcomes[title].transient
    assert outcomes[title].reached == reaches


def test_no_download_connects_to_a_proxy_or_shows_credentials(
    outcomes: dict[str, Outcome],
) -> None:
    hostile = [
        title
        for title, outcome in outcomes.items()
        if outcome.authorized or PROXY_ADDRESS in outcome.reached
    ]
    assert hostile == []


def test_a_client_that_trusts_its_environment_connects_to_the_proxy_and_shows_credentials(
    seen: dict[str, Any],
) -> None:
    assert seen["trusting"] == {"reached": [PROXY_ADDRESS, CDN_ADDRESS], "authorized": True}


@each("elsewhere")
def test_no_host_outside_the_allowed_ones_is_even_looked_up(
    title: str, reaches: list[str], outcomes: dict[str, Outcome]
) -> None:
    assert [name for name in outcomes[title].asked if not f".{name}".endswith(f".{CDN}")] == []


def test_no_download_leaves_a_file(outcomes: dict[str, Outcome]) -> None:
    assert [title for title, outcome in outcomes.items() if outcome.left] == []
