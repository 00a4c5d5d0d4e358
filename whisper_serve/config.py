"""The configuration: one frozen model of `config.json`.

Each setting is documented where it is declared; `docs/config.md` lists the same settings and
a test holds the two together.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from whisper_serve.audio.containers import canonical_format
from whisper_serve.engines.catalog import known_model

EngineName = Literal["auto", "ctranslate2", "torch"]
ComputeType = Literal["auto", "float32", "float16", "bfloat16", "int8", "int8_float16"]
Device = Literal["auto", "cpu", "cuda"]
Source = Literal["model_dir", "official", "registry"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogCategory = Literal["access", "error", "performance", "audit"]
# What a format string may say of a line beside the attributes that Python gives it.
LINE_CONTEXT = ("request_id", "session_id", "caller", "trace_id", "span_id")
KeyScope = Literal["transcribe", "stream", "jobs", "admin"]
# As browsers write one. Source: RFC 6454, section 6.2.
ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]+")
# Whom callers without a key are told from.
NOT_NAMES = ("anyone", "nobody")


class Section(BaseModel):
    """Base of all sections: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ServerConfig(Section):
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="TCP port to listen on.")
    dedicated_cpu: bool = Field(
        False,
        description="Set `num_cpus` CPUs aside for the HTTP front, which engines then leave free.",
    )
    num_cpus: float = Field(
        1.0, gt=0, description="CPUs set aside for the HTTP front when `dedicated_cpu` is true."
    )
    ray_address: str | None = Field(
        None,
        description="Ray cluster to join, as `ray.init(address=...)` takes it; "
        "null starts Ray on this machine.",
    )
    tls_cert: Path | None = Field(
        None,
        description="PEM file with the certificate and those that it rests on, relative to the "
        "config file; with it the service speaks HTTPS and WSS only.",
    )
    tls_key: Path | None = Field(
        None, description="PEM file with the key of `tls_cert`, not encrypted."
    )
    drain_timeout_s: float = Field(
        30.0,
        ge=0,
        description="How long what is under way may go on once the service is told to stop; then "
        "streams are settled and closed, 1001, and requests get 503.",
    )
    handover_timeout_s: float = Field(
        3600.0,
        ge=0,
        description="How long streams and requests may go on in an ingress replica that is taken "
        "away while the service runs on: when there are to be fewer, or for a new version.",
    )
    allowed_origins: tuple[str, ...] = Field(
        (),
        description="Other web pages' origins, such as `https://app.example.org`, from which "
        "browsers may use the service; `*` is any.",
    )

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [origin for origin in origins if origin != "*" and not ORIGIN.fullmatch(origin)]
        if wrong:
            shown = ", ".join(map(repr, wrong))
            raise ValueError(f"no origin is like {shown}: scheme, host and port, nothing behind")
        return origins

    @model_validator(mode="after")
    def _tls_is_whole(self) -> ServerConfig:
        if (self.tls_cert is None) != (self.tls_key is None):
            missing, other = ("tls_cert", "tls_key") if self.tls_key else ("tls_key", "tls_cert")
            raise ValueError(f"{missing}: it is needed when {other} is set")
        return self


