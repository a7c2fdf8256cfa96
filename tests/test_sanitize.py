import logging
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videojobs.sanitize import RedactingFormatter, clean, host, redact

KEY = "sk-9f8e7d6c"


@pytest.fixture(autouse=True)
def api_key(settings: Any) -> None:
    settings.VIDEOJOBS = {"API_KEY": KEY}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing to hide", "nothing to hide"),
        (f"Bearer {KEY}, twice {KEY}", "Bearer [key], twice [key]"),
        ("https://cdn.example/v.mp4", "https://cdn.example/v.mp4"),
        ("https://cdn.example/v.mp4?Sig=abc", "https://cdn.example/v.mp4?[redacted]"),
        ("HTTPS://CDN.EXAMPLE/v?a#b", "HTTPS://CDN.EXAMPLE/v?[redacted]"),
        ("https://cdn.example/v#token=abc", "https://cdn.example/v?[redacted]"),
        ("https://cdn.example?Sig=abc", "https://cdn.example?[redacted]"),
        ('{"url": "https://a/v?s=1", "b": 2}', '{"url": "https://a/v?[redacted]", "b": 2}'),
        ("<a href='https://a.example/v?s=1'>", "<a href='https://a.example/v?[redacted]'>"),
        ("https://a/?s=1 and https://b/?s=2", "https://a/?[redacted] and https://b/?[redacted]"),
        ("https://a/x,https://b/?s=2", "https://a/x,https://b/?[redacted]"),
        ("https://a/it's.mp4?Sig=abc", "https://a/it's.mp4?[redacted]"),
        ("https://a/v?name=UTF-8''v.mp4&Sig=abc", "https://a/v?[redacted]"),
        ("https://a/v?name='v'&Sig=abc", "https://a/v?[redacted]"),
        ("{'url': 'https://a/it's?s=1', 'b': 2}", "{'url': 'https://a/it's?[redacted]', 'b': 2}"),
        ('"GET /it\'s.mp4?Sig=abc HTTP/1.1"', '"GET /it\'s.mp4?[redacted] HTTP/1.1"'),
        ("https://o'hara:p'ss@host/x", "https://host/x"),
        ("https://user:pass@host/x", "https://host/x"),
        ("https://user:p@ss@host/x", "https://host/x"),
        ("redis://:secret@host:6379/0", "redis://host:6379/0"),
        ('"GET /files/v.mp4?Expires=1&Sig=abc HTTP/1.1"', '"GET /files/v.mp4?[redacted] HTTP/1.1"'),
        ("either/or? perhaps", "either/or? perhaps"),
        ("and/or?", "and/or?"),
        ("what? a=b", "what? a=b"),
        ("mail me at user@example.com", "mail me at user@example.com"),
    ],
)  # fmt: skip
def test_secrets_are_taken_out_of_a_text_and_the_rest_stays(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_without_a_key_nothing_is_taken_for_one(settings: Any) -> None:
    settings.VIDEOJOBS = {"API_KEY": ""}
    assert redact("a b") == "a b"


@given(st.text(max_size=50), st.text("abcdef0123456789", min_size=8), st.text(max_size=50))
def test_no_text_around_a_signed_url_keeps_its_query(before: str, secret: str, after: str) -> None:
    text = redact(f"{before} https://cdn.example/v.mp4?Signature=Z{secret}Z {after}")
    assert f"Z{secret}Z" not in text


@given(st.text())
def test_redacting_twice_is_redacting_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two \n lines\r\n", "two lines"),
        ("a\x00b", "a b"),
        ("a\ud800b", "a b"),
        ("a\u202eb\u2066c", "a b c"),
        ("a\u2028b\u2029c", "a b c"),
        ("\x1b[31mred", "[31mred"),
        ("grüße 日本 🎬", "grüße 日本 🎬"),
        ("", ""),
    ],
)
def test_a_cleaned_text_is_one_printable_line(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_a_long_text_is_truncated_with_an_ellipsis() -> None:
    assert clean("x" * 11, limit=10) == "x" * 9 + "…"


def test_a_text_of_just_the_limit_is_whole() -> None:
    assert clean("x" * 10, limit=10) == "x" * 10


def test_no_half_of_a_key_is_left_where_a_text_is_cut() -> None:
    for size in range(2000 - 2 * len(KEY), 2000 + len(KEY)):
        assert KEY[:4] not in clean("x" * size + KEY)
    # Blanks are removed after the truncation, so that its position moves to the front.
    for size in range(20_000 - len(KEY), 20_000 + 1):
        assert KEY[:4] not in clean(" " * size + KEY)


@given(st.text(), st.integers(1, 50))
def test_a_cleaned_text_can_be_stored_and_shown_anywhere(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert len(cleaned) <= limit
    cleaned.encode()
    assert not {unicodedata.category(c) for c in cleaned} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    "piece",
    [
        "/",
        "http://",
        "http://a",
        "/?",
        "?",
        "#",
        "x",
        "://",
        "@",
        "http://@",
        " ",
        "/a?b=c ",
        "a'?",
    ],
)
def test_no_text_takes_longer_than_its_length_deserves(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    started = time.process_time()
    clean(text)
    assert time.process_time() - started < 0.5


def formatted(**kwargs: Any) -> str:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, **{"exc_info": None, **kwargs})
    return RedactingFormatter("%(message)s").format(record)


def test_a_log_line_holds_neither_key_nor_signed_query() -> None:
    line = formatted(msg="%s with %s", args=("https://a.example/v?Sig=abc", KEY))
    assert line == "https://a.example/v?[redacted] with [key]"


def test_a_logged_traceback_holds_neither_key_nor_signed_query() -> None:
    try:
        raise ValueError(f"https://a.example/v?Sig=abc {KEY}")
    except ValueError as error:
        line = formatted(msg="failed", args=(), exc_info=(type(error), error, error.__traceback__))
    assert "ValueError: https://a.example/v?[redacted] [key]" in line
    assert KEY not in line


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://user:secret@cdn.example.com:8443/v.mp4?sig=secret#x", "cdn.example.com"),
        ("", ""),
        ("not a url", ""),
        ("https://[::1", ""),
    ],
)
def test_only_the_host_of_a_url_is_shown(url: str, name: str) -> None:
    assert host(url) == name
