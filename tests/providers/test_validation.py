import json
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from videojobs.providers.validation import Request, check_json, check_request

URL = "https://cdn.example/a.png"


def checked(**kwargs: Any) -> Request:
    request = {"model": "videos", "prompt": "A kitten", "duration": 5, "params": {}, **kwargs}
    return check_request(**request)


def errors(**kwargs: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        checked(**kwargs)
    return caught.value.message_dict


def params(**kwargs: Any) -> dict[str, Any]:
    return checked(params=kwargs).params


def test_a_request_is_frozen_with_the_address_it_will_be_sent_to(settings: Any) -> None:
    settings.VIDEOJOBS = {"BASE_URL": "https://provider.example/api/"}
    request = checked(params={"ratio": "9:16", "resolution": None})
    assert request == Request(
        endpoint="https://provider.example/api/v1/videos/videos",
        model="videos",
        prompt="A kitten",
        duration=5,
        params={"ratio": "9:16"},
    )


def test_without_a_model_the_first_one_is_taken() -> None:
    assert checked(model=None).model == "videos"


@pytest.mark.parametrize(
    "model",
    [
        "",
        "Videos",
        "sora",
        5,
        ["videos"],
        "x" * 10_000,
        "\ud800\x00",
        pytest.param(10**5000, id="huge"),
    ],
)
def test_an_unknown_model_is_named_with_those_that_are_known(model: Any) -> None:
    (message,) = errors(model=model)["model"]
    assert message.startswith("Unknown model ")
    assert message.endswith(
        "Available models: videos, videos_fast, videos_stable, videos_stable_fast."
    )
    assert len(message) < 250
    message.encode()


def test_a_site_without_models_has_no_first_one(settings: Any) -> None:
    settings.VIDEOJOBS = {"MODELS": {}}
    assert "Unknown model NoneType" in errors(model=None)["model"][0]


@pytest.mark.parametrize("duration", [4, 5, 15])
def test_a_documented_duration_is_accepted(duration: int) -> None:
    assert checked(duration=duration).duration == duration


@pytest.mark.parametrize(
    "duration", [3, 16, 0, -5, 10**400, 5.0, "5", None, True, [5], float("nan")]
)
def test_any_other_duration_is_refused(duration: Any) -> None:
    assert errors(duration=duration) == {
        "duration": ["The duration must be a whole number of seconds from 4 to 15."]
    }


@pytest.mark.parametrize(
    ("model", "longest"),
    [
        ("videos", 99_998),  # not limited by the provider; 100,000 characters of JSON with quotes
        ("videos_fast", 1500),
        ("videos_stable", 5000),
        ("videos_stable_fast", 5000),
    ],
)
def test_each_model_takes_prompts_of_its_own_length(model: str, longest: int) -> None:
    assert checked(model=model, prompt="ü" * longest).prompt
    assert list(errors(model=model, prompt="ü" * (longest + 1))) == ["prompt"]


def test_the_error_of_a_too_long_prompt_has_its_length() -> None:
    (message,) = errors(model="videos_fast", prompt="x" * 1501)["prompt"]
    assert message == "The prompt has 1501 characters; at most 1500 are allowed."


@pytest.mark.parametrize("prompt", ["", "  \n", None, 5, b"text", ["text"], "a\x00b", "a\ud800b"])
def test_a_prompt_that_is_no_text_or_can_t_be_stored_is_refused(prompt: Any) -> None:
    assert list(errors(prompt=prompt)) == ["prompt"]


def test_a_prompt_may_speak_of_escapes_and_percent_signs() -> None:
    prompt = "100 % of \\u0000 %s {x}"
    assert checked(prompt=prompt).prompt == prompt


@pytest.mark.parametrize("ratio", ["16:9", "9:16", "1:1", "21:9", "4:3", "3:4"])
def test_the_first_model_takes_every_ratio_of_any_page(ratio: str) -> None:
    assert params(ratio=ratio) == {"ratio": ratio}


@pytest.mark.parametrize("ratio", ["16:9", "9:16", "1:1"])
def test_the_other_models_take_the_common_ratios(ratio: str) -> None:
    assert checked(model="videos_fast", params={"ratio": ratio}).params == {"ratio": ratio}


@pytest.mark.parametrize("ratio", ["21:9", "16x9", "", 1, ["16:9"], {"a": 1}])
def test_another_ratio_is_refused_with_the_known_ones(ratio: Any) -> None:
    found = errors(model="videos_fast", params={"ratio": ratio})
    assert found == {"ratio": ["The ratio must be one of 16:9, 9:16, 1:1."]}


def test_the_only_resolution_is_720p() -> None:
    assert params(resolution="720p") == {"resolution": "720p"}
    assert errors(params={"resolution": "1080p"}) == {
        "resolution": ["The resolution must be 720p."]
    }


@pytest.mark.parametrize("given_pair", [("image", "lastFrameImage"), ("first_image", "last_image")])
@pytest.mark.parametrize("sent_pair", [("image", "lastFrameImage"), ("first_image", "last_image")])
def test_a_frame_pair_of_either_page_is_sent_under_the_names_that_the_setting_picks(
    settings: Any, given_pair: tuple[str, str], sent_pair: tuple[str, str]
) -> None:
    settings.VIDEOJOBS = {"FRAME_FIELDS": sent_pair}
    urls = (f"{URL}?1", f"{URL}?2")
    assert params(**dict(zip(given_pair, urls))) == dict(zip(sent_pair, urls))


def test_two_names_of_one_frame_are_refused_since_only_one_would_be_sent() -> None:
    found = errors(params={"image": URL, "first_image": f"{URL}?2", "last_image": URL})
    assert found == {
        "image": ["image and first_image are the same parameter: use only one of them."]
    }


@pytest.mark.parametrize(
    ("given_name", "missing"), [("image", "lastFrameImage"), ("lastFrameImage", "image")]
)
def test_one_frame_needs_the_other(given_name: str, missing: str) -> None:
    message = "The first and the last frame must be given together."
    assert errors(params={given_name: URL}) == {missing: [message]}


@pytest.mark.parametrize("references", ["referenceImages", "referenceVideos"])
def test_frames_and_references_exclude_each_other(references: str) -> None:
    found = errors(params={"image": URL, "lastFrameImage": URL, references: [URL]})
    assert found == {
        "image": ["Frames can't be combined with reference images or reference videos."]
    }


def test_references_may_be_combined_with_each_other() -> None:
    lists = {"referenceImages": [URL], "referenceVideos": (URL, URL), "referenceAudios": [URL]}
    assert params(**lists) == lists


@pytest.mark.parametrize(
    ("model", "most"),
    [("videos", 3), ("videos_stable", 1), ("videos_stable_fast", 1), ("videos_fast", 0)],
)
def test_each_model_takes_its_own_number_of_audios(model: str, most: int) -> None:
    assert checked(model=model, params={"referenceAudios": [URL] * most})
    noun = "audio" if most == 1 else "audios"
    assert errors(model=model, params={"referenceAudios": [URL] * (most + 1)}) == {
        "referenceAudios": [f"This model accepts at most {most} reference {noun}."]
    }


@pytest.mark.parametrize("value", [URL, 5, {"a": URL}, [5], [URL, ""], [[URL]], True])
def test_what_is_no_list_of_urls_is_refused(value: Any) -> None:
    assert errors(params={"referenceImages": value}) == {
        "referenceImages": ["This must be a list of URLs."]
    }


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a.png",
        "//cdn.example/a.png",
        "ftp://cdn.example/a.png",
        "data:image/png;base64,AA",
        "javascript:alert(1)",
        "https://",
        "https://[::1",
        "https://cdn.example/\n",
        "https://cdn.example/\u202e",
        "https://cdn.example/" + "a" * 2048,
        5,
        [URL],
    ],
)
def test_what_is_no_url_is_refused(value: Any) -> None:
    found = errors(params={"image": value, "lastFrameImage": URL})
    assert found == {"image": ["This must be the URL of an image."]}