class ModelConfig(Section):
    size: str = Field(
        "base",
        min_length=1,
        description="Name of a Whisper model, or path to a checkpoint or CTranslate2 folder, "
        "relative to the config file.",
    )
    device: Device = Field("auto", description="`auto` takes CUDA where there is one.")
    engine: EngineName = Field(
        "auto", description="`auto` takes `torch` on CUDA and `ctranslate2` on a CPU."
    )
    compute_type: ComputeType = Field(
        "auto",
        description="`auto`: int8 for ctranslate2 and float32 for torch on a CPU, float16 on CUDA.",
    )
    beam_size: int = Field(
        5,
        ge=1,
        le=10,
        description="Alternatives that are kept while a file's window is decoded; 1 is greedy, "
        "faster and a little less accurate.",
    )
    model_dir: Path = Field(
        Path("models"), description="Folder of the weights; relative to the config file."
    )
    sources: tuple[Source, ...] = Field(
        ("model_dir", "official", "registry"),
        min_length=1,
        description="Where weights are looked for, in this order.",
    )
    padding_s: float | None = Field(
        3.0,
        ge=1.0,
        le=30.0,
        description="Silence behind a window's audio in its first decode, at least; one with a "
        "suspicious outcome is padded to 30 s, as Whisper was trained. So are all with null, "
        "slower by half and more, and final text of streams while there is time for it.",
    )
    supported_formats: tuple[str, ...] = Field(
        (".wav", ".mp3", ".m4a", ".mp4", ".ogg", ".flac", ".webm", ".aac", ".aiff"),
        min_length=1,
        description="Formats that are accepted; a file is judged by its content.",
    )

    @field_validator("supported_formats")
    @classmethod
    def _known_formats(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(canonical_format(name) for name in formats))

    @model_validator(mode="after")
    def _engine_can_compute(self) -> ModelConfig:
        if self.engine == "torch" and self.compute_type.startswith("int8"):
            raise ValueError("compute_type: engine 'torch' knows float32, float16 and bfloat16")
        if self.device == "cpu" and self.compute_type in {"float16", "bfloat16", "int8_float16"}:
            raise ValueError("compute_type: device 'cpu' computes in float32 or int8")
        return self


class DeploymentConfig(Section):
    num_replicas: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Engine replicas. `auto`: one per share of a GPU, or on CPUs one that "
        "uses all of them.",
    )
    cpu_per_replica: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="CPUs of one replica, for Ray's accounting and for decoding: as many windows "
        "side by side with ctranslate2, as many threads with torch. `auto`: an equal share of "
        "the machine.",
    )
    gpu_per_replica: float = Field(
        1.0, ge=0, description="GPUs of one replica, a fraction or whole; 0 without CUDA."
    )
    max_queued_windows: int = Field(
        256,
        ge=1,
        description="Windows that may wait in one replica, for files, live text and partials "
        "each; more are refused with 503.",
    )
    batch_windows: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = Field(
        "auto",
        description="Windows that are decoded together. `auto`: 8 on a CPU, on a GPU as many as "
        "its memory holds, at most 64.",
    )
    further_models: int = Field(
        1,
        ge=1,
        description="How many of `models` a replica holds at once, beside `model.size`; for "
        "another one the least recently used leaves.",
    )
    health_check_period_s: float = Field(
        5.0, gt=0, description="How often Ray Serve looks after a replica."
    )
    max_replica_memory_gib: float | None = Field(
        None,
        gt=0,
        description="Resident memory of one replica's process, of any kind; Ray Serve replaces a "
        "replica that has more. null: as much as there is. See `docs/reliability.md`.",
    )
    replicas_per_machine: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Replicas of one kind (engine, ingress, job runner) that may run on one "
        "machine, so that with 1 its death takes one of each; null: as many as fit. Those that "
        "find no machine wait for one.",
    )

    @field_validator("gpu_per_replica")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and not gpus.is_integer():
            raise ValueError("above 1 it must be a whole number")
        return gpus


def _in_order(bounds: tuple[int, int]) -> tuple[int, int]:
    least, most = bounds
    if least > most:
        raise ValueError(f"the first is the least and must not be above the second, {most}")
    return bounds


AtLeastOne = Annotated[int, Field(ge=1)]
# The least and the most; equal numbers are a fixed one.
Replicas = Annotated[tuple[AtLeastOne, AtLeastOne], AfterValidator(_in_order)]


