from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whisper_serve.config import Config
from whisper_serve.engines.build import EngineOptions
from whisper_serve.serving.app import (
    ASR_ONGOING_BEYOND_QUEUE,
    engine_options,
    further_options,
    most_requests,
)
from whisper_serve.serving.models import Choice, most_windows
from whisper_serve.serving.plan import Node, make_plan


def configured(**settings: Any) -> Config:
    return Config.model_validate(settings)


def options_with(gpus: float = 0.0, **settings: Any) -> EngineOptions:
    config = configured(**settings)
    return engine_options(config, make_plan(config, [Node(cpus=8, gpus=gpus)]))


def test_a_further_model_differs_in_its_weights_only() -> None:
    config = configured(models=["turbo", "/models/tuned.pt"])
    plan = make_plan(config, [Node(cpus=8)])
    default = engine_options(config, plan)
    assert further_options(config, plan) == {
        "large-v3-turbo": replace(default, model="turbo"),
        "tuned": replace(default, model="/models/tuned.pt"),
    }


@pytest.mark.parametrize(
    ("models", "at_once", "share"),
    [([], 1, 1.0), (["tiny"], 1, 1 / 2), (["tiny", "small"], 1, 1 / 2), (["tiny"], 7, 1 / 2)],
)
def test_models_that_may_be_there_at_once_share_the_gpu(
    models: list[str], at_once: int, share: float
) -> None:
    deployment = {"further_models": at_once}
    assert options_with(gpus=1, models=models, deployment=deployment).device_share == share


def test_serve_lets_through_what_the_engines_can_hold() -> None:
    options = options_with(deployment={"max_queued_windows": 7})
    most = most_windows(options)
    assert most == 3 * 7 + options.workers * options.rows
    assert most_requests(options, Choice()) == most + ASR_ONGOING_BEYOND_QUEUE
    # Each of two and the default one, and one that leaves while it is asked for again.
    two = Choice(dict.fromkeys(["tiny", "small"], options))
    assert most_requests(options, two) == 4 * most + ASR_ONGOING_BEYOND_QUEUE
