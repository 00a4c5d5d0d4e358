"""What happens when a load test of Locust begins and ends, on a machine of its own, a master or a
worker."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gevent
import httpx
from locust.env import Environment
from locust.event import Events
from locust.rpc import Message
from locust.runners import MasterRunner, Runner, WorkerRunner
from locust.web import WebUI

from benchmarks.figures import machine
from loadtest.files import Access
from loadtest.page import html_of
from loadtest.session import GRACE_S, LOOK_EVERY_S, Session, Workers, speech_of, wait_until
from loadtest.settings import Settings, add_settings, path_of
from loadtest.shapes import Steps
from loadtest.speech import NoSpeech
from loadtest.users import Client, LiveStream
from whisper_serve.client.connection import http_url
from whisper_serve.errors import WhisperServeError

if TYPE_CHECKING:
    from loadtest.report import Report

WRONG_OPTIONS = 2
LOOK_TIMEOUT_S = 10.0
ENGINE = ("model", "engine", "compute_type", "device")
# Messages between a master and its workers, and what is in them.
FINISH, FINISHED, OUTCOMES = "whisper_serve finish", "whisper_serve finished", "outcomes"


def install(events: Events) -> None:
    """For a locustfile."""
    events.init_command_line_parser.add_listener(add_settings)
    events.init.add_listener(_prepare)


def _prepare(environment: Environment, runner: Runner, web_ui: WebUI | None, **_: Any) -> None:
    """Ends the program when an option is wrong, or there is nothing to say."""
    options = _options(environment)
    if not (options.user_classes or options.class_picker or options.config_users):
        environment.user_classes[:] = [LiveStream]
    if isinstance(runner, WorkerRunner):  # the master will send its options
        OfWorker(environment, runner).listen()
        return
    settings = _settings(environment)
    if settings.steps:
        environment.shape_class = Steps(settings.steps, settings.step_s, options.spawn_rate)
        environment.shape_class.runner = runner
    conductor = OfMaster if isinstance(runner, MasterRunner) else Conductor
    conducting = conductor(environment, runner)
    conducting.listen()
    if web_ui is not None and web_ui.app is not None:
        page = web_ui.auth_required_if_enabled(conducting.html)
        web_ui.app.add_url_rule("/figures", "figures", page)


def _options(environment: Environment) -> Namespace:
    options = environment.parsed_options
    assert isinstance(options, Namespace)
    return options


def _settings(environment: Environment) -> Settings:
    """With all that is needed for them."""
    try:
        settings = Settings.of(_options(environment), environment.host)
        if not isinstance(environment.runner, MasterRunner):
            speech_of(settings.corpus, settings.seconds)
    except (WhisperServeError, NoSpeech) as exc:
        print(f"locust: error: {exc}", file=sys.stderr)
        sys.exit(WRONG_OPTIONS)
    return settings


class Conductor:
    """Of a load test that one process does by itself."""

    def __init__(self, environment: Environment, runner: Runner) -> None:
        self.environment = environment
        self.runner = runner
        self.session: Session | None = None
        self._report: Report | None = None
        self._is_spawned = False

    def listen(self) -> None:
        events = self.environment.events
        events.test_start.add_listener(self.start)
        events.spawning_complete.add_listener(self._spawned)
        events.test_stopping.add_listener(self.stopping)
        events.test_stop.add_listener(self._stop)
        events.user_error.add_listener(self._user_error)
        events.quitting.add_listener(self._quit)

    # It begins

    def start(self, **_: Any) -> None:
        self.session = Client.session = Session(self.environment, _settings(self.environment))
        self._report, self._is_spawned = None, False
        gevent.spawn(self._watch, self.session)

    def _spawned(self, **_: Any) -> None:
        self._is_spawned = True

    def _watch(self, session: Session) -> None:
        """When all users have left there is nothing to wait for."""
        while not session.ending.is_set():
            gevent.sleep(LOOK_EVERY_S)
            if self._is_spawned and self.runner.user_count == 0:
                return self._leave()
        return None

    def _leave(self) -> None:
        """As Locust does when the time is over."""
        if _options(self.environment).headless:
            self.runner.quit()
        else:
            self.runner.stop()

    # It ends

    def stopping(self, **_: Any) -> None:
        """What still goes on is brought to its end; Locust takes the users away afterwards."""
        if self.session is not None and not self.session.ending.is_set():
            self.finish(self.session)

    def finish(self, session: Session) -> None:
        session.finish(lambda: self.runner.user_count)

    def _user_error(self, exception: Exception, **_: Any) -> None:
        if self.session is not None:
            self.session.trouble.append(f"an error of this program: {exception!r}")

    def _stop(self, **_: Any) -> None:
        if self.session is None:
            return
        self._report = report_of(self.session, self.environment)
        options = _options(self.environment)
        print(f"\n{self._report.text()}\n", flush=True)
        self._report.write(
            json=path_of(options.report_json),
            html=path_of(options.report_html),
            plot=path_of(options.plot),
        )
        self.environment.process_exit_code = self._report.exit_code

    def _quit(self, **_: Any) -> None:
        """Locust tells this before it decides on its exit code, and may not have stopped."""
        if self.session is not None and self._report is None:
            self.runner.stop()

    def html(self) -> str:
        """The figures of the last load test, for the web interface."""
        return "No load test has ended." if self._report is None else html_of(self._report.page())


class OfMaster(Conductor):
    """Workers say and hear, and tell their master; see `Session`."""

    def listen(self) -> None:
        super().listen()
        self._workers = Workers()
        self.environment.events.worker_report.add_listener(self._reported)
        self.runner.register_message(FINISHED, self._finished)

    def start(self, **_: Any) -> None:
        self._workers = Workers()
        super().start()

    def _reported(self, client_id: str, data: Mapping[str, Any]) -> None:
        outcomes = data.get(OUTCOMES, ())
        self._workers.reported(client_id, len(outcomes))
        if self.session is not None:
            self.session.take_in(outcomes)

    def _finished(self, msg: Message, **_: Any) -> None:
        self._reported(msg.node_id, msg.data)
        self._workers.finished(msg.node_id, msg.data["had"])

    def finish(self, session: Session) -> None:
        session.ending.set()
        self.runner.send_message(FINISH)
        asked = set(self._workers.came)
        wait_until(lambda: asked <= self._workers.had.keys(), session.patience_s + GRACE_S)
        session.trouble += self._workers.missing(asked)


class OfWorker:
    def __init__(self, environment: Environment, runner: WorkerRunner) -> None:
        self.environment = environment
        self.runner = runner
        self.session: Session | None = None

    def listen(self) -> None:
        self.environment.events.test_start.add_listener(self._start)
        self.environment.events.report_to_master.add_listener(self._report)
        self.runner.register_message(FINISH, self._finish, concurrent=True)

    def _start(self, **_: Any) -> None:
        self.session = Client.session = Session(self.environment, _settings(self.environment))

    def _report(self, data: dict[str, Any], **_: Any) -> None:
        data[OUTCOMES] = [] if self.session is None else self.session.take_unsent()

    def _finish(self, *_: Any, **__: Any) -> None:
        data: dict[str, Any] = {"had": 0}
        if self.session is not None:
            self.session.finish(lambda: self.runner.user_count)
            data["had"] = len(self.session.outcomes)
        self._report(data)
        self.runner.send_message(FINISHED, data)


# What is told about the load test itself


def report_of(session: Session, environment: Environment) -> Report:
    # They bring torch with it, which nobody should wait for while something is measured.
    from loadtest.judging import Bounds  # noqa: PLC0415
    from loadtest.report import Report  # noqa: PLC0415
    from loadtest.steps import steps_of  # noqa: PLC0415
    from loadtest.summary import Summary  # noqa: PLC0415

    options = _options(environment)
    bounds = Bounds(options.most_wer, options.most_failed, options.most_late)
    return Report(
        summary=Summary.of(session.outcomes, bounds),
        facts=dict(facts_of(session)),
        began=session.began,
        steps=steps_of(session.settings.steps, session.began, session.settings.step_s),
        trouble=session.trouble,
    )


def facts_of(session: Session) -> Iterator[tuple[str, str]]:
    settings = session.settings
    yield "service", f"{settings.access.url}, {_engine(settings.access)}"
    yield "speech", f"{settings.seconds:g} s each"
    yield "began", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session.began))
    yield "took", f"{time.time() - session.began:.1f} s"
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    yield "machine of this program", f"{machine()}; load average {load}"


def _engine(access: Access) -> str:
    """What the service says that it is."""
    trust = True if access.trust is None else access.trust
    try:
        answer = httpx.get(
            http_url(access.url, "/health"),
            headers=access.headers,
            verify=trust,
            timeout=LOOK_TIMEOUT_S,
            trust_env=False,
        )
        health = answer.json()
        return " ".join(str(health[key]) for key in ENGINE)
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return "which does not say what it is"
