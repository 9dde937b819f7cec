"""A gateway asks for as many open files as it takes connections."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("hard", "granted"), [(700, 700), (5000, 1000)])
def test_it_may_open_as_many_files_as_the_system_allows_and_never_fewer_than_before(hard: int, granted: int) -> None:
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (600, {hard}))\n"
        "from corolla.gateway.serve import allow_files\n"
        "print(allow_files(1000), resource.getrlimit(resource.RLIMIT_NOFILE)[0], allow_files(10))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(granted)] * 3
