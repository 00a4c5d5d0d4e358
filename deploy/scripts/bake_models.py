"""Put weights into an image, and name them in its configuration. `deploy/Dockerfile` runs it.

    bake_models.py CONFIG CONTEXT [NAME ...]

Models that lie in the folder CONTEXT are copied from there, others are fetched. The first name
becomes `model.size` of CONFIG, the others its `models`. Without names nothing is done.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from whisper_serve.config_file import load_config
from whisper_serve.engines.catalog import known_model, known_names
from whisper_serve.engines.weights import Source, Weights, ensure_weights
from whisper_serve.errors import UnknownModel, WhisperServeError

SOURCES: tuple[Source, ...] = ("model_dir", "official", "registry")
# Of 2026, UTC, the first second.
BAKED_AT_S = 1_767_225_600


def main(config: Path, context: Path, names: Sequence[str]) -> int:
    """Returns the exit code; what cannot be had is one line and code 2."""
    try:
        known = [_canonical(name) for name in names]
        model_dir = load_config(config, {}).model.model_dir
        for name in known:
            _bake(name, context, model_dir)
    except WhisperServeError as exc:
        print(f"bake_models: error: {exc}", file=sys.stderr)
        return 2
    if known:
        _name_in(config, known)
    return 0


def _canonical(name: str) -> str:
    model = known_model(name)
    if model is None:
        raise UnknownModel(name, tuple(known_names()))
    return model.name


def _bake(name: str, context: Path, model_dir: Path) -> None:
    if (context / name).is_dir():
        shutil.copytree(context / name, model_dir / name, dirs_exist_ok=True)
    _date(_ensure(name, model_dir).path)
    # Recorded again, with the times that the files have now.
    weights = _ensure(name, model_dir)
    _date(weights.path)
    print(f"{name}: {weights.path}")


def _ensure(name: str, model_dir: Path) -> Weights:
    return ensure_weights(name, "ctranslate2", model_dir=model_dir, sources=SOURCES)


def _date(folder: Path) -> None:
    """A layer of an image keeps whole seconds only. A record with more would hold for no file, and
    every start would hash all weights. With the same time always, the layer is the same too."""
    for path in (*folder.iterdir(), folder):
        os.utime(path, (BAKED_AT_S, BAKED_AT_S))


def _name_in(config: Path, names: Sequence[str]) -> None:
    values = json.loads(config.read_text(encoding="utf-8"))
    values["model"]["size"] = names[0]
    if names[1:]:
        values["models"] = list(names[1:])
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
