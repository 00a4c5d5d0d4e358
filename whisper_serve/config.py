"""The configuration: one frozen model of `config.json`.

Each setting is documented where it is declared; `docs/config.md` lists the same settings and
a test holds the two together. Unknown keys and impossible values are errors that name the
key, the value and what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from whisper_serve.audio.decode import canonical_format
from whisper_serve.errors import ConfigError, ConfigProblem

DEFAULT_PATH = Path("config.json")
ENV_PREFIX = "WHISPER_SERVE__"
ENV_SHORT = {"WHISPER_MODEL_SIZE": ("model", "size"), "WHISPER_PORT": ("server", "port")}

EngineName = Literal["auto", "ctranslate2", "torch"]
ComputeType = Literal["auto", "float32", "float16", "bfloat16", "int8", "int8_float16"]
Device = Literal["auto", "cpu", "cuda"]
Source = Literal["model_dir", "official", "registry"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


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


class ModelConfig(Section):
    size: str = Field(
        "base",
        min_length=1,
        description="Name of a Whisper model, or path to a checkpoint or CTranslate2 folder.",
    )
    device: Device = Field("auto", description="`auto` takes CUDA where there is one.")
    engine: EngineName = Field(
        "auto", description="`auto` takes `torch` on CUDA and `ctranslate2` on a CPU."
    )
    compute_type: ComputeType = Field(
        "auto",
        description="`auto`: int8 for ctranslate2 and float32 for torch on a CPU, float16 on CUDA.",
    )
    model_dir: Path = Field(
        Path("models"), description="Folder of the weights; relative to the config file."
    )
    sources: tuple[Source, ...] = Field(
        ("model_dir", "official", "registry"),
        min_length=1,
        description="Where weights are looked for, in this order.",
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
        description="CPUs of one replica, for Ray's accounting and, without a GPU, the number "
        "of windows decoded side by side. `auto`: an equal share of the machine.",
    )
    gpu_per_replica: float = Field(
        1.0, ge=0, description="GPUs of one replica, a fraction or whole; 0 without CUDA."
    )
    max_queued_windows: int = Field(
        64,
        ge=1,
        description="Windows that may wait in one replica; more are refused with 503.",
    )
    health_check_period_s: float = Field(
        5.0, gt=0, description="How often Ray Serve looks after a replica."
    )

    @field_validator("gpu_per_replica")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and not gpus.is_integer():
            raise ValueError("above 1 it must be a whole number")
        return gpus


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
            raise ValueError("overlap: must be less than half of chunk_duration")
        return self


class VadConfig(Section):
    threshold: float = Field(
        0.5, gt=0, lt=1, description="Speech probability from which audio counts as speech."
    )
    min_speech_s: float = Field(0.1, ge=0, description="Shorter sounds are not taken for speech.")
    max_pause_s: float = Field(
        2.0, gt=0, description="Longer pauses are cut out before decoding; times stay true."
    )
    padding_s: float = Field(
        0.4, ge=0, description="Audio that is kept around speech when a pause is cut out."
    )


class LimitsConfig(Section):
    max_upload_bytes: int = Field(
        200 * 2**20, ge=1, description="Largest request body; more is refused with 413."
    )
    max_audio_s: float = Field(
        2 * 3600.0, gt=0, description="Longest recording; more is refused with 413."
    )
    request_timeout_s: float = Field(
        3600.0, gt=0, description="Longest time for one request; then it fails with 504."
    )
    window_timeout_s: float = Field(
        120.0, gt=0, description="Longest time for one window in an engine, waiting included."
    )
    max_windows_per_file: int = Field(
        4, ge=1, description="Windows of one file that are decoded at once without context."
    )
    max_decoding_files: int = Field(
        4, ge=1, description="Uploads that one ingress replica unpacks at once."
    )


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


class Config(Section):
    """The whole configuration."""

    server: ServerConfig = ServerConfig()
    model: ModelConfig = ModelConfig()
    deployment: DeploymentConfig = DeploymentConfig()
    chunking: ChunkingConfig = ChunkingConfig()
    vad: VadConfig = VadConfig()
    limits: LimitsConfig = LimitsConfig()
    logging: LoggingConfig = LoggingConfig()


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read `path`, lay the environment over it and check the result.

    Without a path, `config.json` of the working directory is read if there is one, and else
    the defaults hold. Relative paths in the file are made absolute against the
    file's folder (against the working directory without a file). Raises `ConfigError`.
    """
    if path is None and DEFAULT_PATH.exists():
        path = DEFAULT_PATH
    origin = str(path) if path else "defaults"
    values = _read(path) if path else {}
    overrides = list(_overrides(environ))
    for keys, text in overrides:
        _set(values, keys, text, origin)
    if overrides:
        origin += " and environment"
    try:
        config = Config.model_validate(values)
    except ValidationError as exc:
        raise ConfigError(origin, [_problem(e) for e in exc.errors()]) from exc
    return _anchored(config, path.resolve().parent if path else Path.cwd())


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ConfigError(str(path), [ConfigProblem("file", None, "no such file")]) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), [ConfigProblem("file", None, "cannot be read")]) from exc
    except json.JSONDecodeError as exc:
        where = f"not JSON: {exc.msg} in line {exc.lineno}, column {exc.colno}"
        raise ConfigError(str(path), [ConfigProblem("file", None, where)]) from exc
    if not isinstance(values, dict):
        reason = "the outermost value must be an object"
        raise ConfigError(str(path), [ConfigProblem("file", None, reason)])
    return values


def _overrides(environ: Mapping[str, str]) -> Sequence[tuple[tuple[str, ...], str]]:
    short = [(keys, environ[name]) for name, keys in ENV_SHORT.items() if name in environ]
    long = [
        (tuple(name[len(ENV_PREFIX) :].lower().split("__")), text)
        for name, text in sorted(environ.items())
        if name.startswith(ENV_PREFIX)
    ]
    return [*short, *long]


def _set(values: dict[str, Any], keys: tuple[str, ...], text: str, origin: str) -> None:
    section: object = values
    for key in keys[:-1]:
        section = section.setdefault(key, {}) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            problem = ConfigProblem(".".join(keys), text, f"{key!r} is not a section")
            raise ConfigError(f"{origin} and environment", [problem])
    assert isinstance(section, dict)
    section[keys[-1]] = _parse(text)


def _parse(text: str) -> object:
    """Lists, numbers, booleans and null as JSON, all else as it stands."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _problem(error: Mapping[str, Any]) -> ConfigProblem:
    keys = [str(part) for part in error["loc"]]
    value, reason = error["input"], error["msg"]
    if error["type"] == "extra_forbidden":
        return ConfigProblem(".".join(keys), value, f"unknown key; known: {_known(keys[:-1])}")
    reason = reason.removeprefix("Value error, ")
    if error["type"] == "value_error" and isinstance(value, (dict, BaseModel)):
        key, _, reason = reason.partition(": ")  # raised by a section about one of its keys
        value = value.get(key) if isinstance(value, dict) else None
        keys.append(key)
    return ConfigProblem(".".join(keys), value, reason)


def _known(section: Sequence[str]) -> str:
    model: type[BaseModel] = Config
    for name in section:
        annotation = model.model_fields[name].annotation
        assert isinstance(annotation, type)
        model = annotation
    return ", ".join(model.model_fields)


def _anchored(config: Config, base: Path) -> Config:
    model = config.model.model_copy(update={"model_dir": base / config.model.model_dir})
    logging = config.logging
    if logging.file is not None:
        logging = logging.model_copy(update={"file": base / logging.file})
    return config.model_copy(update={"model": model, "logging": logging})
