from __future__ import annotations

import inspect
import pickle
import re

import pytest

from whisper_serve import errors
from whisper_serve.errors import (
    AudioTooCostly,
    AudioTooLong,
    ClientError,
    ClientGone,
    ClientTooFast,
    ConfigError,
    ConfigProblem,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    EmptyAudio,
    EngineFailed,
    EngineUnavailable,
    FrameTooBig,
    IdempotencyMismatch,
    InvalidKey,
    InvalidMessage,
    InvalidParameter,
    InvalidRequest,
    JobAbandoned,
    JobConflict,
    JobNotFinished,
    JobNotFound,
    JobNotOver,
    JobsDisabled,
    MicrophoneUnavailable,
    ModelNotFound,
    OriginNotAllowed,
    Overloaded,
    ProcessLost,
    QuotaExceeded,
    RateLimited,
    ScopeMissing,
    ServerBroken,
    ServerRefused,
    ServerStartError,
    StorageUnavailable,
    StreamIdle,
    Superseded,
    TooLarge,
    TooManyStreams,
    UnexpectedAnswer,
    UnknownModel,
    UnreadableAudio,
    UnsupportedFormat,
    UnsupportedMediaType,
    UploadTooLarge,
    UploadTooSlow,
    UrlNotAllowed,
    UrlRefused,
    UrlUnreachable,
    WebhookNotVerified,
    WeightsCorrupt,
    WeightsError,
    WeightsUnavailable,
    WhisperServeError,
)

ACCEPTED = (
    "send multipart/form-data with the file in 'audio_file', "
    "or the bare file as audio/* or application/octet-stream"
)
PROBLEM = ConfigProblem("server.port", 0, "it must be 1 or more")

SAID = [
    (WhisperServeError("broken"), "broken"),
    (
        ConfigError("config.json", [PROBLEM, ConfigProblem("file", None, "no such file")]),
        "config.json: server.port: 0 is not allowed: it must be 1 or more; file: no such file",
    ),
    (WeightsError("cannot be read"), "cannot be read"),
    (
        UnknownModel("bass", ["tiny", "base"]),
        "no model is called 'bass' and no such path exists; known models: tiny, base",
    ),
    (
        WeightsUnavailable("base", [("official", "no network"), ("registry", "404")]),
        "the weights of 'base' could not be had (official: no network; registry: 404)",
    ),
    (
        WeightsUnavailable("base", []),
        "the weights of 'base' could not be had (no source is set)",
    ),
    (WeightsCorrupt("m.pt", "aa", "bb"), "m.pt has sha256 bb, expected aa"),
    (ServerBroken("Ray has ended"), "Ray has ended"),
    (ServerStartError("the port is taken"), "the port is taken"),
    (InvalidRequest("the form cannot be read"), "the form cannot be read"),
    (InvalidParameter("task", "unknown"), "task: unknown"),
    (
        UnsupportedFormat("AVI", [".wav", ".mp3"]),
        "unsupported format: AVI; accepted: .wav, .mp3",
    ),
    (UnreadableAudio("damaged"), "damaged"),
    (EmptyAudio("the file is empty"), "the file is empty"),
    (UrlNotAllowed("intern.example", "not allowed"), "intern.example: not allowed"),
    (UrlNotAllowed("", "it has no host"), "the URL: it has no host"),
    (UrlRefused("the server answered 404"), "the server answered 404"),
    (TooLarge("too much"), "too much"),
    (UploadTooLarge(2_000_000), "the upload is larger than the limit of 2,000,000 bytes"),
    (AudioTooLong(7200.0), "the recording is longer than the limit of 7200 seconds"),
    (AudioTooCostly("120 seconds"), "the file takes more than 120 seconds to decode"),
    (
        UploadTooSlow(30.0),
        "the upload was too slow: it was not there within 30 seconds",
    ),
    (InvalidKey("this key has expired"), "this key has expired"),
    (ScopeMissing("jobs"), "this key has not the scope 'jobs', which is needed here"),
    (
        OriginNotAllowed("https://evil.example"),
        "pages of 'https://evil.example' may not use this service",
    ),
    (
        ModelNotFound("huge", ["base", "tiny.en"]),
        "the model 'huge' is not served here; served: base, tiny.en",
    ),
    (
        JobsDisabled(),
        "there are no jobs here: no database is configured for them (jobs.database)",
    ),
    (JobNotFound("ab12"), "there is no job 'ab12'"),
    (JobConflict("the job has failed"), "the job has failed"),
    (JobNotFinished("running"), "the job is not finished, it is running"),
    (IdempotencyMismatch("k1"), "the Idempotency-Key 'k1' was used for another job"),
    (
        UnsupportedMediaType("text/html"),
        f"Content-Type 'text/html' is not accepted: {ACCEPTED}",
    ),
    (
        UnsupportedMediaType(""),
        f"there is no Content-Type: {ACCEPTED}",
    ),
    (ClientGone(), "the client went away before its request was complete"),
    (Overloaded(2.5), "the service is at its capacity; try again in 2.5 s"),
    (Draining(2.0), "the service is about to stop here; try again in 2 s"),
    (EngineUnavailable(5.0), "no engine is ready; try again in 5 s"),
    (
        ProcessLost(1.0),
        "the process that worked on this request has ended; send it again in 1 s",
    ),
    (
        StorageUnavailable("password authentication failed", 5.0),
        "the database cannot be reached; try again in 5 s",
    ),
    (UrlUnreachable("no answer"), "no answer"),
    (
        JobAbandoned(3),
        "the process that worked on the job ended before it was done, 3 times",
    ),
    (DeadlineExceeded(120.0), "the transcription was not done within 120 s"),
    (Superseded(), "a newer window of the same stream took this one's place"),
    (EngineFailed("CUDA error at 0x7f"), "the transcription failed inside the engine"),
    (InvalidMessage("a text frame must be JSON"), "a text frame must be JSON"),
    (FrameTooBig(16_777_216), "the frame is larger than the limit of 16,777,216 bytes"),
    (ClientTooFast(120.0), "audio came too fast: more than 120 seconds ahead"),
    (StreamIdle(60.0), "nothing came for 60 seconds"),
    (TooManyStreams(4, 5.0), "no more than 4 streams at once are allowed for one client"),
    (
        RateLimited("no more than 60 requests a minute", 12.3),
        "no more than 60 requests a minute; try again in 12 s",
    ),
    (
        QuotaExceeded(3600.0, 120.5),
        "this is more than what is left today of 3600 seconds of audio",
    ),
    (ClientError("it did not work"), "it did not work"),
    (
        ServerRefused(400, "invalid_parameter", "task: unknown"),
        "task: unknown (400 invalid_parameter)",
    ),
    (UnexpectedAnswer("this is a web page"), "this is a web page"),
    (ConnectionLost("no answer for 60 s"), "no answer for 60 s"),
    (JobNotOver("ab12", "queued"), "the job ab12 is still queued"),
    (WebhookNotVerified("no signature fits"), "no signature fits"),
    (MicrophoneUnavailable("there is none"), "there is none"),
]

