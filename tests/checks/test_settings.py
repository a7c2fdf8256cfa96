import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import certifi
import pytest
from django.core import checks
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from videojobs.checks import check_settings
from videojobs.conf import DEFAULTS

GOOD = {"API_KEY": "sk-1234"}


def found(**values: Any) -> list[tuple[str, str, str | None]]:
    with override_settings(VIDEOJOBS={**GOOD, **values}):
        return [(str(m.id), str(m.msg), m.hint) for m in check_settings()]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"BASE_URL": "https://provider.example/api"},
        {"BASE_URL": "http://localhost:8000/api", "POLL_INTERVAL": 1},
        {"BASE_URL": "http://127.0.0.1:8000"},
        {"BASE_URL": "http://[::1]:8000"},
        {"POLL_INTERVAL": 30, "MAX_POLL_INTERVAL": 30},
        {"OVERDUE_AFTER": 60.0, "GIVE_UP_AFTER": 60.0},
        {"POLL_JITTER": 0},
        {"POLL_JITTER": 1},
        {"PURGE_AFTER": 0.5},
        {"ALLOWED_PRIVATE_NETWORKS": ["10.0.0.0/8", "fd00::/8"]},
        {"MODELS": {"veo": {"path": "/v1/veo/videos"}}},
        {"MODELS": {"veo": {"path": "/v1/veo/videos", "duration": [4, 8], "ratios": ["16:9"]}}},
        {"FRAME_FIELDS": ["first_image", "last_image"]},
        {"UPLOAD_TO": "a..b/%Y"},
        {"UPLOAD_TO": ""},
        {"MEDIA_CHECK": False},
        {"MEDIA_CHECK": None},
        {"MAY_SEE_JOB": None},
        {"MAY_SEE_JOB": "project.showcase.access.may_see"},
    ],
)
def test_a_good_configuration_has_no_message(values: dict[str, Any]) -> None:
    assert found(**values) == []


def test_the_defaults_lack_nothing_but_the_key() -> None:
    with override_settings(VIDEOJOBS={}):
        assert [message.id for message in check_settings()] == ["videojobs.W003"]


def test_a_site_without_the_setting_lacks_nothing_but_the_key(settings: Any) -> None:
    del settings.VIDEOJOBS
    assert [message.id for message in check_settings()] == ["videojobs.W003"]


@pytest.mark.parametrize("value", [None, [], "text", 5])
def test_the_setting_must_be_a_dict(value: Any) -> None:
    with override_settings(VIDEOJOBS=value):
        assert [(m.id, m.msg) for m in check_settings()] == [
            ("videojobs.E001", "VIDEOJOBS must be a dict.")
        ]


def test_an_unknown_key_is_named_with_the_one_that_was_meant() -> None:
    assert found(POLL_INTERVALL=30) == [
        (
            "videojobs.E002",
            "VIDEOJOBS has an unknown key 'POLL_INTERVALL'.",
            "Did you mean 'POLL_INTERVAL'?",
        )
    ]


@pytest.mark.parametrize("name", ["NONSENSE", 5, None])
def test_an_unknown_key_that_resembles_none_has_no_hint(name: Any) -> None:
    with override_settings(VIDEOJOBS={**GOOD, name: 1}):
        assert [(m.id, m.hint) for m in check_settings()] == [("videojobs.E002", None)]


SECONDS = [
    "POLL_INTERVAL",
    "MAX_POLL_INTERVAL",
    "OVERDUE_AFTER",
    "OVERDUE_INTERVAL",
    "GIVE_UP_AFTER",
    "CONNECT_TIMEOUT",
    "READ_TIMEOUT",
    "LEASE_MARGIN",
    "DOWNLOAD_TIMEOUT",
    "MEDIA_TIMEOUT",
    "SWEEP_INTERVAL",
]


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [0, -1, "30", None, True, float("nan"), float("inf"), 1e300])
def test_a_duration_must_be_a_sensible_number_above_0(name: str, value: Any) -> None:
    message = f"VIDEOJOBS['{name}'] must be a number of seconds above 0."
    assert found(**{name: value}) == [("videojobs.E003", message, None)]


