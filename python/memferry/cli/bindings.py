"""Verbs with the MemoryBinding of a cluster: binding status, binding unfreeze."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memferry.cli.common import Json, app, guard
from memferry.cli.console import print_json, show
from memferry.cli.groups import grouped

if TYPE_CHECKING:
    from memferry.binding.admin import Report
    from memferry.binding.cluster import Cluster

binding_app = typer.Typer(
    help="The MemoryBinding of a cluster: which store an application uses.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(binding_app, name="binding")

Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the MemoryBinding")]

WithoutJournal = Annotated[
    bool,
    typer.Option(
        "--without-journal", help="do it where no store is reached; the operator writes the journals once it runs again"
    ),
]


@dataclass(frozen=True)
class Where:
    """Which cluster."""

    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="where none: that of the context")] = None
    kubeconfig: Annotated[Path | None, typer.Option(metavar="FILE", help="where none: $KUBECONFIG, ~/.kube/config")] = (
        None
    )
    context: Annotated[str | None, typer.Option(help="a context of it")] = None

    def cluster(self) -> Cluster:
        """The cluster."""
        from memferry.binding.cluster import connected  # noqa: PLC0415 - nobody else waits for it

        return connected(self.namespace, kubeconfig=self.kubeconfig, context=self.context)


@binding_app.command("status")
@grouped
def binding_status(name: Name, where: Where, *, as_json: Json = False) -> None:
    """Says which store serves, whether writes are frozen, and who has not acknowledged that.

    \b
    Example:
      memferry binding status agents-memory -n agents
    """

    def work() -> int:
        from memferry.binding.admin import binding_report  # noqa: PLC0415

        report = binding_report(where.cluster(), name)
        if as_json:
            print_json(report.to_json())
        show(_text(report), as_json=as_json)
        return 0

    guard(work, as_json=as_json)


@binding_app.command("unfreeze")
@grouped
def binding_unfreeze(
    name: Name, where: Where, *, without_journal: WithoutJournal = False, as_json: Json = False
) -> None:
    """Breaks the glass: ends a freeze by a higher revision, on the side that served before.

    The journals in the stores say so first, so the store that is to serve has to be reached from here. A switch that is
    under way gives up. Where nothing is frozen, nothing is done.

    \b
    Example:
      memferry binding unfreeze agents-memory -n agents
    """

    def work() -> int:
        from memferry.binding.admin import unfreeze  # noqa: PLC0415

        done = unfreeze(where.cluster(), name, journal=not without_journal)
        if as_json:
            print_json(done.to_json())
        show("\n".join(done.said), as_json=as_json)
        return 0

    guard(work, as_json=as_json)


def _text(report: Report) -> str:
    status = report.status
    until = f" until {status.frozen_until}" if status.frozen_until else ""
    lock = f", held by migration {status.locked_by.name}" if status.locked_by else ""
    lines = [f"{report.name}: {status.mode}{until}, {status.active or 'no store'}, revision {status.revision}{lock}"]
    lines.append(f"  {len(report.clients) - len(report.silent)} of {len(report.clients)} clients acknowledged that")
    for client in report.silent:
        heard = f"last heard {client.heard_at:%H:%M:%S}" if client.heard_at else "never heard of"
        said = f"said {client.mode} {client.active} {client.revision}" if client.revision else "said nothing"
        lines.append(f"  not yet: {client.name}  {said}, {heard}{f', {client.problem}' if client.problem else ''}")
    failing = [client for client in report.clients if client.errors]
    lines += [f"  {client.name}: its store failed {client.errors} times" for client in failing]
    return "\n".join(lines)
