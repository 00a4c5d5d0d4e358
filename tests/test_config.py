from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from whisper_serve.config import Config
from whisper_serve.config_file import load_config
from whisper_serve.errors import ConfigError, ConfigProblem

SHIPPED = Path(__file__).parent.parent / "config.json"

Write = Callable[[object], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_config(content: object) -> Path:
        path = tmp_path / "config.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_config


def refused(path: Path | None, environ: Mapping[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {})
    return caught.value


def the_problem(error: ConfigError) -> ConfigProblem:
    [problem] = error.problems
    return problem


# The shipped file


def keys_of(values: dict[str, Any]) -> dict[str, set[str] | None]:
    """The keys of each section; None for a setting that stands by itself."""
    return {name: set(value) if isinstance(value, dict) else None for name, value in values.items()}


def settings_of(model: BaseModel, section: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from settings_of(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", field


def test_the_shipped_file_says_what_holds_without_it() -> None:
    shipped = load_config(SHIPPED, {})
    # But that it serves everybody, on this machine alone.
    default = load_config(None, {"WHISPER_SERVE__AUTH__OPEN": "true"})
    assert shipped == default
    assert shipped.server.host == "127.0.0.1"
    assert not Config().auth.open


def test_the_shipped_file_lists_every_setting() -> None:
    assert keys_of(json.loads(SHIPPED.read_text())) == keys_of(Config().model_dump(mode="json"))


def test_every_setting_says_what_it_is_for() -> None:
    assert [key for key, field in settings_of(Config()) if not field.description] == []


# Where it comes from


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None, {}).server == Config().server


def test_the_file_in_the_working_directory_is_taken(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write({"server": {"port": 9999}}).parent)
    assert load_config(None, {}).server.port == 9999


def test_a_file_need_not_say_everything(write: Write) -> None:
    config = load_config(write({"server": {"port": 9999}}), {})
    assert (config.server.port, config.server.host) == (9999, Config().server.host)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"server": {"port": 9999}}')
    assert load_config(path, {}).server.port == 9999


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON: .* in line 1, column 2"),
        ("", "not JSON"),
        ("[]", "the outermost value must be an object"),
        ("3", "the outermost value must be an object"),
        ('{"server": {"port": ' + "1" * 5000 + "}}", "not JSON: Exceeds the limit"),
    ],
)
def test_what_is_no_configuration_is_refused(write: Write, content: str, told: str) -> None:
    path = write(content)
    with pytest.raises(ConfigError, match=told) as caught:
        load_config(path, {})
    assert str(caught.value).startswith(f"{path}: file: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing.json"
    assert str(refused(path)) == f"{path}: file: cannot be read: No such file or directory"


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    assert the_problem(refused(tmp_path)).reason == "cannot be read: Is a directory"


def test_another_encoding_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes('{"server": {"host": "é"}}'.encode("utf-16"))
    assert the_problem(refused(path)).reason.startswith("not JSON: 'utf-8'")


# What it must not say

IMPOSSIBLE = [
    ("server.port", 0, "greater than or equal to 1"),
    ("server.port", 65536, "less than or equal to 65535"),
    ("server.port", "8000", "valid integer"),
    ("server.port", True, "valid integer"),
    ("server.port", 8000.5, "valid integer"),
    ("server.host", "", "at least 1 character"),
    ("server.host", 127, "valid string"),
    ("server.dedicated_cpu", "no", "valid boolean"),
    ("server.dedicated_cpu", 1, "valid boolean"),
    ("server.num_cpus", 0, "greater than 0"),
    ("server.num_cpus", float("nan"), "finite number"),
    ("server.num_cpus", float("inf"), "finite number"),
    ("server.ray_address", 6379, "valid string"),
    ("model.device", "gpu", "'auto', 'cpu' or 'cuda'"),
    ("model.engine", "whisper", "'auto', 'ctranslate2' or 'torch'"),
    ("model.compute_type", "int4", "'int8_float16'"),
    ("model.beam_size", 0, "greater than or equal to 1"),
    ("model.sources", [], "at least 1 item"),
    ("model.sources", "official", "valid array"),
    ("model.supported_formats", [".xyz"], "'.xyz' is not a known audio format; known: .wav"),
    ("deployment.num_replicas", 0, "greater than or equal to 1, or Input should be 'auto'"),
    ("deployment.num_replicas", "many", "valid integer, or Input should be 'auto'"),
    ("deployment.cpu_per_replica", 0, "greater than 0, or Input should be 'auto'"),
    ("deployment.gpu_per_replica", 1.5, "above 1 it must be a whole number"),
    ("deployment.gpu_per_replica", -1, "greater than or equal to 0"),
    ("deployment.max_queued_windows", 0, "greater than or equal to 1"),
    ("autoscaling.ingress_replicas", [2, 1], "the first is the least and must not be above"),
    ("autoscaling.ingress_replicas", 2, "valid array"),
    ("autoscaling.engine_replicas", [3, 2], "the first is the least and must not be above"),
    ("autoscaling.streams_per_ingress", 0, "greater than 0"),
    ("autoscaling.downscale_delay_s", -1, "greater than or equal to 0"),
    ("deployment.further_models", 0, "greater than or equal to 1"),
    ("openai.max_file_bytes", 0, "greater than or equal to 1"),
    ("deepgram.idle_timeout_s", 0, "greater than 0"),
    ("chunking.chunk_duration", 31, "less than or equal to 30"),
    ("chunking.chunk_duration", 4, "greater than or equal to 5"),
    ("chunking.overlap", 15, "less than half of chunk_duration, which is 15"),
    ("chunking.overlap", 0.1, "greater than or equal to 0.2"),
    ("vad.threshold", 1, "less than 1"),
    ("vad.max_pause_s", 0, "greater than 0"),
    ("limits.max_upload_bytes", 0, "greater than or equal to 1"),
    ("limits.request_timeout_s", -1, "greater than 0"),
    ("logging.level", "info", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ("logging.format", "{message}", "format string of Python's logging module"),
    ("logging.format", "%(message)s %(nowhere)s", "not found in record: 'nowhere'"),
    ("logging.format", "%(message)d", "a real number is required"),
    ("logging.rotate", "hourly", "'size' or 'daily'"),
    ("logging.max_bytes", 1000, "greater than or equal to 1024"),
    ("tracing.otlp_endpoint", "localhost:4318", "should match pattern"),
    ("tracing.otlp_endpoint", "http://host/?key=1", "should match pattern"),
    ("tracing.sample_ratio", 1.5, "less than or equal to 1"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), IMPOSSIBLE)
def test_an_impossible_value_is_named_with_what_is_allowed(
    write: Write, key: str, value: object, allowed: str
) -> None:
    section, name = key.split(".")
    error = refused(write({section: {name: value}}))
    problem = the_problem(error)
    assert problem.key == key
    assert repr(problem.value) == repr(value)
    assert allowed in problem.reason
    assert f"{key}: {value!r} is not allowed: {problem.reason}" in str(error)


@pytest.mark.parametrize("key", ["server.port", "server.host", "model.model_dir", "logging.level"])
def test_null_is_no_value(write: Write, key: str) -> None:
    section, name = key.split(".")
    assert the_problem(refused(write({section: {name: None}}))).key == key


def test_one_of_a_list_is_named_by_its_place(write: Write) -> None:
    problem = the_problem(refused(write({"model": {"sources": ["model_dir", "the web"]}})))
    assert (problem.key, problem.value) == ("model.sources.1", "the web")


@pytest.mark.parametrize(
    ("settings", "value", "allowed"),
    [
        ({"engine": "torch", "compute_type": "int8"}, "int8", "float32, float16 and bfloat16"),
        ({"device": "cpu", "compute_type": "float16"}, "float16", "float32 or int8"),
        ({"device": "cpu", "compute_type": "bfloat16"}, "bfloat16", "float32 or int8"),
    ],
)
def test_a_compute_type_that_the_engine_lacks_is_refused(
    write: Write, settings: dict[str, str], value: str, allowed: str
) -> None:
    problem = the_problem(refused(write({"model": settings})))
    assert (problem.key, problem.value) == ("model.compute_type", value)
    assert allowed in problem.reason


def test_the_overlap_is_measured_against_the_windows_that_are_set(write: Write) -> None:
    chunking = {"chunk_duration": 6, "overlap": 3.5}
    assert the_problem(refused(write({"chunking": chunking}))).key == "chunking.overlap"


def test_engine_replicas_are_counted_by_one_setting(write: Write) -> None:
    sections = {"deployment": {"num_replicas": 2}, "autoscaling": {"engine_replicas": [1, 4]}}
    problem = the_problem(refused(write(sections)))
    assert problem.key == "deployment.num_replicas"
    assert "autoscaling.engine_replicas" in problem.reason


def test_an_ingress_gets_company_before_it_is_full(write: Write) -> None:
    full = {"ingress_replicas": [1, 4], "streams_per_ingress": 65}
    problem = the_problem(refused(write({"autoscaling": full})))
    assert problem.key == "autoscaling.streams_per_ingress"
    assert problem.reason.endswith("streaming.max_sessions, which is 64")
    alone = {"ingress_replicas": [2, 2], "streams_per_ingress": 65}
    load_config(write({"autoscaling": alone}), {})


@pytest.mark.parametrize(
    ("models", "twice"),
    [
        (["base"], "'base'"),
        (["tiny", "small", "tiny"], "'tiny'"),
        (["large", "large-v3"], "'large-v3', 'large'"),
        (["turbo", "/models/large-v3-turbo.pt"], "'large-v3-turbo'"),
        (["large-v3", "/models/large"], "'large'"),
        (["a/tuned.pt", "b/tuned"], "'tuned'"),
    ],
)
def test_two_models_of_one_name_are_refused(write: Write, models: list[str], twice: str) -> None:
    problem = the_problem(refused(write({"models": models})))
    assert (problem.key, problem.value) == ("models", models)
    assert problem.reason == f"with `model.size` more than one is called {twice}"


@pytest.mark.parametrize(
    ("models", "key", "allowed"),
    [
        ("tiny.en", "models", "valid array"),
        (["tiny.en", 3], "models.1", "valid string"),
        (["tiny.en", ""], "models.1", "at least 1 character"),
    ],
)
def test_models_that_are_no_list_of_names_are_refused(
    write: Write, models: object, key: str, allowed: str
) -> None:
    problem = the_problem(refused(write({"models": models})))
    assert problem.key == key
    assert allowed in problem.reason


@pytest.mark.parametrize("value", [5, None, [], "text"])
def test_a_section_is_an_object(write: Write, value: object) -> None:
    problem = the_problem(refused(write({"server": value})))
    assert (problem.key, problem.value) == ("server", value)


def test_an_unknown_key_is_named_with_those_that_are_known(write: Write) -> None:
    error = refused(write({"server": {"prot": 8000}}))
    known = (
        "host, port, dedicated_cpu, num_cpus, ray_address, tls_cert, tls_key, drain_timeout_s, "
        "handover_timeout_s, allowed_origins"
    )
    assert str(error).endswith(f"server.prot: 8000 is not allowed: unknown key; known: {known}")


def test_an_unknown_section_is_named_with_those_that_are_known(write: Write) -> None:
    problem = the_problem(refused(write({"servers": {}})))
    assert problem.key == "servers"
    assert problem.reason.endswith("known: " + ", ".join(Config.model_fields))


def test_every_fault_is_told_at_once(write: Write) -> None:
    settings = {
        "server": {"prot": 1, "port": 0},
        "vad": {"threshold": 2},
        "deployment": {"num_replicas": "many"},
        "surplus": 1,
    }
    error = refused(write(settings))
    assert sorted(problem.key for problem in error.problems) == [
        "deployment.num_replicas",
        "server.port",
        "server.prot",
        "surplus",
        "vad.threshold",
    ]
    assert "\n" not in str(error)


# What it may say


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("deployment.num_replicas", 3),
        ("deployment.cpu_per_replica", 0.5),
        ("deployment.gpu_per_replica", 0.25),
        ("deployment.gpu_per_replica", 2),
        ("deployment.gpu_per_replica", 0),
        ("autoscaling.streams_per_ingress", 12),
        ("server.ray_address", "ray://head:10001"),
        ("logging.file", None),
        ("logging.format", "json"),
        ("logging.format", "%(asctime)s %(levelno)d %(process)d [%(request_id)s] %(message)s"),
        ("logging.format", "%(session_id)s %(caller)s %(trace_id)s %(span_id)s %(message)s"),
        ("tracing.otlp_endpoint", "https://collector:4318/otlp"),
        ("vad.padding_s", 1),
    ],
)
def test_a_possible_value_is_taken(write: Write, key: str, value: object) -> None:
    section, name = key.split(".")
    config = load_config(write({section: {name: value}}), {})
    assert getattr(getattr(config, section), name) == value