@pytest.mark.parametrize(
    "name", ["POLL_CONCURRENCY", "MAX_OUTPUT_BYTES", "MIRROR_ATTEMPTS", "SWEEP_BATCH"]
)
@pytest.mark.parametrize("value", [0, -1, "30", None, True, 1.5, 2**64])
def test_a_count_must_be_a_whole_number_above_0(name: str, value: Any) -> None:
    message = f"VIDEOJOBS['{name}'] must be a whole number above 0."
    assert found(**{name: value}) == [("videojobs.E003", message, None)]


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.2", None, float("nan"), True])
def test_the_jitter_is_a_part_of_the_interval(value: Any) -> None:
    assert found(POLL_JITTER=value) == [
        ("videojobs.E003", "VIDEOJOBS['POLL_JITTER'] must be a number from 0 to 1.", None)
    ]


@pytest.mark.parametrize("value", [0, -1, "30", True, float("nan")])
def test_the_age_of_what_is_purged_is_above_0_days(value: Any) -> None:
    assert found(PURGE_AFTER=value) == [
        (
            "videojobs.E003",
            "VIDEOJOBS['PURGE_AFTER'] must be None or a number of days above 0.",
            None,
        )
    ]


def test_an_interval_above_its_cap_is_an_error() -> None:
    assert found(POLL_INTERVAL=61) == [
        ("videojobs.E004", "VIDEOJOBS['POLL_INTERVAL'] must not exceed MAX_POLL_INTERVAL.", None)
    ]


def test_a_deadline_after_the_end_is_an_error() -> None:
    assert found(OVERDUE_AFTER=86401) == [
        ("videojobs.E004", "VIDEOJOBS['OVERDUE_AFTER'] must not exceed GIVE_UP_AFTER.", None)
    ]


def test_polling_a_public_provider_too_often_is_a_warning() -> None:
    assert found(POLL_INTERVAL=29.9) == [
        (
            "videojobs.W001",
            "VIDEOJOBS['POLL_INTERVAL'] is below 30 seconds.",
            "The provider recommends 30 to 60 seconds; shorter intervals risk a rate limit.",
        )
    ]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "provider.example",
        "ftp://provider.example",
        "https://",
        "https://provider.example/?a=b",
        "https://provider.example/#a",
        "https://user:pass@provider.example/",
        "https://[provider",
        "https://provider.example:99999",
        "https://provider.example:x",
        "https://provider.example\n",
        None,
        5,
        b"https://provider.example",
    ],
)
def test_the_base_url_must_be_an_address_and_a_path(url: Any) -> None:
    assert found(BASE_URL=url) == [
        (
            "videojobs.E005",
            "VIDEOJOBS['BASE_URL'] must be an http(s) URL without user, password and query.",
            None,
        )
    ]


def test_a_key_that_travels_in_the_clear_is_a_warning() -> None:
    assert found(BASE_URL="http://provider.example") == [
        (
            "videojobs.W002",
            "VIDEOJOBS['BASE_URL'] does not use https: the API key is sent unencrypted.",
            None,
        )
    ]


@pytest.mark.parametrize("key", ["", None])
def test_a_missing_key_is_a_warning(key: Any) -> None:
    assert found(API_KEY=key) == [
        (
            "videojobs.W003",
            "VIDEOJOBS['API_KEY'] is empty: no request can be sent to the provider.",
            "Read the key from the environment; don't put it into the code.",
        )
    ]


@pytest.mark.parametrize("key", ["sk-1\n", "sk 1", " sk", "schlüssel", "sk–1", "\x00", 5, b"sk"])
def test_a_key_that_no_header_can_carry_is_an_error(key: Any) -> None:
    assert found(API_KEY=key) == [
        (
            "videojobs.E006",
            "VIDEOJOBS['API_KEY'] contains characters that are invalid in an HTTP header.",
            "Check for a newline or a space at the end of the key.",
        )
    ]


