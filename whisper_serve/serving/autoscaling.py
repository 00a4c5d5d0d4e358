"""What Serve's controller asks how many replicas there are to be; `scaling.py` decides.

The controller makes a policy of its class and its keyword arguments, which have to be JSON, and
asks it several times a second. Serve pickles the class with this module, so that a controller
that was started without this package can load it as far as that has the package installed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ray.serve.config import AutoscalingConfig as ServeAutoscaling
from ray.serve.config import AutoscalingContext, AutoscalingPolicy

from whisper_serve.config import AutoscalingConfig, Config
from whisper_serve.serving.scaling import (
    Bounds,
    EngineScaling,
    Fleet,
    IngressScaling,
    Series,
    doors_of,
    work_of,
)

# How often replicas say what they have to do, and for how long Serve keeps it.
TOLD_EVERY_S, KEPT_S = 2.0, 20.0
MEMORY = "memory"

Wanted = tuple[int, dict[str, Any]]


class IngressPolicy:
    """By live streams and files."""

    def __init__(self, bounds: Mapping[str, Any], streams_each: float, files_each: float) -> None:
        self._scaling = IngressScaling(Bounds(**bounds), streams_each, files_each)

    def __call__(self, context: AutoscalingContext) -> Wanted:
        now = context.current_time
        doors = doors_of(told_by(context), now)
        memory = context.policy_state.get(MEMORY)
        fleet = fleet_of(context, doors.told)
        target, memory = self._scaling.decide(doors, fleet, memory, now)
        return target, {MEMORY: memory}


class EnginePolicy:
    """By the audio that waits, and by what is done."""

    def __init__(self, bounds: Mapping[str, Any], waiting_s: float) -> None:
        self._scaling = EngineScaling(Bounds(**bounds), waiting_s)

    def __call__(self, context: AutoscalingContext) -> Wanted:
        now = context.current_time
        work = work_of(told_by(context), now)
        memory = context.policy_state.get(MEMORY)
        fleet = fleet_of(context, work.told)
        target, memory = self._scaling.decide(work, fleet, memory, now)
        return target, {MEMORY: memory}


def fleet_of(context: AutoscalingContext, told: int) -> Fleet:
    return Fleet(context.target_num_replicas, context.current_num_replicas, told)


def told_by(context: AutoscalingContext) -> list[dict[str, Series]]:
    """What each replica said lately, by name."""
    replicas: dict[Any, dict[str, Series]] = defaultdict(dict)
    for name, series_of in (context.raw_metrics or {}).items():
        for replica, series in series_of.items():
            replicas[replica][name] = [(point.timestamp, point.value) for point in series]
    return list(replicas.values())


# How deployments are told


def ingress_scale(config: Config) -> dict[str, Any]:
    """Options of the ingress deployment."""
    scaling = config.autoscaling
    least, most = scaling.ingress_replicas
    if least == most:
        return {"num_replicas": least}
    arguments = {
        "bounds": _bounds(scaling, least, most),
        "streams_each": scaling.streams_per_ingress,
        "files_each": config.limits.max_decoding_files,
    }
    return _growing(IngressPolicy, arguments, least, most)


def engine_scale(config: Config, replicas: int) -> dict[str, Any]:
    """Options of the engine deployment. `replicas`: how many there are when the number is
    fixed."""
    scaling = config.autoscaling
    if scaling.engine_replicas is None:
        return {"num_replicas": replicas}
    least, most = scaling.engine_replicas
    if least == most:
        return {"num_replicas": least}
    arguments = {
        "bounds": _bounds(scaling, least, most),
        "waiting_s": scaling.waiting_audio_s,
    }
    return _growing(EnginePolicy, arguments, least, most)


def _bounds(scaling: AutoscalingConfig, least: int, most: int) -> dict[str, Any]:
    return asdict(Bounds(least, most, scaling.upscale_delay_s, scaling.downscale_delay_s))


def _growing(policy: type, arguments: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    """Serve's own delays count from a decision, and would come on top of ours."""
    return {
        "autoscaling_config": ServeAutoscaling(
            min_replicas=least,
            max_replicas=most,
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            metrics_interval_s=TOLD_EVERY_S,
            look_back_period_s=KEPT_S,
            policy=AutoscalingPolicy(
                policy_function=f"{policy.__module__}:{policy.__qualname__}",
                policy_kwargs=arguments,
            ),
        )
    }
