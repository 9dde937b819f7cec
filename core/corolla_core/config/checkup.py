"""What may be wrong with this machine: its disk, its limits, its cores, and the ports it is to listen on."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from pathlib import Path

from corolla_core.protocol.finding import Finding

FREE_BYTES = 2 * 2**30
SCARCE_BYTES = 256 * 2**20
DESCRIPTORS = 4096
"""A node takes one for every peer, file and database connection."""


def examine_machine(folder: Path, *, threads: int | None, cores: int | None = None) -> list[Finding]:
    """`folder` is where files are written. `threads` as set; None: as many as are usable. `cores`: what is usable."""
    descriptors, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [
        judge_disk(shutil.disk_usage(_existing(folder)).free, folder),
        judge_descriptors(descriptors),
        judge_threads(threads, cores or len(os.sched_getaffinity(0))),
    ]


def judge_disk(free: int, folder: Path) -> Finding:
    found = f"{free / 2**30:.1f} GiB free in {folder}"
    advice = "free some space, or point COROLLA_HOME elsewhere"
    if free < SCARCE_BYTES:
        return Finding("disk", "bad", found, advice)
    return Finding("disk", "poor", found, advice) if free < FREE_BYTES else Finding("disk", "good", found)


def judge_descriptors(limit: int) -> Finding:
    found = f"{limit} files and connections may be open" if limit != resource.RLIM_INFINITY else "without limit"
    if limit != resource.RLIM_INFINITY and limit < DESCRIPTORS:
        return Finding("descriptors", "poor", found, f"raise it: `ulimit -n {DESCRIPTORS}`, or LimitNOFILE in systemd")
    return Finding("descriptors", "good", found)


def judge_threads(threads: int | None, cores: int) -> Finding:
    if threads is not None and threads > cores:
        found = f"{threads} threads on {cores} cores"
        return Finding("threads", "poor", found, f"set threads to {cores}: those beyond the cores stop all the others")
    return Finding("threads", "good", f"{cores if threads is None else threads} of {cores} cores")


def examine_port(check: str, host: str, port: int, *, setting: str) -> Finding:
    """Whether a program may listen there. Port 0 takes any that is free."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return Finding(check, "bad", f"{host}:{port}: {error.strerror}", f"end what listens there, or set {setting}")
    return Finding(check, "good", f"{host}:{port} is free")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
