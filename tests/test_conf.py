from typing import Any

import pytest
from django.test import override_settings

from videojobs.conf import DEFAULTS, Setting, Settings, conf


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_setting_has_its_default_when_it_is_not_set(name: str, settings: Any) -> None:
    settings.VIDEOJOBS = {}
    assert getattr(conf, name) == DEFAULTS[name]


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_setting_is_read_under_its_own_name(name: str, settings: Any) -> None:
    mine = object()
    settings.VIDEOJOBS = {name: mine}
    assert getattr(conf, name) is mine


def test_a_site_without_the_setting_has_all_defaults(settings: Any) -> None:
    del settings.VIDEOJOBS
    assert conf.POLL_INTERVAL == 30.0


def test_a_setting_is_read_anew_at_each_access() -> None:
    with override_settings(VIDEOJOBS={"POLL_INTERVAL": 1.5}):
        inside = conf.POLL_INTERVAL
    assert (inside, conf.POLL_INTERVAL) == (1.5, 30.0)


def test_a_setting_that_is_false_is_no_missing_setting(settings: Any) -> None:
    settings.VIDEOJOBS = {"POLL_JITTER": 0, "MIRROR_ATTEMPTS": 0}
    assert (conf.POLL_JITTER, conf.MIRROR_ATTEMPTS) == (0, 0)


def test_the_class_gives_the_setting_itself_so_that_its_default_can_be_listed() -> None:
    assert isinstance(Settings.POLL_INTERVAL, Setting)
    assert Settings.POLL_INTERVAL.default == DEFAULTS["POLL_INTERVAL"]


def test_an_unknown_setting_is_a_mistake_in_the_code() -> None:
    with pytest.raises(AttributeError):
        conf.POLL_INTERVALL  # type: ignore[attr-defined]  # noqa: B018


def test_the_lease_outlasts_the_longest_call(settings: Any) -> None:
    settings.VIDEOJOBS = {"CONNECT_TIMEOUT": 2.0, "READ_TIMEOUT": 7.0, "LEASE_MARGIN": 4.0}
    assert (conf.exchange_timeout, conf.lease) == (9.0, 13.0)


def test_the_defaults_keep_the_provider_s_advice() -> None:
    assert (conf.POLL_INTERVAL, conf.MAX_POLL_INTERVAL) == (30.0, 60.0)


def test_the_default_settings_promise_what_the_design_names() -> None:
    assert set(DEFAULTS) >= {
        "BASE_URL",
        "API_KEY",
        "MODELS",
        "POLL_INTERVAL",
        "POLL_JITTER",
        "MAX_POLL_INTERVAL",
        "OVERDUE_AFTER",
        "OVERDUE_INTERVAL",
        "GIVE_UP_AFTER",
        "CONNECT_TIMEOUT",
        "READ_TIMEOUT",
        "DOWNLOAD_TIMEOUT",
        "MAX_OUTPUT_BYTES",
        "STORAGE",
        "UPLOAD_TO",
        "ALLOWED_PRIVATE_NETWORKS",
        "MIRROR_ATTEMPTS",
    }


def test_no_private_network_is_open_and_no_key_is_known_by_default() -> None:
    assert (DEFAULTS["ALLOWED_PRIVATE_NETWORKS"], DEFAULTS["API_KEY"]) == ((), "")
