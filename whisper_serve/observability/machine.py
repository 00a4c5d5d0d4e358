"""What the process takes of its machine: memory, CPUs, threads, files, and the GPUs it sees."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import psutil

from whisper_serve.observability.metrics import Reading

logger = logging.getLogger(__name__)


class ProcessUse:
    """Of this process. `read` blocks for about a millisecond."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def read(self) -> Iterator[Reading]:
        process = self._process
        with process.oneshot():
            cpu = process.cpu_times()
            yield Reading("process_resident_memory_bytes", process.memory_info().rss)
            yield Reading("process_cpu_seconds_total", cpu.user + cpu.system)
            yield Reading("process_threads", process.num_threads())
            yield Reading("process_start_time_seconds", process.create_time())
        yield Reading("process_open_files", process.num_fds())


class Nvml(Protocol):
    """What is used of NVIDIA's management library, as `pynvml` gives it."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any: ...  # noqa: N802

    def nvmlDeviceGetUUID(self, handle: Any) -> str: ...  # noqa: N802

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802


class GpuUse:
    """Of the GPUs that the process may use. Without any, and without NVIDIA's library, there is
    nothing to read."""

    def __init__(self, nvml: Nvml, environ: Mapping[str, str]) -> None:
        """`environ`: its `CUDA_VISIBLE_DEVICES` says which GPUs are the process's."""
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            self._gpus = [(nvml.nvmlDeviceGetUUID(gpu), gpu) for gpu in self._visible(environ)]
        except nvml.NVMLError as exc:
            logger.info("no GPU is measured: %s", exc)
            self._gpus = []

    def read(self) -> Iterator[Reading]:
        for name, gpu in self._gpus:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(gpu)
            yield Reading("gpu_memory_used_bytes", memory.used, (name,))
            yield Reading("gpu_memory_total_bytes", memory.total, (name,))
            # Parts of a GPU do not tell how busy they are.
            try:
                busy_percent = self._nvml.nvmlDeviceGetUtilizationRates(gpu).gpu
            except self._nvml.NVMLError:
                continue
            yield Reading("gpu_utilization_ratio", busy_percent / 100, (name,))

    def _visible(self, environ: Mapping[str, str]) -> Iterator[Any]:
        """NVML counts all of the machine's GPUs, whichever CUDA may see."""
        listed = environ.get("CUDA_VISIBLE_DEVICES")
        if listed is None:
            listed = ",".join(map(str, range(self._nvml.nvmlDeviceGetCount())))
        for name in filter(None, map(str.strip, listed.split(","))):
            if name.isdecimal():
                yield self._nvml.nvmlDeviceGetHandleByIndex(int(name))
            elif name.startswith(("GPU-", "MIG-")):
                yield self._nvml.nvmlDeviceGetHandleByUUID(name)
