"""The settings of project/, from environment variables and with secure defaults."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from project import hosts

ROOT = Path(__file__).parent.parent
# Without the API key, which no test may print; see `tests.support.leaks`.
SHOW = (
    "from django.conf import settings; settings.VIDEOJOBS.pop('API_KEY', None); "
    "print(getattr(settings, '{}'))"
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("VIDEOJOBS_", "DJANGO_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=ours | environment,
        capture_output=True,
        text=True,
    )


def setting(name: str, **environment: str) -> str:
    done = run("manage.py", "shell", "--no-imports", "-c", SHOW.format(name), **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_outside_debug_it_refuses_to_start_without_a_secret_key() -> None:
    done = run("manage.py", "check")

    assert done.returncode != 0
    assert "DJANGO_SECRET_KEY" in done.stderr


def test_outside_debug_it_starts_with_a_secret_key() -> None:
    done = run(
        "manage.py", "check", "--deploy", "--fail-level", "ERROR",
        DJANGO_SECRET_KEY="long-and-random", VIDEOJOBS_API_KEY="key",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_debug_is_off_unless_asked_for() -> None:
    assert setting("DEBUG", DJANGO_SECRET_KEY="long-and-random") == "False"


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("VIDEOJOBS_POLL_INTERVAL", "2.5", "'POLL_INTERVAL': 2.5"),
        ("VIDEOJOBS_MIRROR_ATTEMPTS", "7", "'MIRROR_ATTEMPTS': 7"),
        ("VIDEOJOBS_ALLOW_HTTP_OUTPUTS", "true", "'ALLOW_HTTP_OUTPUTS': True"),
        ("VIDEOJOBS_PROXY_URL", "http://proxy:3128", "'PROXY_URL': 'http://proxy:3128'"),
        ("VIDEOJOBS_PURGE_AFTER", "90", "'PURGE_AFTER': 90,"),
        ("VIDEOJOBS_MAX_ACTIVE_JOBS", "5", "'MAX_ACTIVE_JOBS': 5,"),
        ("VIDEOJOBS_MEDIA_CHECK", "true", "'MEDIA_CHECK': True"),
        ("VIDEOJOBS_MEDIA_CHECK", "false", "'MEDIA_CHECK': False"),
        (
            "VIDEOJOBS_ALLOWED_PRIVATE_NETWORKS",
            "10.0.0.0/8,127.0.0.0/8",
            "'ALLOWED_PRIVATE_NETWORKS': ['10.0.0.0/8', '127.0.0.0/8']",
        ),
        ("VIDEOJOBS_MODELS", '{"m": {"path": "/v1/m"}}', "'MODELS': {'m': {'path': '/v1/m'}}"),
    ],
)
def test_a_setting_of_the_app_has_its_type(variable: str, value: str, shown: str) -> None:
    environment = {"DJANGO_DEBUG": "1", variable: value}

    assert shown in setting("VIDEOJOBS", **environment)


def test_a_value_of_the_wrong_type_is_named() -> None:
    done = run("manage.py", "check", DJANGO_DEBUG="1", VIDEOJOBS_POLL_INTERVAL="often")

    assert "VIDEOJOBS_POLL_INTERVAL must be a number" in done.stderr


def test_a_variable_that_no_setting_has_is_an_error_with_the_name_that_was_meant() -> None:
    done = run("manage.py", "check", DJANGO_DEBUG="1", VIDEOJOBS_POLL_INTERVALL="3")

    assert done.returncode != 0
    assert "Did you mean 'POLL_INTERVAL'?" in done.stderr


def test_in_debug_without_a_key_the_provider_is_simulated() -> None:
    assert "127.0.0.1:8900" in setting("VIDEOJOBS", DJANGO_DEBUG="1")


def test_outside_debug_without_a_key_nothing_is_simulated() -> None:
    assert setting("SIMULATED", DJANGO_SECRET_KEY="long-and-random") == "False"


def test_with_a_key_nothing_is_simulated() -> None:
    assert setting("SIMULATED", DJANGO_DEBUG="1", VIDEOJOBS_API_KEY="key") == "False"


def test_videos_and_posters_may_come_from_the_origins_that_are_named() -> None:
    policy = setting(
        "CONTENT_SECURITY_POLICY",
        DJANGO_DEBUG="1",
        DJANGO_MEDIA_ORIGINS="https://a.example.com,https://b.example.com",
    )

    for directive in ("media-src", "img-src"):
        origins = "\"'self'\", 'https://a.example.com', 'https://b.example.com'"
        assert f"'{directive}': [{origins}]" in policy


def test_a_worker_of_its_own_refuses_the_embedded_broker_and_says_what_to_set() -> None:
    done = run("-m", "celery", "-A", "project", "worker", DJANGO_DEBUG="1")

    assert done.returncode != 0
    assert "CELERY_BROKER_URL" in done.stderr


def test_redis_gets_a_visibility_timeout_of_three_times_the_longest_countdown() -> None:
    options = setting(
        "CELERY_BROKER_TRANSPORT_OPTIONS",
        DJANGO_DEBUG="1",
        CELERY_BROKER_URL="redis://localhost:1/0",
    )

    assert "'visibility_timeout': 900" in options


@pytest.mark.parametrize(
    ("names", "allowed", "trusted"),
    [
        ("www.example.com", ["www.example.com"], ["https://www.example.com"]),
        (".example.com", [".example.com"], ["https://*.example.com"]),
        ("*.example.com", [".example.com"], ["https://*.example.com"]),
        ("*", ["*"], []),
        ("*:8443", ["*"], []),
        ("example.com:8443", ["example.com"], ["https://example.com:8443"]),
        (".example.com:8443", [".example.com"], ["https://*.example.com:8443"]),
        ("Example.COM", ["example.com"], ["https://example.com"]),
        ("[2001:DB8::1]", ["[2001:db8::1]"], ["https://[2001:db8::1]"]),
        ("2001:db8::1", ["[2001:db8::1]"], ["https://[2001:db8::1]"]),
        ("[::1]:8443", ["[::1]"], ["https://[::1]:8443"]),
        ("192.0.2.7", ["192.0.2.7"], ["https://192.0.2.7"]),
        ("", [], []),
        (" , ,", [], []),
        (" a.test ,\tb.test", ["a.test", "b.test"], ["https://a.test", "https://b.test"]),
    ],
)
def test_the_names_of_the_site_are_hosts_and_origins(
    names: str, allowed: list[str], trusted: list[str]
) -> None:
    assert hosts.allowed_hosts(names.split(",")) == allowed
    assert hosts.trusted_origins(names.split(",")) == trusted


def test_the_settings_have_the_names_of_the_environment() -> None:
    environment = {"DJANGO_DEBUG": "1", "DJANGO_ALLOWED_HOSTS": "a.test, .b.test"}

    assert setting("ALLOWED_HOSTS", **environment) == "['a.test', '.b.test']"
    assert (
        setting("CSRF_TRUSTED_ORIGINS", **environment) == "['https://a.test', 'https://*.b.test']"
    )


@pytest.mark.parametrize(
    "name", ["https://example.com", "example.com/", "a b", "a.test;b.test", "bücher.example"]
)
def test_what_is_no_name_of_a_host_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"must be names of hosts, .* For example, "):
        hosts.allowed_hosts([name])


@pytest.mark.parametrize(
    ("names", "host", "origin"),
    [
        (".example.com", "www.example.com", "https://www.example.com"),
        (".example.com", "example.com", "https://example.com"),
        ("example.com:8443", "example.com", "https://example.com:8443"),
        ("2001:db8::1", "[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
@pytest.mark.django_db
def test_a_form_can_be_posted_through_a_proxy_that_ends_https(
    names: str, host: str, origin: str, settings: Any
) -> None:
    settings.ALLOWED_HOSTS = hosts.allowed_hosts([names])
    settings.CSRF_TRUSTED_ORIGINS = hosts.trusted_origins([names])
    client = Client(enforce_csrf_checks=True, headers={"host": host})
    page = client.get("/admin/login/").content.decode()
    token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[0]

    answer = client.post(
        "/admin/login/", {"csrfmiddlewaretoken": token}, headers={"origin": origin}
    )

    assert answer.status_code == 200


def test_sqlite_takes_its_locks_at_once() -> None:
    assert "'transaction_mode': 'IMMEDIATE'" in setting("DATABASES", DJANGO_DEBUG="1")
