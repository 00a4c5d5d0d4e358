from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from loadtest.plots import Chart, draw_to, drawn

SVG = "{http://www.w3.org/2000/svg}"
CURVES: dict[str, list[tuple[float, float | None]]] = {
    "p50": [(5.0, 0.2), (10.0, 0.3)],
    "p99": [(5.0, None), (10.0, None)],
}


@pytest.mark.parametrize("curves", [CURVES, {"p50": []}, {}])
def test_a_picture_is_one_element_whatever_is_known(
    curves: dict[str, list[tuple[float, float | None]]],
) -> None:
    root = ET.fromstring(drawn([Chart("Delay", "users", "s", curves)] * 2))  # noqa: S314 - ours
    assert root.tag == f"{SVG}svg"


def test_the_suffix_tells_the_format(tmp_path: Path) -> None:
    charts = [Chart("Delay", "users", "s", CURVES)]
    draw_to(tmp_path / "new" / "a.png", charts)
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    draw_to(tmp_path / "a.svg", charts)
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()
