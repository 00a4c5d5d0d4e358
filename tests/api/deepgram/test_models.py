from __future__ import annotations

import pytest

from whisper_serve.api.deepgram.models import chosen_model
from whisper_serve.api.models import ServedModels
from whisper_serve.config import Config, DeepgramConfig
from whisper_serve.errors import ModelNotFound

DEFAULTS = DeepgramConfig().model_names
SERVED = ServedModels(Config.model_validate({"model": {"size": "base"}, "models": ["large-v3"]}))


@pytest.mark.parametrize(
    "name",
    ["", "base", "whisper-base", "nova-3", "nova-2-phonecall", "Nova-3", "enhanced", "whisper"],
)
def test_these_names_stand_for_the_default_model(name: str) -> None:
    assert chosen_model(name, SERVED, DEFAULTS) == ""


@pytest.mark.parametrize("name", ["large-v3", "whisper-large-v3", "whisper-large", "large"])
def test_a_served_model_has_its_own_name_with_or_without_that_of_whisper(name: str) -> None:
    assert chosen_model(name, SERVED, DEFAULTS) == "large-v3"


def test_a_served_model_s_own_name_counts_before_a_pattern() -> None:
    assert chosen_model("large-v3", SERVED, ["large*"]) == "large-v3"
    assert chosen_model("large-v2", SERVED, ["large*"]) == ""


@pytest.mark.parametrize("name", ["whisper-small", "small", "whisper-", "flux-general-en", "*"])
def test_any_other_name_is_refused_and_what_is_served_is_told(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        chosen_model(name, SERVED, DEFAULTS)
    assert caught.value.name == name
    assert caught.value.served == ("base", "large-v3")
