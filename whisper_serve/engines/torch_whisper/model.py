"""From a checkpoint's tensors to a network on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from whisper.model import Whisper

from whisper_serve.engines.checkpoints import Checkpoint
from whisper_serve.errors import ConfigError, ConfigProblem, WeightsError

COMPUTE_TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load_model(
    checkpoint: Checkpoint, device: str, compute_type: str, *, keep_tensors: bool = False
) -> Whisper:
    """The network on `device`, ready to decode.

    `compute_type`: float32, float16, bfloat16, or auto: float16 on CUDA, float32 elsewhere.
    `keep_tensors`: take the checkpoint's own tensors as parameters and not copies, where they are
    float32 and contiguous; decoding does not write to them.
    Raises `ConfigError` when the device or the compute type cannot be used, `WeightsError`
    when the tensors do not fit the dimensions.
    """
    target = usable_device(device)
    dtype = compute_dtype(compute_type, target)
    with Uninitialized():
        model = Whisper(checkpoint.dims)
    tensors = checkpoint.tensors
    if keep_tensors:
        tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    try:
        model.load_state_dict(tensors, assign=keep_tensors)
    except RuntimeError as exc:
        raise WeightsError(f"the checkpoint does not fit its dimensions: {exc}") from exc
    heads = checkpoint.alignment_mask().to_sparse()
    model.register_buffer("alignment_heads", heads, persistent=False)
    return cast_weights(model, dtype).to(target).eval()


class Uninitialized(TorchFunctionMode):
    """Makes modules without the random numbers of a beginner, which take longer to draw than
    weights take to load. Each parameter has to be loaded then."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        if getattr(func, "__module__", "") == nn.init.__name__:
            return None  # the modules ignore it
        return func(*args, **(kwargs or {}))


def usable_device(device: str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    # torch built without CUDA asserts that it is there.
    except (RuntimeError, AssertionError) as exc:
        raise not_usable("model.device", device, str(exc).partition("\n")[0]) from exc


def compute_dtype(compute_type: str, device: torch.device) -> torch.dtype:
    if compute_type == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if compute_type not in COMPUTE_TYPES:
        allowed = ", ".join(("auto", *COMPUTE_TYPES))
        raise not_usable("model.compute_type", compute_type, f"it must be one of {allowed}")
    return COMPUTE_TYPES[compute_type]


def not_usable(key: str, value: str, reason: str) -> ConfigError:
    return ConfigError("torch engine", [ConfigProblem(key, value, reason)])


def cast_weights(model: Whisper, dtype: torch.dtype) -> Whisper:
    """Hold the large weights in `dtype`, so that no step casts them again. Whisper computes
    its layer norms in float32 and needs their weights so."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Embedding):
            module.to(dtype)
    return model