def test_the_simulator_s_key_at_a_real_address_is_a_warning() -> None:
    assert found(API_KEY="sim-5d1f08c7") == [
        (
            "videojobs.W005",
            "VIDEOJOBS['API_KEY'] is a key of the simulator, but BASE_URL is a real address.",
            "Set the provider's key, or the address that videojobs_simulator prints.",
        )
    ]


def test_the_simulator_s_key_at_the_simulator_is_no_warning() -> None:
    base_url = "http://127.0.0.1:8900/kyyReactApiServer"

    assert found(API_KEY="sim-5d1f08c7", BASE_URL=base_url) == []


@pytest.mark.parametrize("models", [{}, [], None, "videos"])
def test_a_site_without_models_is_an_error(models: Any) -> None:
    assert found(MODELS=models) == [
        ("videojobs.E007", "VIDEOJOBS['MODELS'] must be a dict with at least one model.", None)
    ]


@pytest.mark.parametrize("rules", [None, "/v1/veo/videos", {}, {"path": "/veo"}, {"path": 5}])
def test_a_model_needs_the_path_of_its_create_call(rules: Any) -> None:
    assert found(MODELS={"veo": rules}) == [
        (
            "videojobs.E007",
            "VIDEOJOBS['MODELS']['veo'] must be a dict with a 'path' under /v1/.",
            "For example, {'path': '/v1/veo/videos'}.",
        )
    ]


def test_a_model_s_name_must_be_text() -> None:
    assert [code for code, *_ in found(MODELS={5: {"path": "/v1/veo/videos"}})] == [
        "videojobs.E007"
    ]


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("ratio", ["16:9"]),
        ("duration", 5),
        ("duration", (4,)),
        ("duration", ("4", "15")),
        ("ratios", "16:9"),
        ("ratios", [16]),
        ("max_prompt", "1500"),
        ("max_prompt", -1),
        ("max_audios", True),
        (5, 5),
    ],
)
def test_a_wrong_rule_of_a_model_is_named(rule: Any, value: Any) -> None:
    assert found(MODELS={"veo": {"path": "/v1/veo/videos", rule: value}}) == [
        (
            "videojobs.E007",
            f"VIDEOJOBS['MODELS']['veo'] has invalid rules: {rule}.",
            "The rules are path, duration (minimum and maximum in seconds), ratios (a list of "
            "strings), max_prompt and max_audios (whole numbers).",
        )
    ]


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "a"), ("a", "a"), (1, 2), None, 5])
def test_the_frame_fields_must_be_a_pair_of_names(pair: Any) -> None:
    assert found(FRAME_FIELDS=pair) == [
        ("videojobs.E008", "VIDEOJOBS['FRAME_FIELDS'] must be two different names.", None)
    ]


@pytest.mark.parametrize("networks", [["10.0.0.1/8"], ["nonsense"], "10.0.0.0/8", [None], 5])
def test_an_invalid_network_is_an_error(networks: Any) -> None:
    ((code, message, hint),) = found(ALLOWED_PRIVATE_NETWORKS=networks)
    assert code == "videojobs.E009"
    assert message.startswith("VIDEOJOBS['ALLOWED_PRIVATE_NETWORKS'] contains an invalid network: ")
    assert hint == "Use a list of networks in CIDR notation, such as ['10.0.0.0/8']."


@pytest.mark.parametrize("alias", ["nowhere", None, ["default"]])
def test_a_storage_that_the_site_does_not_have_is_an_error(alias: Any) -> None:
    ((code, message, _hint),) = found(STORAGE=alias)
    assert (code, str(alias) in message) == ("videojobs.E010", True)