class AutoscalingConfig(Section):
    ingress_replicas: Replicas = Field(
        (1, 1),
        description="HTTP and WebSocket processes: the least and the most; equal numbers are a "
        "fixed one.",
    )
    streams_per_ingress: float = Field(
        24.0,
        gt=0,
        description="Live streams that each of them is to hold; there are as many of them as this "
        "asks for.",
    )
    engine_replicas: Replicas | None = Field(
        None,
        description="Engine replicas: the least and the most. `deployment.num_replicas` stays "
        "`auto` then; null: as many as that says.",
    )
    waiting_audio_s: float = Field(
        5.0,
        gt=0,
        description="Audio that waits for an engine, in seconds a replica, from which there are "
        "to be more of them.",
    )
    upscale_delay_s: float = Field(
        5.0, ge=0, description="How long there has to be reason for more replicas."
    )
    downscale_delay_s: float = Field(
        300.0, ge=0, description="How long there has to be reason for fewer."
    )


class ChunkingConfig(Section):
    chunk_duration: float = Field(
        30.0, ge=5.0, le=30.0, description="Length of a window of a file in seconds."
    )
    overlap: float = Field(
        1.0,
        ge=0.2,
        description="Seconds at a window's end that are not trusted when it had to be cut "
        "within speech; the next window hears them again.",
    )
    use_context: bool = Field(
        True,
        description="Give each window the text before it as a prompt, which makes windows of "
        "one file wait for each other; a request can choose otherwise.",
    )

    @model_validator(mode="after")
    def _overlap_fits(self) -> ChunkingConfig:
        if self.overlap >= self.chunk_duration / 2:
            half = f"{self.chunk_duration / 2:g}"
            raise ValueError(f"overlap: must be less than half of chunk_duration, which is {half}")
        return self


class StreamingConfig(Section):
    max_sessions: int = Field(
        64, ge=1, description="Streams that one ingress replica holds; more are refused with 503."
    )
    max_sessions_per_client: int = Field(
        32, ge=1, description="Streams of one client, told by its address; more get 429."
    )
    idle_timeout_s: float = Field(
        60.0, gt=0, description="A stream from which nothing comes for so long is closed, 4408."
    )
    max_backlog_s: float = Field(
        120.0,
        ge=60.0,
        description="Audio of one stream that may wait to be settled; a stream with more is "
        "closed, 4429.",
    )
    pace: Literal["any", "realtime"] = Field(
        "any",
        description="`realtime` closes a stream, 4429, whose audio runs ahead of the clock by "
        "more than `max_ahead_s`; `any` takes files as fast as engines are.",
    )
    max_ahead_s: float = Field(
        10.0, gt=0, description="How far audio may run ahead of the clock when `pace` is realtime."
    )
    reach_s: float = Field(
        20.0,
        ge=0,
        le=20,
        description="How far a window reaches back over final text, which its decode is forced "
        "to begin with; less is faster and less accurate.",
    )
    beam_size: int = Field(
        5, ge=1, le=10, description="As `model.beam_size`, for final text; partials are greedy."
    )
    target_answer_s: float | None = Field(
        1.5,
        gt=0,
        description="A stream whose answers take longer, because the engines have much to do, "
        "reaches back less and is decoded greedily until they come in time; null: never.",
    )
    max_answer_s: float | None = Field(
        2.0,
        gt=0,
        description="New streams are refused with 503 while more than a twentieth of the answers "
        "to final windows take longer, so that streams that were admitted keep their delay; null: "
        "never.",
    )
    window_timeout_s: float = Field(
        30.0, gt=0, description="Longest time for one window, waiting included."
    )


class VadConfig(Section):
    threshold: float = Field(
        0.5, gt=0, lt=1, description="Speech probability from which audio counts as speech."
    )
    min_speech_s: float = Field(0.1, ge=0, description="Shorter sounds are not taken for speech.")
    max_pause_s: float = Field(
        2.0,
        gt=0,
        description="Longer pauses, padding not counted, are cut out before decoding; times "
        "stay true.",
    )
    padding_s: float = Field(
        0.1, ge=0, description="Audio that is kept around speech when a pause is cut out."
    )


