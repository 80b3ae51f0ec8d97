"""Each reason why a person has to act has a page, and each page a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from memferry.manifest.status import StallReason

RUNBOOKS: Final = Path(__file__).parents[2] / "docs" / "runbooks"


def test_each_reason_has_a_page_and_each_page_a_reason() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {str(reason) for reason in StallReason}
    index = (RUNBOOKS / "README.md").read_text("utf-8")
    for reason in StallReason:
        page = (RUNBOOKS / f"{reason}.md").read_text("utf-8")
        assert page.startswith(f"# {reason}: ")
        assert "**Look**" in page
        assert "**Do**" in page
        title = page.splitlines()[0].removeprefix(f"# {reason}: ")
        assert f"| [{reason}]({reason}.md) | {title} |" in index
