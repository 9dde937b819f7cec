"""The console script `node`: our verbs are ours, everything else is for the Node.js that our name hides.

Inside a virtual environment this script shadows Node.js, and `npx`, `node -e` and scripts on stdin must go on working.
Only the standard library is imported on that way.
"""

from __future__ import annotations

import os
import sys

VERBS = frozenset(
    {
        "up",
        "down",
        "status",
        "earnings",
        "stake",
        "unstake",
        "withdraw",
        "cooperative",
        "config",
        "doctor",
        "--corolla-help",
    }
)


def next_node(own: str, path: str) -> str | None:
    """The first executable `node` on `path` that is not the file `own`."""
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder or os.curdir, "node")
        if not os.path.isfile(candidate) or not os.access(candidate, os.X_OK):
            continue
        if not os.path.samefile(candidate, own) and not _is_ours(candidate):
            return candidate
    return None


def _is_ours(candidate: str) -> bool:
    """Whether it is this shim in another virtual environment: two of them would hand the call back and forth."""
    with open(candidate, "rb") as file:
        head = file.read(1024)
    return head.startswith(b"#!") and b"corolla_node" in head


def main() -> None:
    arguments = sys.argv[1:]
    if arguments and arguments[0] in VERBS:
        from corolla_node.cli.main import app

        if arguments[0] == "--corolla-help":
            sys.argv[1:] = ["--help"]
        app(prog_name="node")
        return
    real = next_node(os.path.abspath(sys.argv[0]), os.environ.get("PATH", os.defpath))
    if real is None:
        sys.stderr.write(
            "node: this is Corolla's `node`, and there is no Node.js behind it on PATH.\n"
            f"Corolla's commands are: {', '.join(sorted(VERBS))}\n"
        )
        sys.exit(127)
    os.execv(real, [real, *arguments])


if __name__ == "__main__":
    main()
