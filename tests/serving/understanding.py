"""The application on a cluster, with engines that understand the speech of `speaker`.

Serve imports it on the cluster, as `tests.serving.understanding:build_app`.
"""

# No `from __future__ import annotations`: see `whisper_serve.serving.app`.

import os
import time

from ray.serve import Application

from tests.streaming.speaker import heard_words
from whisper_serve.config_file import load_config
from whisper_serve.engines.base import DecodeTask, Engine
from whisper_serve.engines.build import EngineOptions
from whisper_serve.engines.fake import FakeWorker
from whisper_serve.engines.intake import Limits
from whisper_serve.engines.threaded import ThreadedEngine
from whisper_serve.serving.app import AppArguments, make_app
from whisper_serve.serving.cluster import cluster_nodes, count_machines
from whisper_serve.serving.job_runner import require_storage
from whisper_serve.serving.plan import make_plan
from whisper_serve.text.transcript import Hypothesis, Segment

WORK_S = 0.1


def build_app(arguments: AppArguments) -> Application:
    config = load_config(arguments.config, os.environ)
    nodes = cluster_nodes()
    require_storage(config, count_machines())
    return make_app(config, make_plan(config, nodes, grows=True), build_hearing)


def build_hearing(options: EngineOptions) -> Engine:
    limits = Limits(options.max_queued, options.rows)
    return ThreadedEngine(FakeWorker([_hear]), limits, threads=options.workers)


def _hear(task: DecodeTask) -> Hypothesis:
    time.sleep(WORK_S)
    words = heard_words(task.samples, {})[len(task.prefix.split()) :]
    segments = (Segment(0.0, task.duration_s, "").with_words(words),) if words else ()
    return Hypothesis(segments, "en", 1.0)
