from __future__ import annotations

import asyncio

import openai
import pytest
from openai import OpenAI

from tests.api.openai.service import patient, serving

SETTINGS = {"models": ["tiny.en"], "openai": {"model_names": ["whisper-1", "our/own"]}}


async def test_the_models_are_listed() -> None:
    async with serving(settings=SETTINGS) as url, patient(url) as client:
        listed = await client.models.list()
        again = await client.models.list()
    assert [model.id for model in listed.data] == ["base", "tiny.en", "whisper-1", "our/own"]
    assert {(m.object, m.owned_by) for m in listed.data} == {("model", "whisper_serve")}
    assert listed.object == "list"
    assert [model.created for model in listed.data] == [model.created for model in again.data]


@pytest.mark.parametrize("name", ["base", "tiny.en", "whisper-1", "our/own"])
async def test_a_model_is_told(name: str) -> None:
    async with serving(settings=SETTINGS) as url, patient(url) as client:
        assert (await client.models.retrieve(name)).id == name


@pytest.mark.parametrize("name", ["large-v3", "gpt-4o/x", "whisper-2", "%2e%2e"])
async def test_an_unknown_model_is_not_found(name: str) -> None:
    async with serving(settings=SETTINGS) as url, patient(url) as client:
        with pytest.raises(openai.NotFoundError) as raised:
            await client.models.retrieve(name)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


async def test_the_other_client_sees_the_same() -> None:
    def names(url: str) -> list[str]:
        with OpenAI(api_key="any", base_url=url, max_retries=0) as client:
            return [model.id for model in client.models.list()]

    async with serving() as url:
        assert await asyncio.to_thread(names, url) == ["base", "whisper-1"]