@pytest.mark.parametrize("name", ["ALLOW_HTTP_OUTPUTS", "SEND_KEY_FOR_OUTPUTS"])
def test_a_way_to_outputs_is_open_or_not(name: str) -> None:
    assert found(**{name: "no"}) == [
        ("videojobs.E014", f"VIDEOJOBS[{name!r}] must be True or False.", None)
    ]
    assert found(**{name: True}) == []


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_without_authorities_is_an_error(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    ((code, message, _hint),) = found(CA_FILE=str(path))
    assert (code, "can't be loaded" in message) == ("videojobs.E019", True)


def test_a_file_with_authorities_is_none() -> None:
    assert found(CA_FILE=certifi.where()) == []


@pytest.mark.parametrize(
    "url", ["proxy:3128", "https://proxy:3128", "socks5://proxy", "http://", "http://p:x", 5]
)
def test_a_proxy_must_be_an_http_url(url: Any) -> None:
    ((code, _message, _hint),) = found(PROXY_URL=url)
    assert code == "videojobs.E020"


def test_no_message_shows_the_password_of_a_proxy() -> None:
    assert "s3cr3t" not in str(found(PROXY_URL="https://user:s3cr3t@proxy"))
    assert found(PROXY_URL="http://user:s3cr3t@proxy") == []


def test_a_storage_without_a_directory_is_an_error(settings: Any) -> None:
    settings.MEDIA_ROOT = ""
    ((code, message, hint),) = found()
    assert (code, "current directory" in message) == ("videojobs.E018", True)
    assert "MEDIA_ROOT" in str(hint)


@pytest.mark.parametrize(
    "storage",
    [
        {"BACKEND": "django.core.files.storage.InMemoryStorage"},
        {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": "/srv/videos"},
        },
    ],
    ids=["in memory", "with a location of its own"],
)
def test_a_storage_that_needs_no_media_root_lacks_nothing(settings: Any, storage: Any) -> None:
    settings.MEDIA_ROOT = ""
    settings.STORAGES = {**settings.STORAGES, "other": storage}
    assert found(STORAGE="other") == []


def test_a_storage_whose_backend_is_missing_is_an_error(settings: Any) -> None:
    settings.STORAGES = {**settings.STORAGES, "odd": {"BACKEND": "no.such.Backend"}}
    ((code, message, _hint),) = found(STORAGE="odd")
    assert (code, "no.such.Backend" in message) == ("videojobs.E010", True)


@pytest.mark.parametrize(
    "directory", ["../up", "a/../b", "/root", "a\nb", "./a", "a//b", "a/.", None, 5]
)
def test_outputs_must_lie_inside_the_storage(directory: Any) -> None:
    assert found(UPLOAD_TO=directory) == [
        (
            "videojobs.E011",
            "VIDEOJOBS['UPLOAD_TO'] must be a relative directory inside the storage.",
            None,
        )
    ]


def test_all_that_is_wrong_is_said_at_once() -> None:
    ids = {code for code, *_ in found(POLL_INTERVAL=0, API_KEY="", BASE_URL="", UPLOAD_TO="/")}
    assert ids == {f"videojobs.{n}" for n in ("E003", "W003", "E005", "E011")}


def test_no_message_shows_the_key() -> None:
    assert not any("s e c" in f"{msg}{hint}" for _, msg, hint in found(API_KEY="s e c r e t"))


@pytest.mark.django_db  # Since Django 6.1, checks may query all databases.
def test_the_checks_are_part_of_manage_py_check() -> None:
    with override_settings(VIDEOJOBS={**GOOD, "NONSENSE": 1}):
        ids = [message.id for message in checks.run_checks()]
    assert "videojobs.E002" in ids


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(DEFAULTS)), anything, max_size=4))
def test_no_value_of_any_setting_makes_a_check_raise(values: dict[str, Any]) -> None:
    with override_settings(VIDEOJOBS=values):
        assert all(isinstance(message, checks.CheckMessage) for message in check_settings())


def test_times_without_a_zone_are_refused(settings: Any) -> None:
    settings.USE_TZ = False

    assert "videojobs.E012" in {code for code, *_ in found()}