def test_an_unknown_parameter_is_named_with_those_that_are_known() -> None:
    assert errors(params={"ration": "16:9"}) == {
        "ration": [
            "Unknown parameter. This model accepts: ratio, resolution, image, lastFrameImage, "
            "referenceImages, referenceVideos, referenceAudios."
        ]
    }


def test_a_parameter_that_is_none_is_left_out() -> None:
    assert params(ratio=None, nonsense=None) == {}


def test_all_errors_are_reported_at_once() -> None:
    found = errors(prompt="", duration=99, params={"ratio": "1:9", "resolution": "8k"})
    assert set(found) == {"prompt", "duration", "ratio", "resolution"}


def test_no_error_of_a_field_hides_another_one_of_it() -> None:
    found = errors(params={"image": 5, "lastFrameImage": URL, "referenceImages": [URL]})
    assert found == {
        "image": [
            "Frames can't be combined with reference images or reference videos.",
            "This must be the URL of an image.",
        ]
    }


@pytest.fixture
def other_family(settings: Any) -> None:
    settings.VIDEOJOBS = {"MODELS": {"upscale": {"path": "/v1/super-resolution/videos"}}}


@pytest.mark.usefixtures("other_family")
def test_another_family_takes_any_parameter_and_needs_neither_prompt_nor_duration() -> None:
    values = {"videoUrl": URL, "level": 3, "options": {"a": [1.5, None]}}
    request = checked(model="upscale", prompt="", duration=None, params=values)
    assert (request.params, request.duration) == (values, None)
    assert request.endpoint.endswith("/v1/super-resolution/videos")


