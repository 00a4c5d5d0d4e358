"""The `whisper-serve` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from whisper_serve import __version__
from whisper_serve.config import ModelConfig
from whisper_serve.config_file import load_config
from whisper_serve.errors import WhisperServeError

CANNOT_START = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code. What cannot start is one line and code 2."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except WhisperServeError as exc:
        print(f"whisper-serve: error: {exc}", file=sys.stderr)  # noqa: T201
        return CANNOT_START
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="whisper-serve", description="Self-hosted speech to text")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_check(commands)
    _add_models(commands)
    _add_keys(commands)
    _add_sample(commands)
    _add_transcribe(commands)
    _add_stream(commands)
    _add_jobs(commands)
    return parser


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="start the service and stay in the foreground")
    _add_config(serve)
    serve.set_defaults(run=_serve)


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check-serve-config", help="tell what Ray Serve would ignore in a Serve config file"
    )
    check.add_argument(
        "file", metavar="FILE", type=Path, help="for `serve deploy`, or a RayService of KubeRay"
    )
    check.set_defaults(run=_check_serve_config)


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    models = commands.add_parser("models", help="list, fetch and check model weights")
    actions = models.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="known models, and which are here")
    listing.set_defaults(run=_list_models)
    pull = actions.add_parser("pull", help="fetch a model's weights")
    pull.add_argument("name", metavar="NAME")
    pull.add_argument(
        "--kind",
        choices=["ctranslate2", "openai"],
        default="ctranslate2",
        help="what the CTranslate2 engine loads, or OpenAI's checkpoint (default: %(default)s)",
    )
    pull.set_defaults(run=_pull_model)
    verify = actions.add_parser("verify", help="check all weights that are here")
    verify.set_defaults(run=_verify_models)
    for action in (listing, pull, verify):
        _add_config(action)


def _add_keys(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    keys = commands.add_parser("keys", help="make, list and revoke keys of the service")
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a key and print it, once")
    new.add_argument("name", metavar="NAME", help="whose key it is")
    new.add_argument(
        "--scopes",
        nargs="+",
        metavar="SCOPE",
        help="of transcribe, stream, jobs and admin (default: all but admin)",
    )
    new.add_argument("--requests-per-minute", type=int, metavar="N")
    new.add_argument("--max-streams", type=int, metavar="N", help="live streams at once")
    new.add_argument("--daily-audio-s", type=float, metavar="SECONDS", help="of a UTC day")
    listing = actions.add_parser("list", help="whose keys there are")
    revoke = actions.add_parser("revoke", help="take the keys of a name out of the file of keys")
    revoke.add_argument("name", metavar="NAME")
    revoke.add_argument("--sha256", metavar="START", help="only the one that `list` shows so")
    for action, run in ((new, _new_key), (listing, _list_keys), (revoke, _revoke_key)):
        action.add_argument(
            "--file", type=Path, metavar="PATH", help="file of keys (default: auth.keys_file)"
        )
        _add_config(action)
        action.set_defaults(run=run)


def _add_sample(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sample = commands.add_parser("sample", help="fetch a short recording to try the service with")
    sample.add_argument("path", metavar="PATH", type=Path, nargs="?", default=Path("sample.wav"))
    sample.set_defaults(run=_fetch_sample)


def _add_transcribe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("transcribe", help="transcribe files with a running service")
    command.add_argument("files", metavar="FILE", type=Path, nargs="+")
    command.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="write one file for each FILE there (default: all to the standard output)",
    )
    command.add_argument(
        "--word-timestamps", action="store_true", help="word times, for --format json"
    )
    _add_client(command)
    command.set_defaults(run=_transcribe)


def _add_stream(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("stream", help="transcribe live audio with a running service")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "source", metavar="FILE", nargs="?", help="a recording, or - for raw audio from a pipe"
    )
    source.add_argument("--mic", action="store_true", help="record until Ctrl+C")
    command.add_argument("--device", metavar="NAME", help="microphone (default: the system's)")
    command.add_argument("--realtime", action="store_true", help="send as fast as it is spoken")
    command.add_argument("--policy", choices=["chunk", "agreement", "utterance"])
    command.add_argument("--chunk-duration", type=float, metavar="SECONDS")
    command.add_argument("--overlap", type=float, metavar="SECONDS")
    command.add_argument(
        "--encoding",
        choices=["pcm_s16le", "pcm_f32le", "mulaw", "alaw", "container"],
        help="of raw audio (default: pcm_s16le)",
    )
    command.add_argument("--sample-rate", type=int, metavar="HZ", help="(default: 16000)")
    command.add_argument("--channels", type=int, choices=[1, 2], help="(default: 1)")
    command.add_argument(
        "--give-up-after",
        type=float,
        metavar="SECONDS",
        default=60.0,
        help="time to try to connect again (default: %(default)s)",
    )
    _add_client(command)
    command.set_defaults(run=_stream)


def _add_jobs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    jobs = commands.add_parser("jobs", help="jobs of a running service: files transcribed later")
    actions = jobs.add_subparsers(required=True, metavar="ACTION")
    _add_submit(actions)
    listing = actions.add_parser("list", help="your jobs, the newest first")
    listing.add_argument(
        "--status", choices=["queued", "running", "succeeded", "failed", "cancelled"]
    )
    result = actions.add_parser("result", help="what a job found")
    result.add_argument("id", metavar="ID")
    changes = {
        "status": "how jobs are",
        "cancel": "give jobs up",
        "delete": "forget jobs, with their audio and results",
        "redrive": "queue jobs that failed again",
    }
    parsers = {name: actions.add_parser(name, help=does) for name, does in changes.items()}
    for parser in parsers.values():
        parser.add_argument("ids", metavar="ID", nargs="+")
    for name, parser in {**parsers, "list": listing, "result": result}.items():
        _add_service(parser)
        _add_format(parser, ("srt", "vtt") if name == "result" else ())
        parser.set_defaults(run=_jobs, action=name)
    backup = actions.add_parser("backup", help="copy the database, while the service goes on")
    backup.add_argument("path", metavar="PATH", type=Path, help="the copy, which is made new")
    _add_config(backup)
    backup.set_defaults(run=_back_up_jobs)


def _add_submit(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    submit = actions.add_parser("submit", help="hand recordings in; their ids are printed")
    submit.add_argument(
        "files", metavar="FILE", nargs="+", help="a recording, or the https URL of one"
    )
    submit.add_argument("--wait", action="store_true", help="for the texts, and print these")
    submit.add_argument("--webhook-url", metavar="URL", help="what is told when a job is over")
    submit.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="with --wait: one file for each FILE there"
    )
    submit.add_argument(
        "--word-timestamps", action="store_true", help="word times, for --format json"
    )
    _add_client(submit)
    submit.set_defaults(run=_jobs, action="submit")


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="the service (default: %(default)s)"
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="PATH",
        help="file with the key to show (default: the variable WHISPER_SERVE_API_KEY)",
    )
    parser.add_argument("--api-key", type=_no_key, help=argparse.SUPPRESS)
    parser.add_argument(
        "--ca-file",
        type=Path,
        metavar="PATH",
        help="certificates to trust instead of the system's, for https",
    )


def _no_key(_key: str) -> str:
    listed = "everybody can read it in the list of processes"
    raise argparse.ArgumentTypeError(f"{listed}; use --api-key-file or WHISPER_SERVE_API_KEY")


def _add_format(parser: argparse.ArgumentParser, subtitles: Sequence[str]) -> None:
    parser.add_argument("--format", choices=["text", "json", *subtitles], default="text")


def _add_client(parser: argparse.ArgumentParser) -> None:
    _add_service(parser)
    _add_format(parser, ("srt", "vtt"))
    parser.add_argument("--model", metavar="NAME", help="one that is served (default: the first)")
    parser.add_argument("--language", help="code or English name (default: detect it)")
    parser.add_argument("--task", choices=["transcribe", "translate"], default="transcribe")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        help="configuration file (default: config.json, if there is one)",
    )


def _serve(options: argparse.Namespace) -> int:
    # Ray takes a second to import; the other commands do not need it.
    from whisper_serve.serving.server import run_server  # noqa: PLC0415

    run_server(options.config)
    return 0


def _check_serve_config(options: argparse.Namespace) -> int:
    from whisper_serve.serving.serve_config import check_serve_config  # noqa: PLC0415

    check_serve_config(options.file)
    print(f"{options.file}: Serve knows every key of it")  # noqa: T201
    return 0


def _list_models(options: argparse.Namespace) -> int:
    from whisper_serve.engines.weights import list_models  # noqa: PLC0415

    for entry in list_models(_model_config(options).model_dir):
        names = ", ".join((entry.name, *entry.aliases))
        here = f"{', '.join(entry.kinds)} ({entry.size_bytes / 2**20:.0f} MiB)"
        print(f"{names:32} {here if entry.kinds else '-'}")  # noqa: T201
    return 0


def _pull_model(options: argparse.Namespace) -> int:
    from whisper_serve.engines.weights import ensure_weights  # noqa: PLC0415

    config = _model_config(options)
    weights = ensure_weights(
        options.name, options.kind, model_dir=config.model_dir, sources=config.sources
    )
    print(weights.path)  # noqa: T201
    return 0


def _verify_models(options: argparse.Namespace) -> int:
    from whisper_serve.engines.weights import verify_models  # noqa: PLC0415

    results = verify_models(_model_config(options).model_dir)
    for result in results:
        print(f"{'ok ' if result.ok else 'BAD'} {result.path}")  # noqa: T201
    if not results:
        print("there are no weights here")  # noqa: T201
    return 0 if all(result.ok for result in results) else 1


def _new_key(options: argparse.Namespace) -> int:
    from whisper_serve.keys.cli import new  # noqa: PLC0415

    return new(options)


def _list_keys(options: argparse.Namespace) -> int:
    from whisper_serve.keys.cli import show  # noqa: PLC0415

    return show(options)


def _revoke_key(options: argparse.Namespace) -> int:
    from whisper_serve.keys.cli import revoke  # noqa: PLC0415

    return revoke(options)


def _fetch_sample(options: argparse.Namespace) -> int:
    from whisper_serve.sample import fetch_sample  # noqa: PLC0415

    fetch_sample(options.path, progress=True)
    print(options.path)  # noqa: T201
    return 0


def _transcribe(options: argparse.Namespace) -> int:
    from whisper_serve.client.cli import transcribe  # noqa: PLC0415

    return transcribe(options)


def _stream(options: argparse.Namespace) -> int:
    from whisper_serve.client.cli import stream  # noqa: PLC0415

    return stream(options)


def _jobs(options: argparse.Namespace) -> int:
    from whisper_serve.client import jobs_cli  # noqa: PLC0415

    actions = {
        "submit": jobs_cli.submit,
        "list": jobs_cli.show_all,
        "status": jobs_cli.show,
        "result": jobs_cli.result,
        "cancel": jobs_cli.cancel,
        "delete": jobs_cli.delete,
        "redrive": jobs_cli.redrive,
    }
    return actions[options.action](options)


def _back_up_jobs(options: argparse.Namespace) -> int:
    from whisper_serve.jobs.backup import back_up  # noqa: PLC0415

    size = back_up(load_config(options.config, os.environ).jobs.database, options.path)
    print(f"{options.path} ({size / 2**20:.1f} MiB)")  # noqa: T201
    return 0


def _model_config(options: argparse.Namespace) -> ModelConfig:
    return load_config(options.config, os.environ).model
