from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from faster_whisper.audio import decode_audio

from whisper_serve.engines.base import DecodeTask, Engine, Samples
from whisper_serve.engines.build import EngineOptions, build_engine, fetch_weights
from whisper_serve.errors import ConfigError, UnknownModel, WeightsUnavailable


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def options(
    model: Path | str,
    engine: str = "ctranslate2",
    *,
    compute_type: str = "int8",
    workers: int = 1,
    threads: int = 1,
    model_dir: Path = Path("nowhere"),
) -> EngineOptions:
    return EngineOptions(
        model=str(model),
        model_dir=model_dir,
        sources=("model_dir",),
        engine=engine,
        device="cpu",
        compute_type=compute_type,
        workers=workers,
        max_queued=4,
        threads_per_worker=threads,
    )


def samples_of(path: Path) -> Samples:
    samples: Samples = (decode_audio(str(path)) * 32768.0).astype(np.int16)
    return samples


def words_of(engine: Engine, task: DecodeTask) -> list[str]:
    try:
        return [word.text for word in engine.submit(task).result(60).words]
    finally:
        engine.close()


def test_torch_loads_a_checkpoint_and_ctranslate2_a_folder() -> None:
    assert options("base", "torch").weights_kind == "openai"
    assert options("base", "ctranslate2").weights_kind == "ctranslate2"


def test_an_unknown_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel):
        fetch_weights(options("no such model", model_dir=tmp_path), progress=False)


def test_weights_that_are_nowhere_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable):
        build_engine(options("base", model_dir=tmp_path))


@pytest.mark.weights
def test_ctranslate2_decodes_on_one_thread_a_worker(tiny_ctranslate2: Path, sample: Path) -> None:
    torch.set_num_threads(2)
    engine = build_engine(options(tiny_ctranslate2, workers=2))
    info = engine.info
    # The name is the folder's.
    assert (info.engine, info.model, info.device) == ("ctranslate2", "tiny.en", "cpu")
    assert info.compute_type.startswith("int8")
    assert "tried" in "".join(words_of(engine, DecodeTask(samples_of(sample))))
    assert threads_elsewhere() == 1


@pytest.mark.weights
def test_an_engine_answers_many_windows_at_once(tiny_ctranslate2: Path, sample: Path) -> None:
    engine = build_engine(options(tiny_ctranslate2, workers=2))
    samples = samples_of(sample)
    try:
        futures = [
            engine.submit(DecodeTask(samples[: seconds * 16_000], want_words=False))
            for seconds in (5, 5, 6, 10)
        ]
        texts = [future.result(60).text.lower() for future in futures]
    finally:
        engine.close()
    assert all("tried" in text for text in texts)
    assert len(texts[-1]) > len(texts[0])


@pytest.mark.weights
def test_torch_decodes_on_the_threads_that_it_is_given(tiny_openai: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    engine = build_engine(
        options(tiny_openai, "torch", compute_type="float32", threads=2, model_dir=tmp_path)
    )
    engine.close()
    assert (engine.info.engine, engine.info.compute_type) == ("torch", "float32")
    assert threads_elsewhere() == 2


@pytest.mark.weights
def test_torch_reads_the_folder_of_ctranslate2_too(
    tiny_ctranslate2: Path, sample: Path, tmp_path: Path
) -> None:
    engine = build_engine(
        options(tiny_ctranslate2, "torch", compute_type="float32", model_dir=tmp_path)
    )
    assert "tried" in "".join(words_of(engine, DecodeTask(samples_of(sample))))


@pytest.mark.weights
def test_a_compute_type_that_the_machine_lacks_is_named(tiny_ctranslate2: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.compute_type: 'float16' is not allowed"):
        build_engine(options(tiny_ctranslate2, compute_type="float16"))


def threads_elsewhere() -> int:
    """How many threads torch computes on in a thread that starts now."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]