class LimitsConfig(Section):
    max_upload_bytes: int = Field(
        200 * 2**20, ge=1, description="Largest request body; more is refused with 413."
    )
    upload_timeout_s: float = Field(
        1800.0,
        gt=0,
        description="Longest time for a request's body to come; then it is refused with 408, as is "
        "one of which less than 1 KiB a second comes.",
    )
    max_audio_s: float = Field(
        2 * 3600.0, gt=0, description="Longest recording; more is refused with 413."
    )
    decode_timeout_s: float = Field(
        120.0,
        gt=0,
        description="Longest time for unpacking a file; one that takes longer is refused with 413.",
    )
    request_timeout_s: float = Field(
        3600.0, gt=0, description="Longest time for one request; then it fails with 504."
    )
    window_timeout_s: float = Field(
        120.0, gt=0, description="Longest time for one window in an engine, waiting included."
    )
    max_waiting_audio_s: float | None = Field(
        1800.0,
        gt=0,
        description="Audio that may wait in an engine; while more does, files are refused with "
        "503 before they are read. null: only the length of its queue counts.",
    )
    max_windows_per_file: int = Field(
        4, ge=1, description="Windows of one file that are decoded at once without context."
    )
    max_decoding_files: int = Field(
        4, ge=1, description="Uploads that one ingress replica unpacks at once."
    )


class OpenAIConfig(Section):
    model_names: tuple[str, ...] = Field(
        ("whisper-1",),
        description="Names that stand for the default model at `/v1/audio` and `/v1/realtime`.",
    )
    max_file_bytes: int = Field(
        25 * 2**20,
        ge=1,
        description="Largest file at `/v1/audio`; more is refused with 413.",
    )
    idle_timeout_s: float = Field(
        600.0,
        gt=0,
        description="A stream at `/v1/realtime` from which nothing comes for so long is closed.",
    )


class DeepgramConfig(Section):
    model_names: tuple[str, ...] = Field(
        ("nova*", "enhanced*", "whisper", "whisper-cloud"),
        description="Names that stand for the default model at `/v1/listen`; `*` is anything.",
    )
    idle_timeout_s: float = Field(
        10.0,
        gt=0,
        description="A stream at `/v1/listen` from which neither audio nor KeepAlive comes for "
        "so long is closed, 1011.",
    )


