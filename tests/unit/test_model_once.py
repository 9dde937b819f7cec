"""What is made once: whole or not at all, also when several processes or a full disk get in the way."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from corolla_core.model.once import made_once
from corolla_core.protocol.errors import ModelError

_RACER = """
import sys, time
from pathlib import Path
from corolla_core.model.once import made_once

def make(work):
    with (Path(sys.argv[1]).parent / "calls").open("a") as calls:
        calls.write("made\\n")
    (work / "result").mkdir()
    time.sleep(0.3)
    (work / "result" / "done").write_text("yes")
    return work / "result"

print(made_once(Path(sys.argv[1]), is_ready=lambda p: (p / "done").is_file(), make=make))
"""


def is_ready(path: Path) -> bool:
    return (path / "done").is_file()


def make(work: Path) -> Path:
    result = work / "result"
    result.mkdir()
    (result / "done").write_text("yes")
    return result


def never(work: Path) -> Path:
    raise AssertionError("made again")


def test_it_is_made_once_and_then_only_found(tmp_path: Path) -> None:
    dest = tmp_path / "deep" / "dest"
    assert made_once(dest, is_ready=is_ready, make=make) == dest
    assert made_once(dest, is_ready=is_ready, make=never) == dest


def test_several_processes_make_it_once(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    command = [sys.executable, "-c", _RACER, str(dest)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [racer.communicate(timeout=60)[0].strip() for racer in racers] == [str(dest)] * 3
    assert (tmp_path / "calls").read_text() == "made\n"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    def fill(work: Path) -> Path:
        (work / "half").write_bytes(bytes(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ModelError, match="No space left"):
        made_once(tmp_path / "dest", is_ready=is_ready, make=fill)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert made_once(tmp_path / "dest", is_ready=is_ready, make=make) == tmp_path / "dest"


def test_a_failure_of_the_maker_comes_through_and_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(work: Path) -> Path:
        (work / "half").mkdir()
        raise ModelError("does not convert")

    with pytest.raises(ModelError, match="does not convert"):
        made_once(tmp_path / "dest", is_ready=is_ready, make=fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_broken_result_is_made_anew(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()
    (dest / "half").write_text("a crash left this")
    made_once(dest, is_ready=is_ready, make=make)
    assert sorted(path.name for path in dest.iterdir()) == ["done"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    killed = _RACER.replace("time.sleep(0.3)", "import os; os.kill(os.getpid(), 9)")
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path / "dest")], check=False).returncode == -9
    assert [path for path in tmp_path.iterdir() if path.is_dir()] != []
    made_once(tmp_path / "dest", is_ready=is_ready, make=make)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["dest"]


def test_waiting_for_another_process_ends(tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".dest.lock"), pytest.raises(ModelError, match="another process"):
        made_once(tmp_path / "dest", is_ready=is_ready, make=never, lock_seconds=0.05)
