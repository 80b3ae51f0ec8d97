"""The error catalogue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memferry import errors, retry
from memferry._native import error_codes
from memferry.errors import (
    CATALOGUE,
    MemferryError,
    NotProvenError,
    RefusedError,
    StoreError,
    TransientError,
    from_native,
)

PRODUCT = Path(errors.__file__).parent


def test_every_native_code_is_in_the_catalogue_and_says_whether_it_passes() -> None:
    for code, transient in error_codes():
        assert code in CATALOGUE
        assert isinstance(from_native(code, "text", None), TransientError) == transient


def test_codes_are_slugs_with_one_line() -> None:
    for code, meaning in CATALOGUE.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert meaning
        assert "\n" not in meaning


@pytest.mark.parametrize(
    ("kind", "code"), [(MemferryError, 3), (RefusedError, 2), (StoreError, 3), (TransientError, 3), (NotProvenError, 1)]
)
def test_exit_codes(kind: type[MemferryError], code: int) -> None:
    assert kind("io", "text").exit_code == code


def test_an_error_keeps_what_it_was_told() -> None:
    error = RefusedError("url", "no such thing", hint="try another")
    assert (error.code, str(error), error.hint) == ("url", "no such thing", "try another")
    transient = from_native("throttled", "later", 2.5)
    assert isinstance(transient, TransientError)
    assert transient.retry_after_secs == 2.5
    assert isinstance(from_native("store-missing", "gone", None), RefusedError)
    assert type(from_native("disk-full", "full", None)) is StoreError


def test_a_store_is_asked_again_however_long_it_asks_to_wait() -> None:
    waits = {asked: retry._wait(TransientError("throttled", "later", retry_after_secs=asked)) for asked in (2.5, 1e9)}
    assert waits == {2.5: 2.5, 1e9: retry.LONGEST_WAIT_SECS}
    assert retry._wait(TransientError("unavailable", "away")) is True
    assert retry._wait(StoreError("refused", "no")) is False


def test_a_code_outside_the_catalogue_is_seen() -> None:
    assert "unlisted error code nonsense" in str(MemferryError("nonsense", "text"))


def test_every_code_that_is_raised_is_listed() -> None:
    raised = re.compile(r"\b(?:MemferryError|RefusedError|StoreError|TransientError|NotProvenError)\(\s*\"([^\"]*)\"")
    found = {code for path in PRODUCT.rglob("*.py") for code in raised.findall(path.read_text("utf-8"))}
    assert len(found) > 8
    assert found <= set(CATALOGUE)


def test_every_code_that_is_listed_is_raised() -> None:
    text = "\n".join(path.read_text("utf-8") for path in PRODUCT.rglob("*.py") if path.name != "errors.py")
    native = {code for code, _ in error_codes()}
    unused = {code for code in set(CATALOGUE) - native if f'"{code}"' not in text}
    assert unused == set(), "codes that nothing raises"