@pytest.mark.parametrize("name", ["MAX_ACTIVE_JOBS", "MAX_SUBMISSIONS_PER_DAY"])
@pytest.mark.parametrize("value", [-1, "30", True, 1.5])
def test_a_limit_must_be_a_number_of_jobs(name: str, value: Any) -> None:
    message = f"VIDEOJOBS[{name!r}] must be None or a whole number of at least 0."
    assert found(**{name: value}) == [("videojobs.E003", message, None)]


@pytest.mark.parametrize("hosts", ["cdn.example.com", [5], [""], ["https://cdn.example.com"], None])
def test_output_hosts_must_be_domains(hosts: Any) -> None:
    assert [code for code, *_ in found(ALLOWED_OUTPUT_HOSTS=hosts)] == ["videojobs.E013"]


def test_output_hosts_may_be_domains() -> None:
    assert found(ALLOWED_OUTPUT_HOSTS=["cdn.example.com", ".example.net", "localhost"]) == []


@pytest.mark.parametrize("value", ["true", 1, 0, "", []])
def test_the_media_check_is_on_off_or_left_to_what_is_installed(value: Any) -> None:
    assert found(MEDIA_CHECK=value) == [
        ("videojobs.E014", "VIDEOJOBS['MEDIA_CHECK'] must be True, False or None.", None)
    ]


@pytest.mark.parametrize("wanted", [True, False, None])
def test_a_media_check_that_is_a_must_needs_pyav(
    wanted: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    messages = [
        (
            "videojobs.E015",
            "VIDEOJOBS['MEDIA_CHECK'] is True, but PyAV is not installed.",
            "Install videojobs[media], or set MEDIA_CHECK to None to skip the check.",
        )
    ]
    assert found(MEDIA_CHECK=wanted) == (messages if wanted else [])


async def too_late(request: object, job: object) -> bool:
    """Returns a coroutine, which is neither True nor False."""
    return True


@pytest.mark.parametrize(
    ("rule", "message_id"),
    [
        ("project.showcase.access.no_such_rule", "videojobs.E016"),
        ("no.such.module", "videojobs.E016"),
        ("undotted", "videojobs.E016"),
        ("videojobs.conf.DEFAULTS", "videojobs.E017"),
        (f"{__name__}.too_late", "videojobs.E017"),
        (too_late, "videojobs.E017"),
        (5, "videojobs.E017"),
    ],
)
def test_a_rule_for_visitors_must_be_the_path_of_a_function(rule: Any, message_id: str) -> None:
    assert [found_id for found_id, _, _ in found(MAY_SEE_JOB=rule)] == [message_id]


SETTINGS_OF_TEXT = """
from tests.settings import *
VIDEOJOBS = {**VIDEOJOBS, "READ_TIMEOUT": "30"}
"""


def test_a_setting_that_is_no_number_is_reported_by_a_check_and_by_no_traceback(
    tmp_path: Path,
) -> None:
    (tmp_path / "settings_of_text.py").write_text(SETTINGS_OF_TEXT)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "settings_of_text", "PYTHONPATH": path}

    done = subprocess.run(
        [sys.executable, "-m", "django", "check"], env=environment, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "READ_TIMEOUT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["HOLD_CODES", "REFUSAL_CODES"])
@pytest.mark.parametrize("codes", [[], ["1003", 4290], ("x",), {"1003"}])
def test_codes_may_be_texts_and_numbers(name: str, codes: Any) -> None:
    assert found(**{name: codes}) == []


@pytest.mark.parametrize("name", ["HOLD_CODES", "REFUSAL_CODES"])
@pytest.mark.parametrize("codes", ["1003", 1003, None, [""], [True], [1.5], {"1003": 1}])
def test_codes_must_be_a_list_of_codes(name: str, codes: Any) -> None:
    assert [code for code, *_ in found(**{name: codes})] == ["videojobs.E019"]
