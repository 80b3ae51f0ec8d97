"""Every verb as a process: exit codes, the last line, texts, signals."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from support.checker import differences, last_json, read_embedded, read_jsonl
from support.cli import memferry
from support.documents import memory, plain_documents, write_jsonl
from support.stores import execute
from testbed import wait
from testbed.forked import Done
from testbed.forked import run as run_process

RUNNER: Final = Path(__file__).parents[1] / "support" / "runner.py"
VERBS: Final = (
    "plan",
    "migrate",
    "verify",
    "status",
    "report",
    "rollback",
    "inspect",
    "backends",
    "quarantine list",
    "quarantine show",
)
COUNTS: Final = {"read", "written", "unchanged", "deduplicated", "filtered", "conflicts", "quarantined", "deleted"}
SECRET: Final = "hunter2-secret"

Cli = Callable[..., Done]


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("MEMFERRY_", "FORCE_COLOR", "NO_COLOR"))}
    return {**plain, "COLUMNS": "80", **changes}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs `memferry` in the test's folder."""

    def run(*arguments: str, **environment: str) -> Done:
        return run_process("-m", "memferry", *arguments, environment=_environment(environment), folder=tmp_path)

    return run


@contextlib.contextmanager
def paused(folder: Path, place: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run that stands still at a place until it gets a line."""
    with subprocess.Popen(
        [sys.executable, RUNNER, *arguments],
        cwd=folder,
        env=_environment({"MEMFERRY_TEST_PAUSE": place}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["started\n", "paused\n"]
            yield process
        finally:
            process.kill()


def write(folder: Path, count: int = 200, *, more: bytes = b"") -> None:
    path = write_jsonl(folder / "memory.jsonl", plain_documents(count, seed=31))
    path.write_bytes(path.read_bytes() + more)


# -- what every verb answers


def test_a_way_through_all_verbs(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path)
    for arguments in (
        ["backends"],
        ["inspect", "memory.jsonl"],
        ["plan", "memory.jsonl", "agents.db"],
        ["migrate", "memory.jsonl", "agents.db"],
        ["inspect", "agents.db"],
        ["verify", "memory.jsonl", "agents.db"],
        ["status", "agents.db"],
        ["report", "agents.db"],
        ["quarantine", "list", "agents.db"],
        ["rollback", "agents.db"],
    ):
        done = cli(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        assert done.stdout or arguments[0] == "quarantine", arguments
    assert read_embedded(tmp_path / "agents.db").records == {}


def test_the_final_object_of_a_migration(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path)
    done = cli("migrate", "memory.jsonl", "agents.db", "--json")
    final = last_json(done.stdout)
    assert set(final) >= {
        "migration", "outcome", "lossless", "gaps", "kinds", "verify", "elapsed_secs", "records_per_sec"
    }  # fmt: skip
    assert (final["outcome"], final["lossless"], final["gaps"]) == ("proven", True, [])
    assert all(set(counts) >= COUNTS for counts in final["kinds"].values())
    assert final["kinds"]["memory"] == {**final["kinds"]["memory"], "read": 80, "written": 80}
    assert final["verify"] == {"compared": 200, "missing": 0, "extra": 0, "different": 0, "foreign": 0}
    assert final["elapsed_secs"] > 0
    assert final["records_per_sec"] > 0


@pytest.mark.parametrize("verb", ["plan", "migrate", "verify", "status", "report", "rollback", "inspect", "backends"])
def test_json_is_one_line_on_stdout(cli: Cli, tmp_path: Path, verb: str) -> None:
    write(tmp_path)
    if verb not in {"plan", "migrate"}:
        cli("migrate", "memory.jsonl", "agents.db")
    both = ["memory.jsonl", "agents.db"]
    arguments = {"plan": both, "migrate": both, "verify": both, "backends": []}.get(verb, ["agents.db"])
    done = cli(verb, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert isinstance(json.loads(done.stdout), dict | list)


def test_a_list_of_quarantined_rows_is_one_object(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path, more=b"bad one\nbad two\n")
    assert cli("migrate", "memory.jsonl", "agents.db").returncode == 1
    done = cli("quarantine", "list", "agents.db", "--json")
    assert len(done.stdout.splitlines()) == 1, "one final object on every verb"
    json.loads(done.stdout)


def test_a_quarantined_row_is_shown_whole(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path, more=b'{"kind":"thing","id":"x"}\n')
    assert cli("migrate", "memory.jsonl", "agents.db").returncode == 1
    listed = cli("quarantine", "list", "agents.db").stdout
    number = listed.split()[0]
    assert "unclaimed" in listed
    done = cli("quarantine", "show", "agents.db", number)
    assert (done.returncode, done.stdout) == (0, '{"kind":"thing","id":"x"}\n')
    assert cli("quarantine", "show", "agents.db", "no such").returncode == 2


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_and_shows_an_example(cli: Cli, verb: str) -> None:
    done = cli(*verb.split(), "--help")
    assert done.returncode == 0
    assert re.search(r"Examples?:\s+memferry " + verb, done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_of_all_is_quick_to_read(cli: Cli) -> None:
    done = cli("--help")
    assert done.returncode == 0
    assert all(verb.split()[0] in done.stdout for verb in VERBS)
    assert max(map(len, done.stdout.splitlines())) <= 80


# -- exit codes


@pytest.mark.parametrize("name", ["agents.db", "hard.db", "soft.db"])
@pytest.mark.parametrize("arguments", [["plan"], ["migrate", "--dry-run"], ["migrate", "--on-existing", "overwrite"]])
def test_a_source_under_another_name_is_no_target(cli: Cli, tmp_path: Path, name: str, arguments: list[str]) -> None:
    write(tmp_path, 20)
    assert cli("migrate", "memory.jsonl", "agents.db").returncode == 0
    (tmp_path / "hard.db").hardlink_to(tmp_path / "agents.db")
    (tmp_path / "soft.db").symlink_to("agents.db")
    before = (tmp_path / "agents.db").read_bytes()
    verb, *options = arguments
    done = cli(verb, "agents.db", name, *options, "--json")
    assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, "invalid"), done.stderr
    assert "source and target are one store" in done.stderr
    assert (tmp_path / "agents.db").read_bytes() == before


def test_conflicts_and_quarantine_exit_1(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path)
    assert cli("migrate", "memory.jsonl", "agents.db").returncode == 0
    execute(tmp_path / "agents.db", [("UPDATE memory SET content = 'mine' WHERE id = 'm00010'", [])])
    done = cli("migrate", "memory.jsonl", "agents.db", "--json")
    final = last_json(done.stdout)
    assert (done.returncode, final["outcome"], final["kinds"]["memory"]["conflicts"]) == (1, "not_proven", 1)
    assert "m00010" in done.stderr
    assert "not_proven: 1 left as the target has them; all others are there" in done.stderr
    assert cli("verify", "memory.jsonl", "agents.db").returncode == 1
    assert cli("migrate", "memory.jsonl", "agents.db", "--on-conflict", "source").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["migrate", "nothing.jsonl", "agents.db"], "store-missing"),
        (["migrate", "nothing.db", "agents.db"], "store-missing"),
        (["migrate", "folder.db", "agents.db"], "store-missing"),
        (["migrate", "folder.jsonl", "agents.db"], "store-missing"),
        (["migrate", "memory.jsonl", "no/folder/agents.db"], "store-missing"),
        (["migrate", "memory.jsonl", "no/folder/copy.jsonl"], "store-missing"),
        (["migrate", "memory.jsonl", "folder.db"], "store-missing"),
        (["migrate", "memory.jsonl", "folder.jsonl"], "store-missing"),
        (["migrate", "text.db", "agents.db"], "store-format"),
        (["migrate", "memory.jsonl", "text.db"], "store-format"),
        (["migrate", "memory.jsonl", "x" * 300 + ".db"], "invalid"),
        (["migrate", "x" * 300 + ".jsonl", "agents.db"], "invalid"),
        (["migrate", "memory.jsonl", "x" * 300 + ".jsonl"], "invalid"),
        (["migrate", "memory.txt", "agents.db"], "url"),
        (["migrate", "memory.jsonl", "mysql://host/x"], "url"),
        (["migrate", "memory.jsonl?profile=none", "agents.db"], "profile"),
        (["migrate", "memory.jsonl", "agents.db?profile=server-memory"], "profile"),
        (["migrate", "memory.jsonl", "agents.db", "--accept", "nonsense"], "invalid"),
        (["migrate", "memory.jsonl", "agents.db", "--on-existing", "maybe"], "invalid"),
        (["migrate", "memory.jsonl", "agents.db", "--on-conflict", "maybe"], "invalid"),
        (["migrate", "memory.jsonl", "agents.db", "--sample", "99999999999999999999999"], "invalid"),
        (["migrate", "memory.jsonl", "agents.db", "--delete", "--max-deletes", "nan"], "invalid"),
        (["migrate", "memory.jsonl", "agents.db", "--delete", "--max-deletes", "-5"], "invalid"),
        (["migrate", "memory.jsonl", "\udcff.jsonl"], "url"),
        (["migrate", "\udcff.db", "agents.db"], "url"),
        (["plan", "nothing.jsonl", "agents.db"], "store-missing"),
        (["plan", "memory.jsonl", "agents.db", "--save", "text.db/plan.json"], "invalid"),
        (["verify", "memory.jsonl", "agents.db"], "no-migration"),
        (["status", "agents.db"], "no-migration"),
        (["report", "agents.db"], "no-migration"),
        (["rollback", "agents.db"], "no-migration"),
        (["rollback", "memory.jsonl"], "no-migration"),
        (["status", "memory.jsonl"], "no-migration"),
        (["inspect", "nothing.db"], "store-missing"),
        (["inspect", "folder.db"], "store-missing"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else value,
)
def test_what_is_refused_exits_2_and_writes_nothing(cli: Cli, tmp_path: Path, arguments: list[str], code: str) -> None:
    write(tmp_path, 20)
    (tmp_path / "text.db").write_text("no database\n" * 500)
    for name in ("folder.db", "folder.jsonl"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = cli(*arguments, "--json")
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done.stderr
    final = last_json(done.stdout)
    assert (final["outcome"], final["error"]["code"]) == ("refused", code)
    assert final["error"]["message"]
    assert final["error"].get("hint", "") in done.stderr
    assert f"error[{code}]" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "options",
    [
        ["--where", "\udcff"],
        ["--map", "\udcff.toml"],
        ["--plan", "\udcff"],
        ["--accept", "\udcff"],
        ["--events", "no/\udcff"],
    ],
    ids=lambda options: options[0],
)
def test_an_option_that_is_not_utf8_is_refused(cli: Cli, tmp_path: Path, options: list[str]) -> None:
    write(tmp_path, 5)
    done = cli("migrate", "memory.jsonl", "agents.db", *options, "--json")
    assert (done.returncode, last_json(done.stdout)["outcome"]) == (2, "refused"), done.stderr
    assert "Traceback" not in done.stderr
    done = cli("status", "agents.db", "--migration", "\udcff", "--json")
    assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, "no-migration"), done.stderr


@pytest.mark.parametrize("target", ["b.jsonl", "b.db", "jsonl:m.json?profile=server-memory", "b.db?identity=\udcff"])
def test_a_folder_that_is_not_utf8_is_refused(cli: Cli, tmp_path: Path, target: str) -> None:
    folder = tmp_path / "\udcff folder"
    folder.mkdir()
    write(folder, 5)
    (tmp_path / "link").symlink_to(folder.name)
    for place in (folder, tmp_path / "link"):
        done = memferry(place, "migrate", "memory.jsonl", target, "--json")
        assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, "url"), done.stderr
        assert [path.name for path in folder.iterdir()] == ["memory.jsonl"]


def _written_in(encoding: str, folder: Path, *arguments: str) -> bytes:
    """What a process of its own writes, which has an encoding from its start."""
    command = [sys.executable, "-m", "memferry", *arguments]
    environment = _environment({"PYTHONIOENCODING": encoding})
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).stdout


@pytest.mark.parametrize("encoding", ["utf-8:surrogateescape", "ascii:strict", "latin-1:strict"])
def test_the_final_object_is_utf8_whatever_the_encoding(tmp_path: Path, encoding: str) -> None:
    for name in ("\u00e9", "\udcff", "\u8bb0"):
        final = json.loads(_written_in(encoding, tmp_path, "plan", f"{name}.jsonl", "b.db", "--map", name, "--json"))
        assert (final["error"]["code"], name in final["error"]["message"]) == ("profile", True)


def test_a_report_fails_at_no_letter(tmp_path: Path) -> None:
    write(tmp_path, 5)
    assert rb"open `\xe9.db`" in _written_in("ascii:strict", tmp_path, "migrate", "memory.jsonl", "\u00e9.db")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["backends"], 3),
        (["--help"], 3),
        (["migrate", "memory.jsonl", "b.db", "--json"], 3),
        (["migrate", "nothing.jsonl", "b.db", "--json"], 2),
        (["migrate", "--json"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_stdout_that_is_full_is_told(tmp_path: Path, arguments: list[str], code: int, unbuffered: str) -> None:
    write(tmp_path, 5)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "memferry", *arguments],
            cwd=tmp_path,
            env=_environment({"PYTHONUNBUFFERED": unbuffered}),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert code == 2 or "error[io]" in done.stderr


def test_a_stderr_that_is_full_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, 5)
    command = [sys.executable, "-m", "memferry", "migrate", "memory.jsonl", "b.db", "--json"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, cwd=tmp_path, env=_environment({}), stdout=subprocess.PIPE, stderr=full, check=False
        )
    assert (done.returncode, last_json(done.stdout.decode())["outcome"]) == (0, "proven")


def test_work_in_a_folder_that_is_not_utf8_goes_on_where_the_stores_lie_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "\udcff folder"
    folder.mkdir()
    write(tmp_path, 5)
    source, target = str(tmp_path / "memory.jsonl"), str(tmp_path / "agents.db")
    done = memferry(folder, "migrate", source, target, "--json", "--events", "\udcff.ndjson")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line)["event"] for line in (folder / "\udcff.ndjson").read_text().splitlines()]
    assert (events[0], events[-1]) == ("started", "finished")
    [row] = last_json(memferry(folder, "status", target, "--json").stdout)
    assert row["outcome"] == "proven"


@pytest.mark.parametrize("arguments", [[], ["fly"], ["migrate", "one.db"], ["migrate", "a.db", "b.db", "--fast"]])
def test_what_is_no_command_exits_2(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["migrate", "one.db"], "Missing argument 'DST'"),
        (["migrate", "a.db", "b.db", "--fast"], "No such option: --fast"),
        (["plan", "a.db", "b.db", "--limit", "many"], "Invalid value for '--limit'"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_what_is_no_command_is_told_as_the_final_object_too(cli: Cli, arguments: list[str], said: str) -> None:
    done = cli(*arguments, "--json")
    final = last_json(done.stdout)
    assert (done.returncode, final["outcome"], final["error"]["code"]) == (2, "refused", "invalid")
    assert said in final["error"]["message"]
    assert "Usage:" in done.stderr


@pytest.mark.parametrize(
    "verb", [["report"], ["rollback"], ["quarantine", "list"], ["quarantine", "retry"], ["status"]], ids=" ".join
)
def test_what_knows_no_migration_is_not_made_a_store(cli: Cli, tmp_path: Path, verb: list[str]) -> None:
    (tmp_path / "empty.db").touch()
    done = cli(*verb, "empty.db", "--json")
    assert done.returncode == 2, done.stderr
    assert last_json(done.stdout)["error"]["code"] in {"no-migration", "store-format"}
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("empty.db", 0)]


def test_a_damaged_store_exits_3(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path)
    cli("migrate", "memory.jsonl", "copy.jsonl.gz")
    packed = (tmp_path / "copy.jsonl.gz").read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    done = cli("migrate", "cut.jsonl.gz", "agents.db", "--json")
    final = last_json(done.stdout)
    assert (done.returncode, final["outcome"], final["error"]["code"]) == (3, "failed", "store-corrupt")
    assert not (tmp_path / "agents.db").exists()


def test_names_of_files_are_only_names(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path, 20)
    for name in ("a b.db", "-x.db", "%41#'\";é.db", "$(touch oops).jsonl", "[red]x.jsonl.zst"):
        done = cli("migrate", "--json", "--", "memory.jsonl", name)
        assert done.returncode == 0, (name, done.stderr)
        assert (tmp_path / name).is_file()
        assert cli("verify", "--", "memory.jsonl", name).returncode == 0
        assert cli("status", "--", name).returncode == 0
    assert not (tmp_path / "oops").exists()


def test_several_migrations_have_to_be_named(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path, 20)
    write_jsonl(tmp_path / "other.jsonl", [memory("o")])
    first = last_json(cli("migrate", "memory.jsonl", "agents.db", "--json").stdout)["migration"]
    second = last_json(cli("migrate", "other.jsonl", "agents.db", "--json").stdout)["migration"]
    done = cli("rollback", "agents.db")
    assert done.returncode == 2
    assert first in done.stderr
    assert second in done.stderr
    assert {row["migration"] for row in last_json(cli("status", "agents.db", "--json").stdout)} == {first, second}
    done = cli("rollback", "agents.db", "--migration", second, "--json")
    assert (done.returncode, last_json(done.stdout)["outcome"]) == (0, "rolled_back")
    assert f"{second}  rolled_back\n" in cli("status", "agents.db").stdout
    nobody = cli("status", "agents.db", "--migration", "none", "--json")
    assert (nobody.returncode, last_json(nobody.stdout)["error"]["code"]) == (2, "no-migration")
    assert first in nobody.stderr
    told = cli("report", "agents.db", "--migration", second)
    assert (told.returncode, f"migration {second} was rolled back" in told.stderr) == (2, True)
    assert ("memory", "o") not in read_embedded(tmp_path / "agents.db").records
    assert cli("verify", "memory.jsonl", "agents.db").returncode == 0


def test_a_dry_run_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path, 20)
    before = sorted(tmp_path.rglob("*"))
    done = cli("migrate", "memory.jsonl", "agents.db", "--dry-run", "--json")
    assert (done.returncode, last_json(done.stdout)["rows"]) == (0, 20)
    assert sorted(tmp_path.rglob("*")) == before


# -- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("target", ["copy.db", "copy.jsonl", "copy.jsonl.zst"])
def test_a_signal_ends_after_the_page_and_the_same_command_resumes(
    cli: Cli, tmp_path: Path, number: signal.Signals, target: str
) -> None:
    write(tmp_path, 400)
    arguments = ["migrate", "memory.jsonl", target, "--json"]
    with paused(tmp_path, "x-written:3", *arguments) as process:
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.readline().startswith(f"{number.name}: finishing the page")
        out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 130, err
    final = last_json(out)
    assert (final["outcome"], final["error"]["code"]) == ("interrupted", "interrupted")
    assert "resumes" in err
    assert last_json(cli("status", target, "--json").stdout)[0]["state"] == "copying"
    done = cli(*arguments)
    assert (done.returncode, last_json(done.stdout)["resumed"]) == (0, True), done.stderr
    path = tmp_path / target
    found = read_embedded(path) if target.endswith(".db") else read_jsonl(path)
    assert differences(read_jsonl(tmp_path / "memory.jsonl"), found) == []


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    write(tmp_path, 400)
    with paused(tmp_path, "x-written:3", "migrate", "memory.jsonl", "copy.db") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("SIGTERM")

        def ended() -> bool:
            process.send_signal(signal.SIGTERM)
            return process.poll() is not None

        wait.until(ended, what="the end")
    assert process.returncode == -signal.SIGTERM


def test_a_signal_while_a_manifest_is_waited_for_is_told(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "memferry", "apply", "-f", "-", "--json"],
        cwd=tmp_path,
        env=_environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"#" * (1 << 20))  # More than a pipe holds: it is being read.
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, last_json(out.decode())["outcome"]) == (130, "interrupted"), err
    assert b"error[interrupted]" in err


def test_two_runs_at_once_exclude_each_other(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path, 400)
    arguments = ["migrate", "memory.jsonl", "copy.jsonl", "--json"]
    with paused(tmp_path, "x-unlinked:1", *arguments) as process:
        done = cli(*arguments)
        final = last_json(done.stdout)
        assert (done.returncode, final["error"]["code"]) == (2, "busy")
        assert str(process.pid) in final["error"]["message"]
        assert last_json(cli("rollback", "copy.jsonl", "--json").stdout)["error"]["code"] == "busy"
        out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 0, err
    assert last_json(out)["outcome"] == "proven"
    assert cli(*arguments).returncode == 0


# -- what people see


def test_without_a_terminal_there_is_no_escape(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path)
    for done in (cli("migrate", "memory.jsonl", "agents.db"), cli("migrate", "nothing.db", "agents.db")):
        assert "\x1b" not in done.stdout + done.stderr


def test_ids_of_records_move_no_cursor(cli: Cli, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "memory.jsonl", [memory("\x1b[2J\u202eodd"), memory("\x1b[2J\u202eodd")])
    assert cli("migrate", "memory.jsonl", "agents.db").returncode == 1
    told = cli("quarantine", "list", "agents.db")
    assert "\\x1b[2J\\u202eodd" in told.stdout
    assert "not_proven: 2 not moved; all others" in cli("verify", "memory.jsonl", "agents.db").stdout
    assert not set("\x1b\u202e") & set(told.stdout)


def test_a_report_fits_80_columns(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path, 400)
    done = cli("migrate", "memory.jsonl", "agents.db")
    assert [line for line in (done.stdout + done.stderr).splitlines() if len(line) > 80] == []
    execute(tmp_path / "agents.db", [("UPDATE memory SET content = 'x' WHERE id = 'm00010'", [])])
    done = cli("verify", "memory.jsonl", "agents.db")
    assert "m00010" in done.stdout
    assert "content" in done.stdout


def _on_a_terminal(folder: Path, *arguments: str, **environment: str) -> str:
    """Everything a terminal of 80 columns is sent."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "memferry", *arguments]
    variables = _environment({"TERM": "xterm-256color", **environment})
    with subprocess.Popen(
        command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        parts = []
        while select.select([leader], [], [], 60)[0]:
            try:
                data = os.read(leader, 65536)
            except OSError:  # how Linux tells the end of a terminal
                break
            if not data:
                break
            parts.append(data)
        process.wait(60)
    os.close(leader)
    return b"".join(parts).decode()


COLOR: Final = re.compile(r"\x1b\[[0-9;]*(3[0-79]|9[0-7]|38;)[0-9;]*m")


def test_progress_on_a_terminal_fits_and_obeys_no_color(tmp_path: Path) -> None:
    write(tmp_path, 2000)
    shown = _on_a_terminal(tmp_path, "migrate", "memory.jsonl", "agents.db", NO_COLOR="1")
    assert COLOR.search(shown) is None
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert [line for line in re.split(r"[\r\n]+", plain) if len(line) > 80] == []
    assert "proven" in plain


def test_errors_are_red_unless_no_color(tmp_path: Path) -> None:
    assert COLOR.search(_on_a_terminal(tmp_path, "inspect", "nothing.db"))
    assert COLOR.search(_on_a_terminal(tmp_path, "inspect", "nothing.db", NO_COLOR="1")) is None


@pytest.mark.parametrize(
    "url",
    [
        f"neo4j://ann:{SECRET}@localhost:7687/db",
        f"neo4j://ann:{SECRET}@localhost:port/db",
        f"qdrant://ann:{SECRET}@localhost/agents",
        f"qdrant://:{SECRET}@/agents",
        f"qdrant://localhost/agents?api_key={SECRET}",
        f"neo4j://ann@localhost/db?password={SECRET}",
        f"mysql://ann:{SECRET}@localhost/db",
        f"agents.db?key={SECRET}",
        f"neo4j://ann:{SECRET}@localhost/{{}}",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(cli: Cli, tmp_path: Path, url: str) -> None:
    write(tmp_path, 5)
    done = cli("migrate", "memory.jsonl", url, "--json", "--events", "events.ndjson")
    assert done.returncode == 2, done.stderr
    assert SECRET not in done.stdout + done.stderr + (tmp_path / "events.ndjson").read_text()
    assert last_json(done.stdout)["error"]["code"] == "url"


def test_secrets_of_the_environment_go_nowhere(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path)
    secret: dict[str, Any] = dict.fromkeys(
        ("MEMFERRY_SOURCE_API_KEY", "MEMFERRY_TARGET_API_KEY", "MEMFERRY_TARGET_PASSWORD"), SECRET
    )
    told = ""
    for arguments in (
        ["migrate", "memory.jsonl", "agents.db", "--json"],
        ["migrate", "memory.jsonl", "copy.jsonl", "--json"],
        ["status", "agents.db", "--json"],
        ["migrate", "nothing.db", "agents.db"],
    ):
        done = cli(*arguments, **secret)
        told += done.stdout + done.stderr
    assert SECRET not in told
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
