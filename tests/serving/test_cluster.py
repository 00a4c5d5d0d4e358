from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

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
