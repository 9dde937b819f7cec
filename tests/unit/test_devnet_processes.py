"""The devnet's children: what they say is heard, how they end is noticed, and none outlives whom it should not."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla.devnet.process import Child, ChildRecord, stop_recorded
from corolla.devnet.state import DevnetState
from corolla_core.protocol.errors import ConfigError, ProcessFailed

pytestmark = pytest.mark.anyio


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def start(code: str, folder: Path, *, detached: bool = False) -> Child:
    return Child.start("child", python(code), folder=folder, env=os.environ, detached=detached)


def gone(pid: int, *, within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


async def test_the_ready_line_is_found_among_other_output(tmp_path: Path) -> None:
    child = start(
        """
        import time
        print("not json", flush=True)
        print('{"event": "loading"}', flush=True)
        print('{"event": "ready", "port": 7}', flush=True)
        time.sleep(60)
        """,
        tmp_path,
    )
    try:
        assert await child.wait_event("event", "ready", within=20) == {"event": "ready", "port": 7}
    finally:
        await child.stop(grace=0.1)


async def test_a_second_run_does_not_hear_the_first_ones_words(tmp_path: Path) -> None:
    first = start('print(\'{"event": "ready"}\')', tmp_path)
    await first.wait_event("event", "ready", within=20)
    await first.wait(within=20)
    second = start("pass", tmp_path)
    with pytest.raises(ProcessFailed):
        await second.wait_event("event", "ready", within=20)


async def test_a_child_that_exits_early_tells_why(tmp_path: Path) -> None:
    child = start("import sys; sys.exit('the stake is too small')", tmp_path)
    with pytest.raises(ProcessFailed, match="the stake is too small") as caught:
        await child.wait_event("event", "ready", within=20)
    assert caught.value.status == 1


async def test_a_silent_child_is_not_waited_for_forever(tmp_path: Path) -> None:
    child = start("import time; time.sleep(60)", tmp_path)
    try:
        with pytest.raises(ProcessFailed, match="not ready"):
            await child.wait_event("event", "ready", within=0.2)
    finally:
        await child.stop(grace=0.1)


async def test_a_missing_program_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed):
        Child.start("child", [str(tmp_path / "nothing")], folder=tmp_path, env=os.environ)


async def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path: Path) -> None:
    child = start(
        """
        import json, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(json.dumps({"grandchild": grandchild.pid}), flush=True)
        time.sleep(60)
        """,
        tmp_path,
    )
    grandchild = (await child.wait_event("grandchild", within=20))["grandchild"]
    await child.stop(grace=0.3)
    assert child.returncode == -signal.SIGKILL
    assert gone(grandchild)


def child_of_a_killed_parent(folder: Path, *, detached: bool) -> int:
    code = f"""
    import os, sys, time
    from pathlib import Path
    from corolla.devnet.process import Child
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = Child.start("c", sleep, folder=Path({str(folder)!r}), env=os.environ, detached={detached})
    print(child.pid, flush=True)
    time.sleep(60)
    """
    parent = subprocess.Popen(python(code), stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout as output:
        pid = int(output.readline())
    parent.kill()
    parent.wait()
    return pid


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize(("detached", "dies"), [(False, True), (True, False)])
async def test_a_child_dies_with_its_killed_parent_unless_detached(tmp_path: Path, detached: bool, dies: bool) -> None:
    pid = child_of_a_killed_parent(tmp_path, detached=detached)
    record = ChildRecord("c", pid, psutil.Process(pid).create_time() if psutil.pid_exists(pid) else 0.0, "", "")
    try:
        assert gone(pid, within=5.0 if dies else 0.5) is dies
    finally:
        await stop_recorded(record, grace=5.0)
    assert gone(pid)


async def test_a_stranger_with_a_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    child = start("import time; time.sleep(60)", tmp_path)
    try:
        earlier = dataclasses.replace(child.record(), created=child.record().created - 60)
        assert not earlier.running()
        await stop_recorded(earlier, grace=0.1)
        assert child.returncode is None
    finally:
        await child.stop(grace=0.1)


def a_state(pid: int = 1) -> DevnetState:
    return DevnetState(
        network="/n.json",
        rpc_url="http://127.0.0.1:1",
        model="/m",
        client_account="0x0",
        client_keystore="/k",
        password_file="/p",
        nodes=(),
        children=(ChildRecord("ganache", pid, 0.0, "/log", "/out"),),
    )


def test_the_state_file_says_what_was_saved(tmp_path: Path) -> None:
    a_state().save(tmp_path)
    assert DevnetState.load(tmp_path) == a_state()
    DevnetState.forget(tmp_path)
    assert DevnetState.load(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense", json.dumps({"nodes": [], "children": [], "more": 1})])
def test_a_damaged_state_file_is_a_typed_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(ConfigError):
        DevnetState.load(tmp_path)


@given(st.integers(1, 200), st.integers(1, 20))
def test_an_even_split_covers_every_block_once(blocks: int, parts: int) -> None:
    from corolla.devnet.split import split_evenly

    if parts > blocks:
        with pytest.raises(ConfigError):
            split_evenly(blocks, parts)
        return
    spans = split_evenly(blocks, parts)
    assert [block for span in spans for block in span.blocks()] == list(range(blocks))
    assert max(map(len, spans)) - min(map(len, spans)) <= 1
