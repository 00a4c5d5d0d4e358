from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import Any

import pytest

from loadtest.settings import HOST, Settings, _json_object, _positive, _share, _steps, _whole
from whisper_serve.errors import InvalidParameter

OPTIONS = {
    "corpus": "",
    "seconds": 60.0,
    "recordings": 0,
    "language": "",
    "model": "",
    "openai_model": "whisper-1",
    "final_only": False,
    "stream_config": "{}",
    "key": "",
    "ca_file": "",
    "patience": 120.0,
    "last_words": 60.0,
    "steps": "",
    "step_time": 120.0,
    "run_time": None,
}


def settings(host: str | None = None, **options: Any) -> Settings:
    return Settings.of(Namespace(**{**OPTIONS, **options}), host)


def test_without_a_word_a_user_of_this_machine_says_one_recording() -> None:
    assert settings().access.url == HOST
    assert settings().recordings == 1


@pytest.mark.parametrize("endless", [{"run_time": 60}, {"steps": "5,10"}])
def test_where_the_time_decides_a_user_says_as_many_as_fit(endless: dict[str, Any]) -> None:
    assert settings(**endless).recordings == 0
    assert settings(**endless, recordings=3).recordings == 3


def test_a_key_is_shown_and_one_of_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHISPER_SERVE_API_KEY", "of-the-environment")
    assert settings(key="given").access.headers == {"authorization": "Bearer given"}
    assert settings().access.headers == {"authorization": "Bearer of-the-environment"}


def test_settings_of_a_stream_are_joined() -> None:
    given = settings(model="base", final_only=True, stream_config='{"policy": "agreement"}')
    assert given.stream_config == {"interim": False, "model": "base", "policy": "agreement"}


def test_steps_are_numbers_of_users() -> None:
    assert settings(steps="5,10,20").steps == (5, 10, 20)


@pytest.mark.parametrize(
    ("host", "options", "named"),
    [
        ("127.0.0.1:8000", {}, "base_url"),
        ("http://127.0.0.1:8000", {"ca_file": "ca.pem"}, "ca_file"),
        (None, {"seconds": 0.01}, "seconds"),
        (None, {"key": "a b"}, "api_key"),
    ],
)
def test_what_is_wrong_is_named(host: str | None, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidParameter, match=named):
        settings(host, **options)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (_positive, "0"),
        (_positive, "inf"),
        (_share, "1.5"),
        (_share, "many"),
        (_whole, "-1"),
        (_steps, "5,0"),
        (_steps, "5;10"),
        (_json_object, "[]"),
        (_json_object, "{"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_what_is_wanted(check: Any, wrong: str) -> None:
    with pytest.raises(ArgumentTypeError, match="wanted, not"):
        check(wrong)