def test_formats_have_one_name_each(write: Write) -> None:
    settings = {"model": {"supported_formats": ["WAV", ".m4a", ".mp4", ".opus"]}}
    config = load_config(write(settings), {})
    assert config.model.supported_formats == (".wav", ".mp4", ".ogg")


def test_checking_a_format_logs_nothing(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        load_config(write({"logging": {"format": "%(message)s"}}), {})
    assert not caplog.records


# The environment


def with_environment(**variables: str) -> Config:
    return load_config(SHIPPED, {f"WHISPER_SERVE__{key}": text for key, text in variables.items()})


def test_the_environment_wins_over_the_file(write: Write) -> None:
    path = write({"server": {"port": 9999, "host": "::1"}})
    config = load_config(path, {"WHISPER_SERVE__SERVER__PORT": "7777"})
    assert (config.server.port, config.server.host) == (7777, "::1")


def test_numbers_booleans_lists_and_null_are_written_as_json() -> None:
    config = with_environment(
        SERVER__DEDICATED_CPU="true",
        SERVER__NUM_CPUS="2",
        VAD__THRESHOLD="0.25",
        MODEL__SOURCES='["model_dir"]',
        DEPLOYMENT__NUM_REPLICAS="2",
        DEPLOYMENT__CPU_PER_REPLICA="auto",
        LOGGING__FILE="null",
    )
    assert config.server.dedicated_cpu is True
    assert config.server.num_cpus == 2.0
    assert config.vad.threshold == 0.25
    assert config.model.sources == ("model_dir",)
    assert config.deployment.num_replicas == 2
    assert config.deployment.cpu_per_replica == "auto"
    assert config.logging.file is None


@pytest.mark.parametrize("text", ["1", "2.5", "true", "NaN", "base", "[1]", '{"a":1}'])
def test_text_that_looks_like_a_number_is_text_where_text_is_wanted(text: str) -> None:
    config = with_environment(SERVER__HOST=text, MODEL__SIZE=text, SERVER__RAY_ADDRESS=text)
    assert (config.server.host, config.model.size) == (text, text)
    assert config.server.ray_address == text


def test_a_setting_outside_of_sections_has_a_short_variable() -> None:
    assert with_environment(MODELS='["tiny.en", "small"]').models == ("tiny.en", "small")


def test_quotes_around_text_may_be_given() -> None:
    assert with_environment(MODEL__SIZE='"tiny.en"').model.size == "tiny.en"


def test_paths_that_look_like_numbers_are_paths() -> None:
    config = with_environment(MODEL__MODEL_DIR="1", LOGGING__FILE="2")
    assert config.model.model_dir == SHIPPED.parent / "1"
    assert config.logging.file == SHIPPED.parent / "2"


def test_size_and_port_have_short_names() -> None:
    config = load_config(SHIPPED, {"WHISPER_MODEL_SIZE": "tiny.en", "WHISPER_PORT": "7777"})
    assert (config.model.size, config.server.port) == ("tiny.en", 7777)


def test_the_long_name_wins_over_the_short_one() -> None:
    environ = {"WHISPER_PORT": "7777", "WHISPER_SERVE__SERVER__PORT": "8888"}
    assert load_config(SHIPPED, environ).server.port == 8888


def test_other_variables_mean_nothing() -> None:
    environ = {"PATH": "/bin", "WHISPER_SERVE_PORT": "1", "WHISPERS": "1", "SERVER__PORT": "1"}
    assert load_config(SHIPPED, environ) == load_config(SHIPPED, {})


@pytest.mark.parametrize(
    ("variable", "text", "key"),
    [
        ("WHISPER_SERVE__SERVER__PORT", "many", "server.port"),
        ("WHISPER_SERVE__SERVER__PORT", "", "server.port"),
        ("WHISPER_SERVE__SERVER__PORT", "1" * 5000, "server.port"),
        ("WHISPER_SERVE__SERVER__PROT", "1", "server.prot"),
        ("WHISPER_SERVE__SERVERS__PORT", "1", "servers"),
        ("WHISPER_SERVE__SERVER", "1", "server"),
        ("WHISPER_SERVE__SERVER__PORT__NUMBER", "1", "server.port.number"),
        ("WHISPER_SERVE__", "1", ""),
        ("WHISPER_PORT", "tcp://10.0.0.1:8000", "server.port"),
    ],
)
def test_an_impossible_variable_is_named_by_its_setting(variable: str, text: str, key: str) -> None:
    error = refused(SHIPPED, {variable: text})
    assert the_problem(error).key == key
    assert str(error).startswith(f"{SHIPPED} and environment: ")


def test_without_a_file_the_fault_is_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refused(None, {"WHISPER_PORT": "0"})
    assert error.origin == "defaults and environment"


# Paths


def test_relative_paths_start_at_the_file(write: Write, tmp_path: Path) -> None:
    config = load_config(write({"model": {"model_dir": "m"}, "logging": {"file": "l/x.log"}}), {})
    assert config.model.model_dir == tmp_path / "m"
    assert config.logging.file == tmp_path / "l" / "x.log"


def test_relative_paths_start_at_the_file_however_it_is_named(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write({}).parent)
    config = load_config(Path("config.json"), {})
    assert config.model.model_dir == tmp_path / "models"


def test_without_a_file_relative_paths_start_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None, {}).model.model_dir == tmp_path / "models"