@pytest.mark.usefixtures("other_family")
@pytest.mark.parametrize("duration", [0, -1, 86_401, True, 2.5, "5"])
def test_another_family_s_duration_is_still_a_number_that_a_row_can_hold(duration: Any) -> None:
    assert list(errors(model="upscale", duration=duration)) == ["duration"]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.usefixtures("other_family")
@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        float("nan"),
        float("-inf"),
        pytest.param(10**5000, id="huge"),
        "a\x00b",
        {"a\x00b": 1},
        "a\ud800b",
        ["a\udfffb"],
        {("a", "b"): 1},
        "x" * 100_000,
        pytest.param(nested(100), id="101 levels"),
        pytest.param(nested(950), id="950 levels"),
        pytest.param(nested(5000), id="5000 levels"),
    ],
)
def test_a_value_that_some_database_can_t_store_is_refused(value: Any) -> None:
    assert list(errors(model="upscale", params={"option": value})) == ["params"]


@pytest.mark.parametrize(
    "value", [None, True, -5, 1.5, "text", "\\u0000", "🎬", [], {}, nested(100), {"a": [{"b": 1}]}]
)
def test_plain_json_can_be_stored(value: Any) -> None:
    assert not list(check_json("field", value))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
known = st.sampled_from(
    ["ratio", "resolution", "image", "lastFrameImage", "first_image", "referenceAudios"]
)


@given(
    model=anything | st.sampled_from(["videos", "videos_fast"]),
    prompt=anything,
    duration=anything | st.integers(1, 20),
    values=st.dictionaries(known | st.text(), anything, max_size=3),
)
def test_any_values_are_either_checked_or_refused_and_what_passes_can_be_stored(
    model: Any, prompt: Any, duration: Any, values: dict[str, Any]
) -> None:
    try:
        request = check_request(model=model, prompt=prompt, duration=duration, params=values)
    except ValidationError:
        return
    assert "\x00" not in request.prompt
    json.dumps([request.prompt, request.params], allow_nan=False, ensure_ascii=False).encode()
