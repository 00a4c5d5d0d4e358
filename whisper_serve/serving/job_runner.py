"""What runs in a job runner's replica: the loop of `jobs/runner.py`, and nothing that is asked
from outside but to look for work."""

from __future__ import annotations

import asyncio
import logging

from ray.serve.handle import DeploymentHandle

from whisper_serve.api.auth.bill import Bill, utc_now
from whisper_serve.api.auth.usage import CountsAudio
from whisper_serve.api.auth.watched_keys import WatchedKeys
from whisper_serve.api.measuring import MeasuredPort, MeasuredTranscriber
from whisper_serve.api.models import ServedModels
from whisper_serve.api.routes.transcribe import options_of
from whisper_serve.api.schemas import TranscribeParameters
from whisper_serve.audio.isolation import IsolatedDecoder
from whisper_serve.audio.silero import SileroVad
from whisper_serve.config import AuthConfig, Config
from whisper_serve.errors import ConfigError, ConfigProblem, StorageUnavailable
from whisper_serve.jobs.job import Job
from whisper_serve.jobs.runner import Runner, free_of_charge
from whisper_serve.observability.exporting import start_exporting
from whisper_serve.observability.exposition import Snapshot
from whisper_serve.observability.logs import configure_logging
from whisper_serve.pipeline import TranscribeOptions
from whisper_serve.serving.client import ReplicaClient
from whisper_serve.serving.memory import FreedMemory, MemoryGuard
from whisper_serve.serving.metrics import ReplicaMetrics, breakers_of
from whisper_serve.storage.database import Database
from whisper_serve.storage.usage import UsageTable

logger = logging.getLogger(__name__)


class JobRunner:
    """Works on jobs for as long as the replica lives. One that Serve stops gives its jobs back."""

    def __init__(self, config: Config, asr: DeploymentHandle) -> None:
        assert config.jobs.database is not None
        configure_logging(config.logging, "jobs")
        self._exporting = start_exporting(config.tracing, "jobs")
        SileroVad()  # loads the network now rather than in the first job
        self._memory = MemoryGuard(config.deployment.max_replica_memory_gib)
        self._freed = FreedMemory()
        self._measured = ReplicaMetrics(config.metrics, config.deployment.max_replica_memory_gib)
        self._models = ServedModels(config)
        self._database = Database(config.jobs.database)
        usage = UsageTable(self._database)
        self._runner = Runner(
            self._database,
            config,
            self._transcriber(config, asr),
            self._options_of,
            metrics=self._measured.metrics,
            charge=free_of_charge if config.auth.open else JobCharges(config.auth, usage).charge,
        )
        self._working = asyncio.create_task(self._runner.run())

    async def nudge(self) -> None:
        """There is a new job."""
        self._runner.nudge()

    async def check_health(self) -> None:
        """A loop that ended is a fault of ours, and Serve begins a new one."""
        if self._working.done():
            raise RuntimeError("the job runner has ended") from self._working.exception()
        await self._freed.give_back()
        self._memory.check()

    async def snapshot(self) -> Snapshot:
        """What this replica measured, for an ingress that gathers it."""
        return await self._measured.snapshot()

    async def __del__(self) -> None:
        """Serve awaits this before it ends the replica."""
        self._working.cancel()
        await asyncio.wait([self._working])
        await self._database.close()
        if self._exporting is not None:
            self._exporting.close()

    def _transcriber(self, config: Config, asr: DeploymentHandle) -> MeasuredTranscriber:
        metrics = self._measured.metrics
        client = ReplicaClient(asr)
        metrics.read(breakers_of(client.breakers))
        decoder = IsolatedDecoder(timeout_s=config.limits.decode_timeout_s)
        decoder.warm_up()
        port = MeasuredPort(client, metrics)
        return MeasuredTranscriber(port, config, decoder, metrics=metrics, kind="job")

    def _options_of(self, job: Job) -> TranscribeOptions:
        """Raises `ModelNotFound` when the model is not served any more."""
        parameters = TranscribeParameters.model_validate(job.parameters)
        return options_of(parameters, self._models.resolve(parameters.model), job.request_id)


class JobCharges:
    """Takes the audio of jobs from their callers' seconds of the day, as that of requests is."""

    def __init__(self, auth: AuthConfig, usage: CountsAudio) -> None:
        self._keys, self._usage = WatchedKeys(auth), usage

    async def charge(self, caller: str, seconds: float) -> None:
        """Negative seconds are given back. Raises `QuotaExceeded`; the job is put off until the
        next day then."""
        holder = (await self._keys.keyring()).named(caller)
        if holder is None or holder.daily_audio_s is None:
            return
        if seconds < 0:
            await self._usage.add(caller, utc_now().date().isoformat(), seconds)
        else:
            await Bill(holder, self._usage).charge(seconds)


def require_storage(config: Config, machines: int) -> None:
    """Raises `ConfigError` when jobs cannot be kept as configured on so many machines. A server
    that is away may come back: that is told in the log."""
    place = config.jobs.database
    if place is None:
        return
    if "://" not in place and machines > 1:
        reason = f"a file cannot be shared by {machines} machines: give postgresql://... or null"
        raise ConfigError("jobs", [ConfigProblem("jobs.database", place, reason)])
    try:
        asyncio.run(_prepare(place))
    except StorageUnavailable as exc:
        logger.warning("the database of jobs cannot be reached yet: %s", exc.detail)


async def _prepare(place: str) -> None:
    database = Database(place)
    try:
        await database.prepare()
    finally:
        await database.close()
