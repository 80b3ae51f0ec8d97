"""`gitops/argocd/argocd-cm.yaml`, made of the Lua files beside it. Run as a script it writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["ARGOCD", "CONFIG", "config_text"]

GITOPS: Final = Path(__file__).parents[2] / "gitops"
ARGOCD: Final = GITOPS / "argocd"
CONFIG: Final = ARGOCD / "argocd-cm.yaml"

_HEAD: Final = """\
# kubectl patch configmap argocd-cm -n argocd --patch-file gitops/argocd/argocd-cm.yaml
#
# Made of the Lua files in memferry.dev/; do not edit.
"""


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _dumped(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1000)


def config_text() -> str:
    """The part of Argo CD's ConfigMap that is ours."""
    data: dict[str, str] = {}
    for kind in sorted((ARGOCD / "memferry.dev").iterdir()):
        data[f"resource.customizations.health.memferry.dev_{kind.name}"] = (kind / "health.lua").read_text("utf-8")
        actions = kind / "actions"
        if actions.is_dir():
            scripts = sorted(actions.glob("*/action.lua"))
            found = [{"name": one.parent.name, "action.lua": one.read_text("utf-8")} for one in scripts]
            whole = {"discovery.lua": (actions / "discovery.lua").read_text("utf-8"), "definitions": found}
            data[f"resource.customizations.actions.memferry.dev_{kind.name}"] = _dumped(whole)
    return _HEAD + _dumped({"data": data})


if __name__ == "__main__":
    CONFIG.write_text(config_text(), "utf-8")
