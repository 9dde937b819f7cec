"""Whoever follows a tutorial gets what it says: its commands, one after the other, on a fresh machine's home."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tutorial import Kind, Step, steps

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "tutorials"
PATIENCE = 180.0


class Reader:
    """Sits at a terminal, in a folder of its own."""

    def __init__(self, desk: Path, environ: dict[str, str]) -> None:
        self.desk = desk
        self.environ = environ

    def follow(self, page: str) -> None:
        with ExitStack() as terminals:
            for step in steps((PAGES / page).read_text()):
                self._do(step, terminals)

    def _do(self, step: Step, terminals: ExitStack) -> None:
        if step.kind is Kind.FILE:
            (self.desk / step.expected).write_text(step.text)
        elif step.kind is Kind.STAY:
            terminals.enter_context(self._terminal(step))
        else:
            printed = self.run(step.text)
            assert step.expected in printed, f"{step.text}\nprinted\n{printed}"

    def run(self, commands: str) -> str:
        """What they print, when all have succeeded."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.desk,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def _terminal(self, step: Step) -> ExitStack:
        stack = ExitStack()
        log = (self.desk / f"terminal-{time.monotonic_ns()}").open("w+")
        stack.callback(log.close)
        command = ["bash", "-c", f"exec {step.text}"]
        process = subprocess.Popen(
            command, cwd=self.desk, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        stack.callback(process.wait, timeout=60)
        stack.callback(process.terminate)
        deadline = time.monotonic() + PATIENCE
        while step.expected not in (printed := Path(log.name).read_text()):
            assert process.poll() is None, f"{step.text}\nended with {process.returncode}\n{printed}"
            assert time.monotonic() < deadline, f"{step.text}\nprinted no {step.expected}:\n{printed}"
            time.sleep(0.2)
        return stack


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Reader]:
    """In a clone where everything is set up, with a home in which there is nothing but the model."""
    set_up, *begin = steps((PAGES / "start.md").read_text())
    subprocess.run(["bash", "-euc", set_up.text], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    desk = tmp_path_factory.mktemp("desk")
    home = desk / ".corolla"
    home.mkdir()
    (home / "models").symlink_to(checkpoint.parent)
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    reader = Reader(desk, {**os.environ, "COROLLA_HOME": str(home), "PATH": path, "NO_COLOR": "1"})
    try:
        with ExitStack() as terminals:
            for step in begin:
                reader._do(step, terminals)
        yield reader
    finally:
        reader.run("corolla devnet down")


@pytest.mark.parametrize("page", ["developer.md", "miner.md", "validator.md"])
def test_a_tutorial_does_what_it_says(reader: Reader, page: str) -> None:
    reader.follow(page)


def test_every_tutorial_is_followed() -> None:
    assert {page.name for page in PAGES.glob("*.md")} == {"start.md", "developer.md", "miner.md", "validator.md"}
