from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from tests.conftest import PROJECT
from whisper_serve.serving.cluster import (
    CLUSTER_ENVIRONMENT,
    PROXY_CALLBACK,
    prepare_environment,
)

PATIENCE_S = 60.0
STRANGER = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)
"""


@pytest.mark.server
@pytest.mark.parametrize(
    "shown", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"}], ids=str
)
def test_who_has_not_ray_s_token_is_refused(
    serve_port: int, tmp_path: Path, shown: dict[str, str]
) -> None:
    """Whoever reaches Ray's ports and is let in can run what they like."""
    assert serve_port
    address = ray.get_runtime_context().gcs_address
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, address],
        env={**ours, "RAY_AUTH_MODE": "disabled", **shown, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode != 0
    assert "InvalidAuthToken" in done.stderr


def test_what_every_machine_of_a_cluster_needs_is_documented() -> None:
    text = (PROJECT / "docs" / "reliability.md").read_text()
    for name, value in CLUSTER_ENVIRONMENT.items():
        assert f"| `{name}` | `{value}` |" in text


def test_the_one_machine_of_a_ray_of_our_own_is_not_taken_for_dead_sooner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.environ", {"RAY_USAGE_STATS_ENABLED": "1"})
    prepare_environment()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert PROXY_CALLBACK in os.environ
    assert "RAY_health_check_period_ms" not in os.environ
