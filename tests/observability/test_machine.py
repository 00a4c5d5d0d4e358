from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from whisper_serve.observability.machine import GpuUse, ProcessUse
from whisper_serve.observability.metrics import Metrics


class NvmlError(Exception):
    pass


@dataclass
class FakeNvml:
    """A machine with as many GPUs as `uuids`; number `index` has `index + 1` GiB in use.
    `parts`: those that do not tell how busy they are."""

    uuids: tuple[str, ...] = ("GPU-a", "GPU-b")
    parts: tuple[str, ...] = ()
    has_driver: bool = True
    NVMLError: type[Exception] = field(default=NvmlError)

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.has_driver:
            raise NvmlError("no driver")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return self.uuids.index(uuid)

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return self.uuids[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=(handle + 1) * 2**30, total=80 * 2**30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        if self.uuids[handle] in self.parts:
            raise NvmlError("not supported")
        return SimpleNamespace(gpu=25)


def told(nvml: FakeNvml, environ: Mapping[str, str] | None = None) -> dict[tuple[str, str], float]:
    readings = GpuUse(nvml, environ or {}).read()
    return {(reading.name, reading.labels[0]): reading.value for reading in readings}


def test_a_process_tells_what_it_takes() -> None:
    values = {reading.name: reading.value for reading in ProcessUse().read()}
    process = psutil.Process()
    assert values["process_resident_memory_bytes"] == pytest.approx(
        process.memory_info().rss, rel=0.5
    )
    assert 0 < values["process_cpu_seconds_total"] <= sum(process.cpu_times()[:2])
    assert values["process_threads"] >= 1
    assert values["process_open_files"] >= 1
    assert values["process_start_time_seconds"] == process.create_time()


def test_a_process_and_its_gpus_are_declared_metrics() -> None:
    metrics = Metrics()
    metrics.read(ProcessUse().read)
    metrics.read(GpuUse(FakeNvml(), {}).read)
    names = {family.name for family in metrics.collect()}
    assert {"whisper_serve_process_cpu_seconds", "whisper_serve_gpu_memory_used_bytes"} <= names


def test_each_gpu_tells_its_memory_and_how_busy_it_is() -> None:
    assert told(FakeNvml()) == {
        ("gpu_memory_used_bytes", "GPU-a"): 2**30,
        ("gpu_memory_total_bytes", "GPU-a"): 80 * 2**30,
        ("gpu_utilization_ratio", "GPU-a"): 0.25,
        ("gpu_memory_used_bytes", "GPU-b"): 2 * 2**30,
        ("gpu_memory_total_bytes", "GPU-b"): 80 * 2**30,
        ("gpu_utilization_ratio", "GPU-b"): 0.25,
    }


@pytest.mark.parametrize("visible", ["1", " 1 ", "GPU-b"])
def test_a_gpu_of_another_process_is_left_out(visible: str) -> None:
    gpus = {gpu for _, gpu in told(FakeNvml(), {"CUDA_VISIBLE_DEVICES": visible})}
    assert gpus == {"GPU-b"}


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_without_a_visible_gpu_nothing_is_told(visible: str) -> None:
    assert told(FakeNvml(), {"CUDA_VISIBLE_DEVICES": visible}) == {}


def test_without_a_driver_nothing_is_told() -> None:
    assert told(FakeNvml(has_driver=False)) == {}


def test_a_part_of_a_gpu_tells_its_memory_only() -> None:
    names = {name for name, _ in told(FakeNvml(("MIG-1",), parts=("MIG-1",)))}
    assert names == {"gpu_memory_used_bytes", "gpu_memory_total_bytes"}
