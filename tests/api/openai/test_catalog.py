from __future__ import annotations

import pytest

from tests.api.fakes import FakeEngines, FakePort
from whisper_serve.api.openai.catalog import Catalog
from whisper_serve.api.services import Services
from whisper_serve.config import Config
from whisper_serve.errors import ModelNotFound
from whisper_serve.pipeline import Transcriber


def catalog(*stand_ins: str, models: tuple[str, ...] = ("tiny.en",)) -> Catalog:
    config = Config.model_validate({"models": models, "openai": {"model_names": stand_ins}})
    port = FakePort()
    return Catalog(Services(config, Transcriber(port, config), port, FakeEngines(), "key"))


def test_all_names_are_told_once_the_default_one_first() -> None:
    assert catalog("whisper-1", "tiny.en").names == ("base", "tiny.en", "whisper-1")


def test_a_stand_in_is_the_default_model() -> None:
    assert catalog("whisper-1").resolve("whisper-1") == ""
    assert catalog("whisper-1").resolve(" whisper-1 ") == ""


def test_a_served_model_is_itself_though_a_stand_in_has_its_name() -> None:
    assert catalog("tiny.en").resolve("tiny.en") == "tiny.en"
    assert catalog().resolve("base") == ""


def test_an_unknown_name_is_told_with_all_that_are_known() -> None:
    with pytest.raises(ModelNotFound) as raised:
        catalog("whisper-1").resolve("gpt-9")
    assert raised.value.name == "gpt-9"
    assert raised.value.served == ("base", "tiny.en", "whisper-1")
