"""Everything that can go wrong, in one tree.

WhisperServeError
├── ConfigError               the configuration cannot be used
├── WeightsError              a model's weights cannot be had or used
│   ├── UnknownModel
│   ├── WeightsUnavailable
│   └── WeightsCorrupt
├── ServerStartError          the service cannot come up on this machine
├── ServerBroken              the service cannot go on and has to be started again
├── InvalidRequest            400
│   ├── InvalidParameter
│   ├── InvalidMessage
│   ├── UnsupportedFormat
│   ├── UnreadableAudio
│   ├── EmptyAudio
│   ├── UrlNotAllowed
│   └── UrlRefused
├── TooLarge                  413
│   ├── UploadTooLarge
│   ├── AudioTooLong
│   ├── AudioTooCostly
│   └── FrameTooBig
├── InvalidKey                401
├── ScopeMissing              403
├── OriginNotAllowed          403
├── ModelNotFound             404
├── JobsDisabled              404
├── JobNotFound               404
├── JobConflict               409
│   └── JobNotFinished
├── IdempotencyMismatch       422
├── UploadTooSlow             408
├── UnsupportedMediaType      415
├── ClientGone                499, written to the log only
├── ClientTooFast             closes a stream with 4429
├── StreamIdle                closes a stream with 4408
├── TooManyStreams            429 with Retry-After
├── RateLimited               429 with Retry-After
├── QuotaExceeded             429 with Retry-After
├── Overloaded                503 with Retry-After
├── Draining                  503 with Retry-After; closes a stream with 1001
├── EngineUnavailable         503 with Retry-After
├── ProcessLost               503 with Retry-After; told by Serve's proxy
├── StorageUnavailable        503 with Retry-After
├── UrlUnreachable            502, of jobs only
├── JobAbandoned              of jobs only, whose process died each time
├── DeadlineExceeded          504
├── Superseded                of a live partial only, whose session asked for a newer one
├── EngineFailed              500
└── ClientError               raised by the client, never by the service
    ├── ServerRefused
    ├── UnexpectedAnswer
    ├── ConnectionLost
    ├── JobNotOver
    ├── WebhookNotVerified
    └── MicrophoneUnavailable

An exception carries facts as attributes and makes its sentence in `__str__`. Each class names
the HTTP status and the WebSocket close code that a client gets. Exceptions travel between
processes, so each one pickles by its constructor's arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple


class WhisperServeError(Exception):
    """Base of all errors that this package raises on purpose."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    ws_close_code: ClassVar[int] = 1011


class ConfigProblem(NamedTuple):
    """`key` (dotted) has `value`, which is not allowed because of `reason`."""

    key: str
    value: object
    reason: str

    def __str__(self) -> str:
        shown = "" if self.value is None else f"{self.value!r} is not allowed: "
        return f"{self.key}: {shown}{self.reason}"


class ConfigError(WhisperServeError):
    """The configuration that `origin` gives cannot be used; `problems` holds every fault."""

    code = "config_error"

    def __init__(self, origin: str, problems: Sequence[ConfigProblem]) -> None:
        super().__init__(origin, tuple(problems))
        self.origin, self.problems = origin, tuple(problems)

    def __str__(self) -> str:
        return f"{self.origin}: {'; '.join(str(problem) for problem in self.problems)}"


class WeightsError(WhisperServeError):
    """A model's weights cannot be used."""

    code = "weights_error"


class UnknownModel(WeightsError):
    """`name` is neither a known model nor a path to one."""

    code = "unknown_model"

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, tuple(known))
        self.name, self.known = name, tuple(known)

    def __str__(self) -> str:
        return (
            f"no model is called {self.name!r} and no such path exists; "
            f"known models: {', '.join(self.known)}"
        )


class WeightsUnavailable(WeightsError):
    """No source gave the weights; `attempts` holds (source, why not) pairs."""

    code = "weights_unavailable"

    def __init__(self, model: str, attempts: Sequence[tuple[str, str]]) -> None:
        super().__init__(model, tuple(attempts))
        self.model, self.attempts = model, tuple(attempts)

    def __str__(self) -> str:
        tried = "; ".join(f"{source}: {why}" for source, why in self.attempts)
        return f"the weights of {self.model!r} could not be had ({tried or 'no source is set'})"


