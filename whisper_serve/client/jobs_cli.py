"""`whisper-serve jobs`: jobs of a running service in a terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from whisper_serve.client.async_client import AsyncClient
from whisper_serve.client.cli import (
    FAILED,
    check_targets,
    client_of,
    complain,
    give_out,
    options_of,
    run,
    written,
)
from whisper_serve.client.jobs import JOB, AsyncJobs, Job
from whisper_serve.errors import ClientError, InvalidParameter, WhisperServeError

Act = Callable[[AsyncJobs, str], Awaitable[Job | None]]


class Failures:
    """Tells of each failure in one line, and goes on."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except (WhisperServeError, OSError) as exc:
            self.count += 1
            complain(f"{what}: {exc}")

    @property
    def code(self) -> int:
        return FAILED if self.count else 0


def submit(options: argparse.Namespace) -> int:
    """Returns 1 when a file could not be handed in, or with `--wait` its job failed."""
    if options.output_dir is not None:
        if not options.wait:
            raise InvalidParameter("--output-dir", "it needs --wait")
        check_targets([Path(name) for name in options.files], options.output_dir, options.format)
    return run(_submit_all(client_of(options), options))


def show_all(options: argparse.Namespace) -> int:
    return run(_show_all(client_of(options), options))


def show(options: argparse.Namespace) -> int:
    return _each(options, lambda jobs, job_id: jobs.get(job_id))


def cancel(options: argparse.Namespace) -> int:
    return _each(options, lambda jobs, job_id: jobs.cancel(job_id))


def delete(options: argparse.Namespace) -> int:
    return _each(options, lambda jobs, job_id: jobs.delete(job_id))


def redrive(options: argparse.Namespace) -> int:
    return _each(options, lambda jobs, job_id: jobs.redrive(job_id))


def result(options: argparse.Namespace) -> int:
    return run(_result(client_of(options), options))


async def _submit_all(client: AsyncClient, options: argparse.Namespace) -> int:
    """All are handed in before the first is waited for."""
    failures = Failures()
    async with client:
        submitted: list[tuple[str, Job]] = []
        for name in options.files:
            with failures.told(name):
                submitted.append((name, await _submit(client.jobs, name, options)))
        for name, job in submitted if options.wait else ():
            with failures.told(name):
                give_out(await _waited_for(client.jobs, job, name, options), Path(name), options)
    return failures.code


async def _submit(jobs: AsyncJobs, name: str, options: argparse.Namespace) -> Job:
    is_url = name.startswith(("http://", "https://"))
    job = await jobs.submit(
        None if is_url else name,
        url=name if is_url else None,
        webhook_url=options.webhook_url,
        **options_of(options),
    )
    # Who waits gets the text there; the id, should the waiting be broken off.
    print(job.id, name, file=sys.stderr if options.wait else sys.stdout, flush=True)
    return job


async def _waited_for(jobs: AsyncJobs, job: Job, name: str, options: argparse.Namespace) -> str:
    over = await jobs.wait(job.id)
    if over.status != "succeeded":
        why = over.error.message if over.error else f"the job was {over.status}"
        raise ClientError(f"{why} (job {over.id})")
    return await _text(jobs, job.id, name, options.format)


async def _text(jobs: AsyncJobs, job_id: str, name: str, form: str) -> str:
    match form:
        case "srt" | "vtt" as subtitles:
            return await jobs.result(job_id, subtitles)
    return written(await jobs.result(job_id), name, form)


async def _result(client: AsyncClient, options: argparse.Namespace) -> int:
    failures = Failures()
    async with client:
        with failures.told(options.id):
            text = await _text(client.jobs, options.id, options.id, options.format)
            print(text, end="", flush=True)  # noqa: T201
    return failures.code


async def _show_all(client: AsyncClient, options: argparse.Namespace) -> int:
    failures = Failures()
    async with client:
        with failures.told("jobs"):
            async for job in client.jobs.list(options.status):
                _print(job, options.format)
    return failures.code


def _each(options: argparse.Namespace, act: Act) -> int:
    async def work(client: AsyncClient) -> int:
        failures = Failures()
        async with client:
            for job_id in options.ids:
                with failures.told(job_id):
                    job = await act(client.jobs, job_id)
                    if job is not None:
                        _print(job, options.format)
        return failures.code

    return run(work(client_of(options)))


def _print(job: Job, form: str) -> None:
    line = JOB.dump_json(job).decode() if form == "json" else line_of(job)
    print(line, flush=True)  # noqa: T201


def line_of(job: Job) -> str:
    made = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    why = f"  {job.error.code}: {job.error.message}" if job.error else ""
    return f"{job.id}  {job.status:9}  {job.progress:4.0%}  {made}{why}"