def test_absolute_paths_stay(write: Write) -> None:
    config = load_config(write({"model": {"model_dir": "/m", "size": "/m/x.pt"}}), {})
    assert (config.model.model_dir, config.model.size) == (Path("/m"), "/m/x.pt")


@pytest.mark.parametrize("size", ["tuned.pt", "folder/tuned.pt", "folder", "./folder"])
def test_a_model_beside_the_file_is_found_from_anywhere(
    write: Write, tmp_path: Path, size: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "tuned.pt").touch()
    (tmp_path / "folder" / "tuned.pt").touch()
    assert load_config(write({"model": {"size": size}}), {}).model.size == str(tmp_path / size)


def test_further_models_beside_the_file_are_found_from_anywhere(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "tuned.pt").touch()
    (tmp_path / "tiny.en").mkdir()
    models = ["tiny.en", "tuned.pt", "nowhere", "/elsewhere/mine"]
    anchored = ("tiny.en", str(tmp_path / "tuned.pt"), "nowhere", "/elsewhere/mine")
    assert load_config(write({"models": models}), {}).models == anchored


def test_a_name_stays_a_name(write: Write) -> None:
    assert load_config(write({"model": {"size": "mine"}}), {}).model.size == "mine"


def test_a_known_name_stays_a_name_beside_a_folder_of_that_name(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    assert load_config(write({"model": {"size": "base"}}), {}).model.size == "base"


# Keys

ENTRY = {"name": "radio", "sha256": "ab" * 32, "scopes": ["stream"], "max_streams": 2}


def test_keys_come_from_the_environment_too() -> None:
    keys = json.dumps([ENTRY, {"name": "press", "sha256": "cd" * 32}])
    config = with_environment(AUTH__KEYS=keys, AUTH__OPEN="false")
    radio, press = config.auth.keys
    assert (radio.name, radio.scopes, radio.max_streams) == ("radio", ("stream",), 2)
    assert press.scopes == ("transcribe", "stream", "jobs")
    assert press.requests_per_minute is press.max_streams is press.daily_audio_s is None


@pytest.mark.parametrize(
    ("entry", "key", "told"),
    [
        ({"scopes": ["all"]}, "auth.keys.0.scopes.0", "'transcribe', 'stream', 'jobs' or 'admin'"),
        ({"scopes": []}, "auth.keys.0.scopes", "opens nothing"),
        ({"max_streams": "2"}, "auth.keys.0.max_streams", "integer"),
        ({"daily_audio_s": 0}, "auth.keys.0.daily_audio_s", "greater than 0"),
        ({"secret": "x"}, "auth.keys.0.secret", "known: name, sha256, scopes"),
        ({"name": "nobody"}, "auth.keys.0.name", "without a key"),
    ],
)
def test_what_is_wrong_in_an_entry_is_named(
    write: Write, entry: dict[str, Any], key: str, told: str
) -> None:
    problem = the_problem(refused(write({"auth": {"keys": [{**ENTRY, **entry}]}})))
    assert problem.key == key
    assert told in problem.reason


def test_an_open_service_has_no_keys(write: Write) -> None:
    for keys in ({"keys": [ENTRY]}, {"keys_file": "keys.json"}):
        problem = the_problem(refused(write({"auth": {"open": True, **keys}})))
        assert problem.key == "auth.open"


def test_two_entries_of_one_key_are_refused(write: Write) -> None:
    again = {**ENTRY, "name": "again"}
    problem = the_problem(refused(write({"auth": {"keys": [ENTRY, again]}})))
    assert problem.key == "auth.keys"
    assert "radio, again" in problem.reason


@pytest.mark.parametrize(
    "auth",
    [{"signing_key": "hunter2"}, {"keys": [{"name": "radio", "sha256": "hunter2"}]}],
    ids=lambda auth: next(iter(auth)),
)
def test_a_secret_that_is_wrong_is_not_repeated(write: Write, auth: dict[str, Any]) -> None:
    assert "hunter2" not in str(refused(write({"auth": auth})))


def test_a_secret_is_not_shown_by_accident() -> None:
    config = with_environment(AUTH__SIGNING_KEY="1" * 40)
    assert config.auth.signing_key is not None
    assert config.auth.signing_key.get_secret_value() == "1" * 40
    assert "1" * 40 not in repr(config)


def test_the_file_of_keys_lies_beside_the_configuration(write: Write, tmp_path: Path) -> None:
    config = load_config(write({"auth": {"keys_file": "secret/keys.json"}}), {})
    assert config.auth.keys_file == tmp_path / "secret/keys.json"


@pytest.mark.parametrize("origin", ["*", "https://app.example", "http://[::1]:3000"])
def test_an_origin_is_as_browsers_write_it(write: Write, origin: str) -> None:
    config = load_config(write({"server": {"allowed_origins": [origin]}}), {})
    assert config.server.allowed_origins == (origin,)


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://*.example", ""])
def test_what_is_no_origin_is_refused(write: Write, origin: str) -> None:
    problem = the_problem(refused(write({"server": {"allowed_origins": [origin]}})))
    assert problem.key == "server.allowed_origins"


# What it is


@pytest.mark.parametrize("name", ["server", "model", "logging"])
def test_nobody_changes_it(name: str) -> None:
    section: Any = getattr(Config(), name)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(section, next(iter(type(section).model_fields)), "changed")


def test_it_travels_between_processes() -> None:
    config = load_config(SHIPPED, {})
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - made here
