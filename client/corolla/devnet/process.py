"""One child process of the devnet: its own process group, its output in files, gone when told or when we die."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import Any

import psutil

from corolla_core.protocol.errors import ProcessFailed

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_POLL = 0.05
_TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """A child as `state.json` remembers it. `created` tells it from a stranger that got its pid later."""

    name: str
    pid: int
    created: float
    log: str
    output: str

    def running(self) -> bool:
        return _alive(self.pid, self.created)


class Child:
    """A started program. Its stdout goes to `<name>.jsonl`, its stderr to `<name>.log`: no pipe that could fill up, or
    break when we are gone."""

    def __init__(self, name: str, process: Popen[bytes], *, folder: Path, output_start: int) -> None:
        self.name = name
        self.pid = process.pid
        self.log = folder / f"{name}.log"
        self.output = folder / f"{name}.jsonl"
        self._process = process
        self._output_start = output_start
        self._created = psutil.Process(process.pid).create_time()

    @classmethod
    def start(
        cls, name: str, command: Sequence[str], *, folder: Path, env: Mapping[str, str], detached: bool = False
    ) -> Child:
        """Run `command` in a process group of its own. Unless `detached`, the kernel kills it when we die (Linux)."""
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / f"{name}.jsonl"
        start = output.stat().st_size if output.exists() else 0
        with (folder / f"{name}.log").open("ab") as log, output.open("ab") as out:
            try:
                process = Popen(
                    list(command),
                    stdin=DEVNULL,
                    stdout=out,
                    stderr=log,
                    env=dict(env),
                    start_new_session=True,
                    preexec_fn=None if detached else _die_with_parent,
                )
            except OSError as error:
                raise ProcessFailed(f"{name} cannot start: {error}", name=name) from None
        return cls(name, process, folder=folder, output_start=start)

    def record(self) -> ChildRecord:
        return ChildRecord(self.name, self.pid, self._created, str(self.log), str(self.output))

    @property
    def returncode(self) -> int | None:
        """The exit status, None while it runs; minus the signal's number if one killed it."""
        return self._process.poll()

    def events(self) -> list[dict[str, Any]]:
        """The JSON objects this run has printed on stdout so far."""
        with self.output.open("rb") as file:
            file.seek(self._output_start)
            lines = file.read().splitlines(keepends=True)
        found = []
        for line in lines:
            if line.endswith(b"\n"):
                with suppress(ValueError):
                    value = json.loads(line)
                    if isinstance(value, dict):
                        found.append(value)
        return found

    async def wait_event(self, key: str, value: object = None, *, within: float) -> dict[str, Any]:
        """The first printed object that has `key` (equal to `value`, where one is given).

        Raises ProcessFailed, with the end of its log, if it exits first or stays silent for `within` seconds.
        """
        deadline = time.monotonic() + within
        while True:
            exited = self.returncode  # read before the output: what it printed last still counts
            for event in self.events():
                if key in event and (value is None or event[key] == value):
                    return event
            if exited is not None:
                raise self._failed(f"{self.name} exited with {exited}")
            if time.monotonic() > deadline:
                raise self._failed(f"{self.name} was not ready within {within:.0f} s")
            await asyncio.sleep(_POLL)

    def _failed(self, what: str) -> ProcessFailed:
        text = f"{what}; the end of {self.log}:\n{tail(self.log)}"
        return ProcessFailed(text, name=self.name, status=self.returncode)

    def terminate(self) -> None:
        """Ask it to finish (SIGTERM)."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """`kill -9` of this process alone, as a crash would: what it leaves behind is its own affair."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)

    async def wait(self, *, within: float) -> int:
        """Its exit status. Raises TimeoutError if it runs on for `within` seconds."""
        try:
            return await asyncio.to_thread(self._process.wait, within)
        except TimeoutExpired:
            raise TimeoutError(f"{self.name} runs on") from None

    async def stop(self, *, grace: float) -> None:
        """SIGTERM, and after `grace` seconds SIGKILL to its whole process group."""
        self.resume()
        self.terminate()
        with suppress(TimeoutError):
            await self.wait(within=grace)
        _kill_group(self.pid)
        await self.wait(within=10)


async def stop_recorded(record: ChildRecord, *, grace: float) -> None:
    """Stop a child that another process started: SIGTERM, and after `grace` seconds SIGKILL to its process group."""
    if record.running():
        with suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
        await asyncio.to_thread(_wait_gone, record, grace)
        _kill_group(record.pid)


def _wait_gone(record: ChildRecord, grace: float) -> None:
    # Not psutil's wait: a child whose parent is gone may stay a zombie for good where init reaps nothing.
    deadline = time.monotonic() + grace
    while record.running() and time.monotonic() < deadline:
        time.sleep(_POLL)


def tail(path: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log, or nothing where there is no log."""
    with suppress(FileNotFoundError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    return ""


def _alive(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 0.1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
