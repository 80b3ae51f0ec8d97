"""Files of the chart that are made of the models. Run as a script it writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from memferry.manifest.crd import crds, text

__all__ = ["CHART", "CRD_FILES"]

CHART: Final = Path(__file__).parents[2] / "charts" / "memferry"

CRD_FILES: Final = {CHART / "files" / "crds" / f"{one['metadata']['name']}.yaml": text(one) for one in crds()}
"""Content of each file of a definition."""

if __name__ == "__main__":
    for path, content in CRD_FILES.items():
        path.write_text(content, "utf-8")
