"""The design that `whisper_serve` took the place of, to be measured beside it.

    .venv/bin/python -m benchmarks.baseline_service --model base --port 8000

One Ray Serve deployment of two replicas with a CPU each. Each has openai-whisper, which pads
every clip to 30 s, and calls it in the handler: a replica answers nobody else until it is done.
"""

# No `from __future__ import annotations` here: FastAPI looks at the annotations in a replica,
# where this module's names are not.

import argparse
import signal
import threading
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI, File, UploadFile
from ray import serve

from benchmarks.models import Model

REPLICAS = 2


def make_replica(model: Model) -> Any:
    """The deployment; its class is made here so that Ray sends it to replicas whole."""
    app = FastAPI()

    @serve.deployment(num_replicas=REPLICAS, ray_actor_options={"num_cpus": 1})
    @serve.ingress(app)
    class Baseline:
        def __init__(self) -> None:
            self._whisper = model.torch_model()

        @app.get("/health")
        async def health(self) -> dict[str, str]:
            return {
                "model": model.name,
                "engine": "openai-whisper",
                "compute_type": "float32",
                "device": "cpu",
            }

        @app.post("/transcribe")
        async def transcribe(self, file: UploadFile = File()) -> dict[str, str]:  # noqa: B008
            from benchmarks.models import as_floats  # noqa: PLC0415 - in the replica

            audio = as_floats(await file.read())
            return {"text": self._whisper.transcribe(audio, fp16=False)["text"]}

    return Baseline


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="base")
    parser.add_argument("--model-dir", type=Path, default=Path("models"))
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    stopped = threading.Event()
    ray.init(address="local", include_dashboard=False, num_cpus=REPLICAS)
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    serve.run(make_replica(Model(options.model, options.model_dir.resolve())).bind())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
