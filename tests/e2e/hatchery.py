"""A process that has imported what nodes and validators import, and forks into them.

A devnet of real processes spends most of its start importing torch and transformers, ten seconds of processor time
each. What is hatched is a process like any other: a session and group of its own, its own environment, arguments and
output, and killed with us. That the installed commands start by themselves is shown where they are run as such: by the
tutorials, the demo and every `corolla-node status` of these tests.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ENTRIES = {"corolla-node": "corolla_node.cli.main", "validator": "corolla_validator.cli.main"}
PRELOADED = (
    *ENTRIES.values(),
    "corolla_core.swarm.dht",
    "corolla_node.running",
    "corolla_validator.running",
    "transformers.models.llama.modeling_llama",
)
_LARGEST = 1 << 20
_PR_SET_PDEATHSIG = 1


class Hatchery:
    """Use as a context manager; `popen` takes the place of `subprocess.Popen` in `corolla.devnet.process`."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ended: dict[int, int] = {}
        self._lock = threading.Lock()
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, env=environ, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def __enter__(self) -> Hatchery:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._process.wait(timeout=30)

    def popen(self, command: Sequence[str], **options: Any) -> Hatched | subprocess.Popen[bytes]:
        ours = Path(command[0]).name in ENTRIES or (command[0] == sys.executable and command[1] != "-c")
        if options["preexec_fn"] is None or not ours:
            return subprocess.Popen(command, **options)
        asked = {
            "command": list(command),
            "env": dict(options["env"]),
            "out": options["stdout"].name,
            "log": options["stderr"].name,
        }
        with self._lock:
            self._ours.send(json.dumps(asked).encode())
            while True:
                told = json.loads(self._ours.recv(_LARGEST))
                if "hatched" in told:
                    return Hatched(told["hatched"], self)
                self._ended[told["ended"]] = told["status"]

    def ended(self, pid: int) -> int | None:
        with self._lock:
            self._ours.setblocking(False)
            try:
                while True:
                    told = json.loads(self._ours.recv(_LARGEST))
                    self._ended[told["ended"]] = told["status"]
            except BlockingIOError:
                return self._ended.get(pid)
            finally:
                self._ours.setblocking(True)


class Hatched:
    """As much of a `Popen` as `Child` uses."""

    def __init__(self, pid: int, hatchery: Hatchery) -> None:
        self.pid = pid
        self._hatchery = hatchery

    def poll(self) -> int | None:
        return self._hatchery.ended(self.pid)

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def hatch(link: socket.socket) -> list[str]:
    """Serve until the other end closes. Returns in every process that was asked for, with its command."""
    signal.signal(signal.SIGCHLD, lambda *_: _tell_ended(link))
    while True:
        request = link.recv(_LARGEST)
        if not request:
            sys.exit()
        asked = json.loads(request)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid:
            link.send(json.dumps({"hatched": pid}).encode())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            link.close()
            _become(asked["env"], Path(asked["out"]), Path(asked["log"]))
            return list(asked["command"])


def _tell_ended(link: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        link.send(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}).encode())


def _become(environ: Mapping[str, str], out: Path, log: Path) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for number, opened in enumerate((os.open(os.devnull, os.O_RDONLY), os.open(out, flags), os.open(log, flags))):
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environ)


def run(command: list[str]) -> None:
    """What the command would do, here."""
    program, *words = command
    if program != sys.executable:
        sys.argv = command
        sys.exit(import_module(ENTRIES[Path(program).name]).app())
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for module in PRELOADED:
        import_module(module)
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:  # a lock that one of them holds would be held for ever in what is forked
        sys.exit(f"{threads} threads run after the imports")
    run(hatch(socket.socket(fileno=int(sys.argv[1]))))
