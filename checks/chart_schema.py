"""Does the chart's schema know the settings of `config.json` as the service does?

`deploy/helm/whisper-serve/values.schema.json` is written by hand but for its `$defs`, which are
those of the configuration; so Helm refuses a setting that the service would refuse when it starts.
`python -m checks.chart_schema` writes them anew, and `tests/deploy/test_chart.py` notices when that
was forgotten.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from whisper_serve.config import Config

SCHEMA = Path("deploy/helm/whisper-serve/values.schema.json")


def definitions() -> dict[str, Any]:
    """The configuration as JSON schema, with the sections it refers to."""
    whole = Config.model_json_schema()
    sections = whole.pop("$defs")
    return {**sections, "Config": whole}


def renewed(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "$defs": definitions()}


def main(path: Path) -> int:
    schema = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(renewed(schema), indent=2) + "\n", encoding="utf-8")
    print(f"{path} knows the configuration of today")
    return 0


if __name__ == "__main__":
    sys.exit(main(SCHEMA))
