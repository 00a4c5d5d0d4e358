"""A short public recording to try the service with.

It is the example that the Moonshine speech recognizer ships in its package (MIT licence):
ten seconds of English, a line of Samuel Beckett's.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from whisper_serve.engines.catalog import MirroredFile, WheelMember
from whisper_serve.engines.sources import RegistryWheels

TRANSCRIPT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
RECORDING = MirroredFile(
    name="sample.wav",
    size=318_978,
    sha256="e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
    members=(WheelMember("useful-moonshine-onnx==20251121", "moonshine_onnx/assets/beckett.wav"),),
)


def fetch_sample(target: Path, *, progress: bool) -> None:
    """Put the recording at `target`, which may be there already. Raises `WeightsError`."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = RegistryWheels("openai", table={("sample", "openai"): (RECORDING,)})
    with TemporaryDirectory(dir=target.parent) as folder:
        into = Path(folder, "fetched")
        into.mkdir()
        source.fetch("sample", into, progress=progress)
        (into / RECORDING.name).replace(target)
