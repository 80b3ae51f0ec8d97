"""Files of the chart that are made, of the models and of the schema. Run as a script it writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from memferry.manifest.crd import crds, text

__all__ = ["CHART", "CRD_FILES", "README", "filled_readme"]

CHART: Final = Path(__file__).parents[2] / "charts" / "memferry"
README: Final = CHART / "README.md"

CRD_FILES: Final = {CHART / "files" / "crds" / f"{one['metadata']['name']}.yaml": text(one) for one in crds()}
"""Content of each file of a definition."""

_BEGIN, _END = "<!-- values -->\n", "<!-- end values -->"


def _rows(schema: dict[str, Any], values: dict[str, Any], path: str) -> Iterator[str]:
    for name, one in schema["properties"].items():
        if one.get("properties"):
            yield from _rows(one, values[name], f"{path}{name}.")
        elif name in values:
            default = json.dumps(values[name])
            allowed = ", ".join(f"`{value}`" for value in one.get("enum", ()))
            yield f"| `{path}{name}` | {one['description']}{f' ({allowed})' if allowed else ''} | `{default}` |"


def filled_readme(page: str) -> str:
    """The chart's page with the table of its values."""
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    table = "| value | meaning | default |\n|---|---|---|\n" + "\n".join(_rows(schema, values, "")) + "\n"
    before, rest = page.split(_BEGIN, 1)
    return before + _BEGIN + table + _END + rest.split(_END, 1)[1]


if __name__ == "__main__":
    for path, content in CRD_FILES.items():
        path.write_text(content, "utf-8")
    README.write_text(filled_readme(README.read_text("utf-8")), "utf-8")