ERRORS = [cls for cls in vars(errors).values() if inspect.isclass(cls)]
ERRORS = [cls for cls in ERRORS if issubclass(cls, WhisperServeError)]


def drawn_parents() -> dict[str, str | None]:
    """Each class of the drawing and the one that it hangs on."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─ ]*)([A-Z]\w+)(  |$)", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            parents[found[2]] = path[depth - 1] if depth else None
    return parents


def test_the_drawing_shows_the_tree() -> None:
    real = {cls.__name__: cls.__base__.__name__ if cls.__base__ else "" for cls in ERRORS}
    assert drawn_parents() == {**real, "WhisperServeError": None}


def test_the_drawing_gives_the_status() -> None:
    drawn = {
        name: int(status)
        for name, status in re.findall(r"── (\w+) +(\d{3})\b", errors.__doc__ or "")
    }
    assert drawn
    assert drawn == {name: getattr(errors, name).http_status for name in drawn}


def test_there_is_a_sentence_for_each() -> None:
    assert {type(error) for error, _ in SAID} == set(ERRORS)


@pytest.mark.parametrize(("error", "sentence"), SAID)
def test_it_says_what_is_wrong(error: WhisperServeError, sentence: str) -> None:
    assert str(error) == sentence


@pytest.mark.parametrize("error", [error for error, _ in SAID], ids=lambda e: type(e).__name__)
def test_it_travels_between_processes(error: WhisperServeError) -> None:
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize("error", [error for error, _ in SAID], ids=lambda e: type(e).__name__)
def test_what_has_arrived_can_travel_on(error: WhisperServeError) -> None:
    once = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    twice = pickle.loads(pickle.dumps(once))  # noqa: S301 - made here
    assert vars(twice) == vars(error)


def test_every_code_is_one_class_s_own() -> None:
    own = [cls.__dict__.get("code") for cls in ERRORS]
    assert None not in own
    assert len(set(own)) == len(own)


@pytest.mark.parametrize("cls", ERRORS)
def test_a_client_can_be_told(cls: type[WhisperServeError]) -> None:
    assert 400 <= cls.http_status < 600
    assert cls.ws_close_code in {1001, 1003, 1008, 1009, 1011, 1013, 4408, 4429}
    assert cls.code.isidentifier()


def test_a_client_s_fault_and_ours_are_told_apart() -> None:
    assert InvalidParameter.http_status == 400
    assert InvalidParameter("task", "unknown").args == ("task", "unknown")
    assert isinstance(UnsupportedFormat("AVI", []), InvalidRequest)
    assert not isinstance(Overloaded(1.0), InvalidRequest)


def test_the_engine_s_detail_is_not_for_clients() -> None:
    error = EngineFailed("CUDA error at 0x7f")
    assert error.detail not in str(error)