class WeightsCorrupt(WeightsError):
    """The file at `path` is not what its digest says."""

    code = "weights_corrupt"

    def __init__(self, path: str, expected: str, actual: str) -> None:
        super().__init__(path, expected, actual)
        self.path, self.expected, self.actual = path, expected, actual

    def __str__(self) -> str:
        return f"{self.path} has sha256 {self.actual}, expected {self.expected}"


class ServerStartError(WhisperServeError):
    """The service cannot start; `reason` says why in one line."""

    code = "start_failed"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ServerBroken(WhisperServeError):
    """The service cannot go on; `reason` says why in one line."""

    code = "broken"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class InvalidRequest(WhisperServeError):
    """The client sent something that cannot be served."""

    code = "invalid_request"
    http_status = 400
    ws_close_code = 1008

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class InvalidParameter(InvalidRequest):
    """`parameter` has a value that is not allowed."""

    code = "invalid_parameter"

    def __init__(self, parameter: str, reason: str) -> None:
        WhisperServeError.__init__(self, parameter, reason)
        self.parameter, self.reason = parameter, reason

    def __str__(self) -> str:
        return f"{self.parameter}: {self.reason}"


class InvalidMessage(InvalidRequest):
    """A text frame of a stream is not one of the protocol's messages."""

    code = "invalid_message"


class UnsupportedFormat(InvalidRequest):
    """The file is audio of a format that the configuration does not accept."""

    code = "unsupported_format"

    def __init__(self, found: str, accepted: Sequence[str]) -> None:
        WhisperServeError.__init__(self, found, tuple(accepted))
        self.found, self.accepted = found, tuple(accepted)

    def __str__(self) -> str:
        return f"unsupported format: {self.found}; accepted: {', '.join(self.accepted)}"


class UnreadableAudio(InvalidRequest):
    """The body is not audio, or breaks off."""

    code = "unreadable_audio"


class EmptyAudio(InvalidRequest):
    """There is nothing to transcribe: no file, no bytes or no samples."""

    code = "empty_audio"


class UrlNotAllowed(InvalidRequest):
    """The configuration does not allow this service to ask `host`."""

    code = "url_not_allowed"

    def __init__(self, host: str, reason: str) -> None:
        WhisperServeError.__init__(self, host, reason)
        self.host, self.reason = host, reason

    def __str__(self) -> str:
        return f"{self.host or 'the URL'}: {self.reason}"


class UrlRefused(InvalidRequest):
    """What is behind a URL cannot be had, however often it is asked for."""

    code = "url_refused"


class TooLarge(WhisperServeError):
    """More was sent than the limits allow."""

    code = "too_large"
    http_status = 413
    ws_close_code = 1009


class UploadTooLarge(TooLarge):
    """The body has more than `limit_bytes`."""

    code = "upload_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the upload is larger than the limit of {self.limit_bytes:,} bytes"


class AudioTooLong(TooLarge):
    """The recording is longer than `limit_s` seconds."""

    code = "audio_too_long"

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s)
        self.limit_s = limit_s

    def __str__(self) -> str:
        return f"the recording is longer than the limit of {self.limit_s:g} seconds"


class AudioTooCostly(TooLarge):
    """A file takes more than `allowed` to decode: so much time, or so much memory."""

    code = "audio_too_costly"

    def __init__(self, allowed: str) -> None:
        super().__init__(allowed)
        self.allowed = allowed

    def __str__(self) -> str:
        return f"the file takes more than {self.allowed} to decode"


class FrameTooBig(TooLarge):
    """A frame of a stream has more than `limit_bytes`."""

    code = "frame_too_big"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the frame is larger than the limit of {self.limit_bytes:,} bytes"


class InvalidKey(WhisperServeError):
    """The key that a client showed is not, or is no longer, a valid one."""

    code = "invalid_api_key"
    http_status = 401
    ws_close_code = 1008

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ScopeMissing(WhisperServeError):
    """The key that a client showed is not for `scope`."""

    code = "scope_missing"
    http_status = 403
    ws_close_code = 1008

    def __init__(self, scope: str) -> None:
        super().__init__(scope)
        self.scope = scope

    def __str__(self) -> str:
        return f"this key has not the scope {self.scope!r}, which is needed here"


class OriginNotAllowed(WhisperServeError):
    """A page of `origin` opened a stream, and `server.allowed_origins` does not know it."""

    code = "origin_not_allowed"
    http_status = 403
    ws_close_code = 1008

    def __init__(self, origin: str) -> None:
        super().__init__(origin)
        self.origin = origin

    def __str__(self) -> str:
        return f"pages of {self.origin!r} may not use this service"