class JobsConfig(Section):
    database: str | None = Field(
        "whisper_jobs.sqlite3",
        min_length=1,
        description="Where jobs, their audio and their results are kept: an SQLite file, relative "
        "to the config file, or `postgresql://...`, which several machines can share; null: "
        "there are no jobs.",
    )
    runners: int = Field(1, ge=1, description="Processes that work on jobs.")
    at_once: int = Field(2, ge=1, description="Jobs that one of them works on at once.")
    max_queued: int = Field(1000, ge=1, description="Jobs that may wait; more get 503.")
    max_stored_bytes: int = Field(
        20 * 2**30,
        ge=1,
        description="Audio that may be kept for jobs, all together; beyond it uploads get 503.",
    )
    max_attempts: int = Field(
        3, ge=1, description="How often a job is begun before it counts as failed."
    )
    lease_s: float = Field(
        30.0,
        ge=1.0,
        description="How long after the last sign of life of its process a job is begun anew.",
    )
    keep_results_s: float = Field(
        7 * 86400.0, gt=0, description="How long a job is kept after its end, with its result."
    )
    url_hosts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        description="Hosts from which audio may be fetched by its URL, as `media.example.com` or "
        "`*.example.com`; `*` is any. Only public addresses are ever asked.",
    )
    webhook_hosts: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), description="Hosts to which webhooks may be sent, in the same way; none: no webhooks."
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="What webhooks are signed with: `whsec_` and 24 to 64 bytes as base64. "
        "Needed when there are `webhook_hosts`.",
    )
    webhook_attempts: int = Field(
        8, ge=1, description="How often a webhook is sent until somebody takes it."
    )

    @field_validator("database")
    @classmethod
    def _known_database(cls, database: str | None) -> str | None:
        scheme, is_url, _ = (database or "").partition("://")
        if is_url and scheme not in {"postgresql", "postgres"}:
            raise ValueError(f"{scheme} is not known: give the path of a file or postgresql://...")
        return database

    @field_validator("webhook_secret")
    @classmethod
    def _can_sign(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and not is_webhook_secret(secret.get_secret_value()):
            raise ValueError("it must be `whsec_` and 24 to 64 bytes as base64")
        return secret

    @model_validator(mode="after")
    def _signs_webhooks(self) -> JobsConfig:
        if self.webhook_hosts and self.webhook_secret is None:
            raise ValueError("webhook_secret: webhooks have to be signed with something")
        return self


class LoggingConfig(Section):
    level: LogLevel = Field("INFO", description="Least severe level that is logged.")
    format: str = Field(
        "text",
        description="`text`, `json`, or a format string of Python's logging module.",
    )
    file: Path | None = Field(
        Path("whisper_service.log"),
        description="Log file, relative to the config file; null logs to the console only. "
        "Each process writes its own, with its name before the suffix.",
    )
    categories: tuple[LogCategory, ...] = Field(
        ("access", "error", "performance", "audit"),
        description="Kinds of lines with a file of their own beside it; the others are in the "
        "log file. `error` has the errors of all kinds once more.",
    )
    rotate: Literal["size", "daily"] = Field(
        "size", description="A file is put aside at `max_bytes`, or at midnight UTC."
    )
    max_bytes: int = Field(
        10 * 2**20, ge=1024, description="How large a file gets with `size` before it is put aside."
    )
    kept_files: int = Field(
        5,
        ge=1,
        description="Files that are kept when they were put aside, and files of a kind that are "
        "kept of processes that have ended.",
    )
    transcripts: bool = Field(
        False, description="Whether the performance log may hold what was heard."
    )

    @field_validator("format")
    @classmethod
    def _can_format(cls, style: str) -> str:
        if style in {"text", "json"}:
            return style
        record = logging.LogRecord("whisper_serve", logging.INFO, "", 0, "", (), None)
        vars(record).update(dict.fromkeys(LINE_CONTEXT, "-"))
        try:
            logging.Formatter(style).format(record)
        except (ValueError, TypeError) as exc:
            allowed = "`text`, `json` or a format string of Python's logging module"
            raise ValueError(f"it must be {allowed}: {exc}") from exc
        return style


class TracingConfig(Section):
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#]+[^\s?#]*$",
        description="Where OpenTelemetry's collector takes traces, over HTTP, such as "
        "`http://127.0.0.1:4318`; null: there are no traces.",
    )
    sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Part of the requests that are traced, unless the client has decided it.",
    )
    service_name: str = Field(
        "whisper_serve", min_length=1, description="What the service is called in traces."
    )


class MetricsConfig(Section):
    ray: bool = Field(
        True,
        description="Whether Ray's own exporter tells the metrics of `/metrics` too, with `ray_` "
        "before their names. It asks nobody for a key; no metric names a caller.",
    )


