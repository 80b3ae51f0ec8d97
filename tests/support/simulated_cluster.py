"""A cluster, its workers and an application, as far as the brain can tell them from real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from memferry.manifest import Backend, Migration
from memferry.manifest.binding import Binding
from memferry.manifest.status import MigrationStatus
from memferry_operator import names
from memferry_operator.actions import (
    Action,
    AddFinalizer,
    CreateJob,
    DeleteJob,
    DeletePod,
    Emit,
    ExpireJob,
    FlagNewerStatus,
    PatchJob,
    Prepare,
    RemoveFinalizer,
    SendCommand,
    WakeAt,
    WriteBinding,
    WriteStatus,
)
from memferry_operator.brain import plan
from memferry_operator.brain.draft import TERMINAL
from memferry_operator.observed import Answer, BindingState, Client, Command, Job, Observed, Pod, Progress, WorkerLease

START = datetime(2026, 1, 1, tzinfo=UTC)
UID = "uid-1"


class ConflictError(Exception):
    """What was observed is no longer what stands there."""


@dataclass
class App:
    """A client: what it does follows from what it last read of the binding."""

    name: str
    revision: int = 0
    mode: Literal["Serving", "Frozen"] = "Serving"
    active: str = "a"
    silent: bool = False
    written: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class World:
    """Everything there is, and everything that can happen to it.

    Attributes:
        probe: What else the switch worker answers to a `Probe`.
        unproven: What else a verification says that ends with 42; it finds a record missing.
        exits: Exit codes that workers will end with, by role, used up one after another; then 0.
        log: Every action that was done.
    """

    spec: dict[str, Any]
    bound: bool = False
    way_back: bool = True
    now: datetime = START
    status: MigrationStatus = field(default_factory=MigrationStatus)
    version: int = 1
    generation: int = 1
    finalizer: bool = False
    deleting: bool = False
    gone: bool = False
    backends: dict[str, Backend] = field(default_factory=dict)
    binding: BindingState | None = None
    journal: dict[str, Any] = field(default_factory=lambda: {"revision": 1, "mode": "Serving", "active": "a"})
    jobs: dict[str, Job] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    leases: dict[str, WorkerLease] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    command: Command | None = None
    exits: dict[str, list[int]] = field(default_factory=dict)
    probe: dict[str, Any] = field(default_factory=dict)
    unproven: dict[str, Any] = field(default_factory=dict)
    final_pass: list[dict[str, Any]] = field(default_factory=list)
    passes: int = 0
    conflicts: int = 0
    pass_secs: float = 1.0
    apps: list[App] = field(default_factory=list)
    carried: set[str] = field(default_factory=set)
    log: list[Action] = field(default_factory=list)
    slot: bool = True
    ending: bool = False

    def __post_init__(self) -> None:
        for name in ("a", "b"):
            self.backends.setdefault(
                name,
                Backend.model_validate({"backend": "qdrant", "address": f"{name}:6334", "collection": name}),
            )
        if self.bound:
            self.spec.setdefault("cutover", {})["bindingRef"] = {"name": "app"}
            spec = Binding.model_validate({"initialBackendRef": {"name": "a"}, "clients": {"selector": {"app": "x"}}})
            self.binding = BindingState("app", "uid-b", "1", spec, active="a", revision=1)
            self.apps = self.apps or [App("app-0", revision=1), App("app-1", revision=1)]

    # what the operator sees and does

    def observe(self) -> Observed:
        binding = self.binding
        if binding is not None:
            clients = tuple(Client(a.name, self.now, a.revision, a.mode, a.active) for a in self.apps)
            binding = dataclasses.replace(binding, clients=clients)
        spec = {"source": {"backendRef": {"name": "a"}}, "target": {"backendRef": {"name": "b"}}, **self.spec}
        return Observed(
            name="m",
            namespace="ns",
            uid=UID,
            generation=self.generation,
            resource_version=str(self.version),
            spec=Migration.model_validate(spec),
            status=self.status,
            deleting=self.deleting,
            finalizer=self.finalizer,
            backends=self.backends,
            binding=binding,
            jobs=tuple(self.jobs.values()),
            pods=tuple(self.pods.values()),
            leases=dict(self.leases),
            results=self.results,
            command=self.command,
            slot=self.slot,
            ending=self.ending,
        )

    def reconcile(self, stop: Callable[[int], bool] = lambda _: False) -> bool:
        """A round; whether anything was done. `stop` says before which action the operator is killed."""
        if self.gone:
            return False
        observed = self.observe()
        actions = [a for a in plan(observed, self.now) if not isinstance(a, WakeAt)]
        written = False
        for action in actions:
            if stop(len(self.log)):
                return True
            if isinstance(action, CreateJob | SendCommand | PatchJob | DeletePod):
                assert written or observed.status == self.status, "an effect before its intent"
            try:
                self.do(action, observed)
            except ConflictError:
                return True
            written = written or isinstance(action, WriteStatus)
        return bool(actions)

    def do(self, action: Action, observed: Observed) -> None:  # noqa: PLR0912 - a case an action
        self.log.append(action)
        match action:
            case AddFinalizer():
                self.finalizer, self.version = True, self.version + 1
            case RemoveFinalizer():
                self.finalizer, self.gone = False, self.deleting
                if self.gone:
                    self.jobs.clear()
                    self.pods.clear()
            case WriteStatus(status):
                if observed.resource_version != str(self.version):
                    raise ConflictError
                self.status, self.version = (
                    MigrationStatus.model_validate(status.model_dump(by_alias=True)),
                    self.version + 1,
                )
            case CreateJob():
                name = names.job("m", action.role, action.attempt)
                if name not in self.jobs:
                    self.jobs[name] = Job(
                        name,
                        action.role,
                        action.attempt,
                        suspended=action.suspend,
                        parallelism=action.parallelism,
                        active=action.completions,
                    )
            case PatchJob():
                if action.name in self.jobs:
                    job = self.jobs[action.name]
                    suspended, parallelism = action.suspend, action.parallelism
                    self.jobs[action.name] = dataclasses.replace(job, suspended=suspended, parallelism=parallelism)
            case ExpireJob(name):
                if name in self.jobs:
                    self.jobs[name] = dataclasses.replace(self.jobs[name], expires=True)
            case DeleteJob(name):
                ended = self.jobs.pop(name, None)
                if ended:
                    self.pods = {
                        n: dataclasses.replace(p, deleting=True)
                        if (p.role, p.attempt) == (ended.role, ended.attempt)
                        else p
                        for n, p in self.pods.items()
                    }
            case DeletePod(name):
                self.pods.pop(name, None)
            case SendCommand(command):
                self.command = command
            case WriteBinding():
                assert self.binding is not None
                seen = observed.binding
                if seen is None or seen.resource_version != self.binding.resource_version:
                    raise ConflictError
                assert action.revision >= self.binding.revision, "a revision never goes back"
                self.binding = dataclasses.replace(
                    self.binding,
                    resource_version=str(int(self.binding.resource_version) + 1),
                    active=action.active,
                    revision=action.revision,
                    mode=action.mode,
                    frozen_until=action.frozen_until,
                    locked_by_uid=UID if action.locked else "",
                    locked_by_name="m" if action.locked else "",
                )
            case Prepare() | Emit() | FlagNewerStatus() | WakeAt():
                pass

    # what happens by itself

    def workers(self) -> bool:
        """Every pod and Job makes a step; whether anything changed."""
        moved = False
        for name, pod in list(self.pods.items()):
            if pod.deleting:
                del self.pods[name]
                moved = True
        for job in list(self.jobs.values()):
            moved = self._job(job) or moved
        return moved

    def _job(self, job: Job) -> bool:
        pod_name = f"{job.name}-0"
        pod = self.pods.get(pod_name)
        if job.ended:
            return False
        if job.suspended:
            return self.pods.pop(pod_name, None) is not None
        if pod is None:
            self.pods[pod_name] = Pod(pod_name, job.role, job.attempt, phase="Running", ready=True, since=self.now)
            return True
        if job.role == "switch":
            return self._switch(pod_name)
        code = self.exits.get(job.role, []).pop(0) if self.exits.get(job.role) else 0
        self.results[job.role] = self._result(job.role) if code == 0 else {"error": {"code": "gap", "message": "no"}}
        if (job.role, code) == ("verify", 42):
            self.results["verify"] |= {"verify": {**self._result("verify"), "missing": 1}, **self.unproven}
        if job.role == "transfer" and not code:
            self._carry("a")
        failure = {0: None, 42: "FailedIndexes", 43: "PodFailurePolicy"}.get(code, "BackoffLimitExceeded")
        self.pods[pod_name] = dataclasses.replace(pod, phase="Failed" if code else "Succeeded", exit_code=code)
        self.jobs[job.name] = dataclasses.replace(
            job, complete=code == 0, failure=failure, succeeded=job.active, active=0
        )
        return True

    def _result(self, role: str) -> dict[str, Any]:
        if role == "plan":
            return {"planHash": "h", "records": 10, "shards": 2, "changes": "log", "wayBack": self.way_back}
        return {"compared": 10, "missing": 0, "extra": 0, "different": 0}

    def _switch(self, pod_name: str) -> bool:
        name = names.lease("m", "switch")
        old = self.leases.get(name, WorkerLease(name))
        renewed = dataclasses.replace(old, holder=pod_name, renewed_at=self.now)
        command, moved = self.command, renewed != old
        if command and (old.answer is None or command.sequence != old.answer.sequence or command.verb == "Pass"):
            renewed = dataclasses.replace(renewed, answer=self._answer(command))
            moved = command.verb != "Pass" or old.answer is None or command.sequence != old.answer.sequence
        self.leases[name] = renewed
        return moved

    def _answer(self, command: Command) -> Answer:
        body: dict[str, Any] = {}
        done, code = True, "books"
        if command.verb == "Journal":
            asked = {"revision": command.revision, "mode": command.mode, "active": command.active}
            stands = self.journal["revision"]
            assert command.revision is not None
            if command.revision > stands or asked == self.journal:
                self.journal = asked
            else:
                done, code = False, "journal"
        elif command.verb == "ReadJournal":
            body = {"journal": dict(self.journal)}
        elif command.verb == "Pass":
            self.passes += 1
            self._carry(self.serving())
            body = {
                "pass": self.passes,
                "changed": 1,
                "passSecs": self.pass_secs,
                "verifySecs": self.pass_secs,
                "conflicts": self.conflicts,
            }
        elif command.verb == "FinalPass":
            body = self.final_pass.pop(0) if self.final_pass else {"changed": 0, "missing": 0, "different": 0}
            done = body.pop("done", True)
            if done:
                self._carry(self.serving())
        elif command.verb == "Probe":
            body = {"source": {"reachable": True}, "target": {"reachable": True}, "stray": {"records": 0, "ids": []}}
            body |= self.probe
        return Answer(command.sequence, command.verb, done, code="" if done else code, message="", body=body)

    def _carry(self, side: str) -> None:
        self.carried |= {f"{app.name}:{n}" for app in self.apps for s, n in app.written if s == side}

    def lost(self) -> set[str]:
        """Writes to the side that does not serve which the serving side does not have."""
        side = self.serving()
        return {f"{app.name}:{n}" for app in self.apps for s, n in app.written if s != side} - self.carried

    def clients(self) -> bool:
        """Every client that hears reads the binding and acknowledges."""
        moved = False
        for app in self.apps:
            if app.silent or self.binding is None:
                continue
            new = (self.binding.revision, self.binding.mode, self.binding.active)
            moved = moved or new != (app.revision, app.mode, app.active)
            app.revision, app.mode, app.active = new
        return moved

    def write(self) -> None:
        """Every client that may, writes."""
        for app in self.apps:
            if app.mode == "Serving":
                app.written.append((app.active, len(app.written)))

    def job(self, role: str) -> Job | None:
        """The newest Job of a role."""
        found = [job for job in self.jobs.values() if job.role == role]
        return max(found, key=lambda job: job.attempt, default=None)

    def serving(self) -> str:
        return self.binding.active if self.binding else "a"

    def unfreeze(self) -> None:
        """Somebody ends a freeze past the operator: the side before it serves, and no journal says so."""
        traffic, binding = self.status.traffic, self.binding
        if binding is None or binding.mode == "Serving" or traffic is None:
            return
        self.binding = dataclasses.replace(
            binding,
            resource_version=str(int(binding.resource_version) + 1),
            active="b" if traffic.direction == "Back" or traffic.switched_at else "a",
            revision=max(binding.revision, traffic.revision) + 1,
            mode="Serving",
            frozen_until=None,
        )

    def edit(self, **changes: Any) -> None:
        """The user changes the spec."""
        for key, value in changes.items():
            self.spec[key] = {**self.spec.get(key, {}), **value} if isinstance(value, dict) else value
        self.generation += 1
        self.version += 1

    def approve(self) -> None:
        approval = self.status.approval
        if approval is None:
            return
        if approval.for_ == "Cutover":
            self.edit(cutover={"approve": approval.token})
        else:
            self.edit(decommission={"confirm": approval.token})

    def progress(self, shard: int, **fields: Any) -> None:
        name = names.shard("m", shard)
        self.leases[name] = WorkerLease(name, f"m-transfer-{self.status.attempt}-0", self.now, Progress(**fields))

    # invariants

    def check(self) -> None:
        sides = {app.active for app in self.apps if app.mode == "Serving"}
        assert len(sides) <= 1, f"two sides serve: {sides}"

    def at_rest(self) -> None:
        """What holds when nobody has anything left to do."""
        if self.status.phase in TERMINAL or self.gone:
            assert not [j for j in self.jobs.values() if not j.ended], "a worker is left"
            if self.binding:
                assert self.binding.mode == "Serving", "frozen at rest"
                assert self.binding.locked_by_uid == "", "the binding is still held"
                told = any(isinstance(a, Emit) and a.reason == "JournalNotWritten" for a in self.log)
                assert told or self.journal["active"] == self.binding.active, "the journals name another side"
        assert not self.lost(), f"lost: {self.lost()}"

    def run(
        self,
        *,
        rounds: int = 400,
        stop: Callable[[int], bool] = lambda _: False,
        approve: bool = True,
        until: Callable[[], bool] | None = None,
        tick: timedelta = timedelta(seconds=1),
    ) -> None:
        """Everybody does what they do, until nothing more happens."""
        quiet = 0
        for _ in range(rounds):
            self.write()
            self.check()
            moved = self.reconcile(stop)
            self.check()
            if until and until():
                return
            moved = self.workers() or moved
            moved = self.clients() or moved
            self.check()
            if approve:
                self._approve_if_asked()
            self.now += tick
            quiet = 0 if moved else quiet + 1
            if quiet > 3 and (self.gone or self.status.phase in TERMINAL or self.status.reason == "Suspended"):
                break
            if quiet > 60:
                break
        self.at_rest()

    def _approve_if_asked(self) -> None:
        approval = self.status.approval
        if approval is None:
            return
        given = self.spec.get("cutover", {}).get("approve")
        if approval.for_ == "Cutover" and given != approval.token:
            self.approve()
        if approval.for_ == "Decommission" and self.spec.get("decommission", {}).get("confirm") != approval.token:
            self.approve()