class ModelNotFound(WhisperServeError):
    """No model is served under `name`; nothing is fetched for a request."""

    code = "model_not_found"
    http_status = 404
    ws_close_code = 1008

    def __init__(self, name: str, served: Sequence[str]) -> None:
        super().__init__(name, tuple(served))
        self.name, self.served = name, tuple(served)

    def __str__(self) -> str:
        return f"the model {self.name!r} is not served here; served: {', '.join(self.served)}"


class JobsDisabled(WhisperServeError):
    """This service keeps no jobs, since it has no database for them."""

    code = "jobs_disabled"
    http_status = 404

    def __str__(self) -> str:
        return "there are no jobs here: no database is configured for them (jobs.database)"


class JobNotFound(WhisperServeError):
    """There is no job of that id, or it is not the caller's, or it was deleted."""

    code = "job_not_found"
    http_status = 404

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"there is no job {self.job_id!r}"


class JobConflict(WhisperServeError):
    """What was asked of a job is not possible while it is as it is."""

    code = "job_conflict"
    http_status = 409

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class JobNotFinished(JobConflict):
    """The job has no result yet; `status` is queued or running."""

    code = "job_not_finished"

    def __init__(self, status: str) -> None:
        WhisperServeError.__init__(self, status)
        self.status = status

    def __str__(self) -> str:
        return f"the job is not finished, it is {self.status}"


class IdempotencyMismatch(WhisperServeError):
    """An `Idempotency-Key` came again with something else than the first time."""

    code = "idempotency_mismatch"
    http_status = 422

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"the Idempotency-Key {self.key!r} was used for another job"


class UploadTooSlow(WhisperServeError):
    """The request's body did not come in time: not within `timeout_s`, or hardly at all."""

    code = "upload_too_slow"
    http_status = 408
    ws_close_code = 1008

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"the upload was too slow: it was not there within {self.timeout_s:g} seconds"


class UnsupportedMediaType(WhisperServeError):
    """The request's Content-Type is none that the route takes."""

    code = "unsupported_media_type"
    http_status = 415
    ws_close_code = 1003

    def __init__(self, content_type: str) -> None:
        super().__init__(content_type)
        self.content_type = content_type

    def __str__(self) -> str:
        wrong = "there is no Content-Type"
        if self.content_type:
            wrong = f"Content-Type {self.content_type!r} is not accepted"
        return (
            f"{wrong}: send multipart/form-data with the file in 'audio_file', "
            "or the bare file as audio/* or application/octet-stream"
        )


class ClientGone(WhisperServeError):
    """The client went away before its request was complete; nobody reads the answer."""

    code = "client_gone"
    http_status = 499
    ws_close_code = 1001

    def __str__(self) -> str:
        return "the client went away before its request was complete"


class ClientTooFast(WhisperServeError):
    """A stream's audio came more than `limit_s` seconds ahead of what can be taken."""

    code = "client_too_fast"
    http_status = 429
    ws_close_code = 4429

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s)
        self.limit_s = limit_s

    def __str__(self) -> str:
        return f"audio came too fast: more than {self.limit_s:g} seconds ahead"


class StreamIdle(WhisperServeError):
    """A stream's client sent nothing for `timeout_s` seconds."""

    code = "stream_idle"
    http_status = 408
    ws_close_code = 4408

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"nothing came for {self.timeout_s:g} seconds"


class TooManyStreams(WhisperServeError):
    """A client has all the streams it may have; it can try again in `retry_after_s`."""

    code = "too_many_streams"
    http_status = 429
    ws_close_code = 1013

    def __init__(self, limit: int, retry_after_s: float) -> None:
        super().__init__(limit, retry_after_s)
        self.limit, self.retry_after_s = limit, retry_after_s

    def __str__(self) -> str:
        return f"no more than {self.limit} streams at once are allowed for one client"


class RateLimited(WhisperServeError):
    """A client asked more often than it may; `reason` says what is counted."""

    code = "rate_limited"
    http_status = 429
    ws_close_code = 1013

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason, retry_after_s)
        self.reason, self.retry_after_s = reason, retry_after_s

    def __str__(self) -> str:
        return f"{self.reason}; try again in {self.retry_after_s:.0f} s"