class KeyConfig(Section):
    """One key, and what its holder may do. Two keys with one name are one caller, so that a
    key can be replaced by another while both hold."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[KeyScope, ...] = ("transcribe", "stream", "jobs")
    requests_per_minute: int | None = Field(None, ge=1)
    max_streams: int | None = Field(None, ge=1)
    daily_audio_s: float | None = Field(None, gt=0)

    @field_validator("name")
    @classmethod
    def _is_nobody_else(cls, name: str) -> str:
        if name in NOT_NAMES:
            raise ValueError("it stands for callers without a key")
        return name

    @field_validator("scopes")
    @classmethod
    def _opens_something(cls, scopes: tuple[KeyScope, ...]) -> tuple[KeyScope, ...]:
        if not scopes:
            raise ValueError("a key without any opens nothing")
        return scopes


class AuthConfig(Section):
    open: bool = Field(
        False,
        description="Serve everybody without a key. For this machine, or behind something that "
        "asks for keys itself.",
    )
    keys: tuple[KeyConfig, ...] = Field(
        (),
        description="Keys by the sha256 of each, as `whisper-serve keys new` prints them.",
    )
    keys_file: Path | None = Field(
        None,
        description="JSON file with further keys, such as a mounted secret; relative to the "
        "config file, and read again when it changes.",
    )
    token_lifetime_s: int = Field(
        600,
        ge=10,
        le=86_400,
        description="How long a token of `POST /v1/tokens` holds, at most and by default.",
    )
    signing_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="Signs tokens and ephemeral keys; null: a new one at each start, so that "
        "they end with the service.",
    )
    wrong_keys_per_minute: int = Field(
        20, ge=1, description="Wrong keys from one address that get 401; further ones get 429."
    )

    @model_validator(mode="after")
    def _open_or_closed(self) -> AuthConfig:
        if self.open and (self.keys or self.keys_file):
            raise ValueError("open: nobody would need one of the keys; make it false")
        digests = Counter(key.sha256 for key in self.keys)
        twice = [key.name for key in self.keys if digests[key.sha256] > 1]
        if twice:
            raise ValueError(f"keys: one key has several entries: {', '.join(twice)}")
        return self


class Config(Section):
    """The whole configuration."""

    server: ServerConfig = ServerConfig()
    model: ModelConfig = ModelConfig()
    models: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        description="Further models that requests may choose, by name or path as `model.size`; "
        "each is loaded when it is asked for.",
    )
    deployment: DeploymentConfig = DeploymentConfig()
    autoscaling: AutoscalingConfig = AutoscalingConfig()
    chunking: ChunkingConfig = ChunkingConfig()
    streaming: StreamingConfig = StreamingConfig()
    vad: VadConfig = VadConfig()
    limits: LimitsConfig = LimitsConfig()
    openai: OpenAIConfig = OpenAIConfig()
    deepgram: DeepgramConfig = DeepgramConfig()
    jobs: JobsConfig = JobsConfig()
    auth: AuthConfig = AuthConfig()
    logging: LoggingConfig = LoggingConfig()
    tracing: TracingConfig = TracingConfig()
    metrics: MetricsConfig = MetricsConfig()

    @model_validator(mode="after")
    def _models_differ(self) -> Config:
        listings = (self.model.size, *self.models)
        names = Counter(name for listing in listings for name in model_names(listing))
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            shown = ", ".join(map(repr, twice))
            raise ValueError(f"models: with `model.size` more than one is called {shown}")
        return self

    @model_validator(mode="after")
    def _replicas_are_counted_once(self) -> Config:
        if self.autoscaling.engine_replicas and self.deployment.num_replicas != "auto":
            raise ValueError(
                "deployment.num_replicas: it must be `auto` when autoscaling.engine_replicas says "
                "how many there are"
            )
        return self

    @model_validator(mode="after")
    def _scales_before_it_refuses(self) -> Config:
        """More is asked for before what is there is full, or it never would be."""
        scaling, sessions = self.autoscaling, self.streaming.max_sessions
        grows = len(set(scaling.ingress_replicas)) > 1
        if grows and scaling.streams_per_ingress > sessions:
            raise ValueError(
                "autoscaling.streams_per_ingress: it must not be above streaming.max_sessions, "
                f"which is {sessions}"
            )
        return self


def is_webhook_secret(secret: str) -> bool:
    """Whether it is a secret as the Standard Webhooks specification has it."""
    prefix, _, encoded = secret.partition("_")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False
    return prefix == "whsec" and 24 <= len(key) <= 64


def model_names(listing: str) -> tuple[str, ...]:
    """What the model is called that `listing` names or lies at: as in the catalog, the aliases
    behind the name, or as its file or folder."""
    known = known_model(listing)
    if known is None:
        return (Path(listing).name.removesuffix(".pt"),)
    return known.name, *known.aliases