class QuotaExceeded(WhisperServeError):
    """A key's `limit_s` seconds of audio a day do not suffice; the day ends in `retry_after_s`."""

    code = "quota_exceeded"
    http_status = 429
    ws_close_code = 1008

    def __init__(self, limit_s: float, retry_after_s: float) -> None:
        super().__init__(limit_s, retry_after_s)
        self.limit_s, self.retry_after_s = limit_s, retry_after_s

    def __str__(self) -> str:
        return f"this is more than what is left today of {self.limit_s:g} seconds of audio"


class Overloaded(WhisperServeError):
    """There is no room for more work; try again after `retry_after_s` seconds."""

    code = "overloaded"
    http_status = 503
    ws_close_code = 1013

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"the service is at its capacity; try again in {self.retry_after_s:g} s"


class Draining(WhisperServeError):
    """This process is about to stop; another one may have room after `retry_after_s` seconds."""

    code = "draining"
    http_status = 503
    ws_close_code = 1001

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"the service is about to stop here; try again in {self.retry_after_s:g} s"


class EngineUnavailable(WhisperServeError):
    """No replica can answer now; try again after `retry_after_s` seconds."""

    code = "engine_unavailable"
    http_status = 503
    ws_close_code = 1013

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"no engine is ready; try again in {self.retry_after_s:g} s"


class ProcessLost(WhisperServeError):
    """The process that had the request, or its machine, ended before there was an answer; send it
    again after `retry_after_s` seconds."""

    code = "process_lost"
    http_status = 503

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        again = f"send it again in {self.retry_after_s:g} s"
        return f"the process that worked on this request has ended; {again}"


class StorageUnavailable(WhisperServeError):
    """The database cannot be used now. `detail` is for the log; a client never sees it."""

    code = "storage_unavailable"
    http_status = 503
    ws_close_code = 1013

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail, retry_after_s)
        self.detail, self.retry_after_s = detail, retry_after_s

    def __str__(self) -> str:
        return f"the database cannot be reached; try again in {self.retry_after_s:g} s"


class UrlUnreachable(WhisperServeError):
    """Nobody answered at a URL, or not as it should; it may be otherwise later."""

    code = "url_unreachable"
    http_status = 502

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class JobAbandoned(WhisperServeError):
    """A job was begun `attempts` times, and each time its process died over it."""

    code = "job_abandoned"

    def __init__(self, attempts: int) -> None:
        super().__init__(attempts)
        self.attempts = attempts

    def __str__(self) -> str:
        return f"the process that worked on the job ended before it was done, {self.attempts} times"


class DeadlineExceeded(WhisperServeError):
    """The work was not done within `timeout_s` seconds."""

    code = "deadline_exceeded"
    http_status = 504
    ws_close_code = 1011

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"the transcription was not done within {self.timeout_s:g} s"


class Superseded(WhisperServeError):
    """A newer partial of the same session took this one's place in the queue."""

    code = "superseded"

    def __str__(self) -> str:
        return "a newer window of the same stream took this one's place"


class EngineFailed(WhisperServeError):
    """The engine broke while decoding. `detail` is for the log; a client never sees it."""

    code = "engine_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return "the transcription failed inside the engine"


class ClientError(WhisperServeError):
    """The client could not get what it was asked for; `reason` says why."""

    code = "client_error"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ServerRefused(ClientError):
    """The service answered with a failure.

    `status`: HTTP status, or close code of a stream. `error_code`: the service's own word
    for it. `retry_after_s`: when it asks the client to come back, None when it does not.
    """

    code = "server_refused"

    def __init__(
        self, status: int, error_code: str, message: str, retry_after_s: float | None = None
    ) -> None:
        WhisperServeError.__init__(self, status, error_code, message, retry_after_s)
        self.status, self.error_code, self.reason = status, error_code, message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.reason} ({self.status} {self.error_code})"


class UnexpectedAnswer(ClientError):
    """What answered is not this service, or another version of it."""

    code = "unexpected_answer"


class ConnectionLost(ClientError):
    """The service cannot be reached, and it was tried for as long as was allowed."""

    code = "connection_lost"


class JobNotOver(ClientError):
    """A job was still `status`, queued or running, when it was waited for no longer."""

    code = "job_not_over"

    def __init__(self, job_id: str, status: str) -> None:
        WhisperServeError.__init__(self, job_id, status)
        self.job_id, self.status = job_id, status
        self.reason = f"the job {job_id} is still {status}"


class WebhookNotVerified(ClientError):
    """What came to a webhook was not sent by the service, or not lately."""

    code = "webhook_not_verified"


class MicrophoneUnavailable(ClientError):
    """There is no microphone, or what listens to it cannot go on."""

    code = "microphone_unavailable"
