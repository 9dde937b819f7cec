"""Petals in an environment of its own: `python -m benchmarks.rivals.petals_setup FOLDER`.

2.2.0.post1 is the newest release on PyPI. It wants a hivemind that no longer installs (its wheel would fetch a binary)
and libraries that older Pythons had, so that it is installed beside newer ones and a few lines of it are mended there.
Nothing of what computes or sends is touched.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PETALS = ("petals==2.2.0.post1", "tensor-parallel==1.0.23")
"""Installed without what they ask for."""
LIBRARIES = (
    "torch==2.13.0",
    "hivemind==1.1.12",
    "transformers==4.34.1",
    "numpy<2",
    "huggingface-hub<0.18",
    "peft==0.5.0",
    "accelerate==0.23.0",
    "pydantic>=2",
    "configargparse",
    "cpufeature",
    "dijkstar",
    "humanfriendly",
    "async-timeout",
    "speedtest-cli",
)
_HIVEMIND = """
from hivemind.compression import *
from hivemind.p2p import *
from hivemind.utils import *
from hivemind.utils.asyncio import anext
from hivemind.utils.nested import nested_compare
from hivemind.utils.tensor_descr import BatchTensorDescriptor, TensorDescriptor
"""
"""Names that hivemind 1.1.12 has no longer at its top."""
_DONE = ".ready"


def ensure(folder: Path) -> Path:
    """The environment's Python, after some minutes the first time. Raises CalledProcessError."""
    python = folder / "bin" / "python"
    if (folder / _DONE).exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # On stderr with it: stdout is the table's.
    subprocess.run([*pip, *LIBRARIES], check=True, stdout=sys.stderr)
    subprocess.run([*pip, "--no-deps", *PETALS], check=True, stdout=sys.stderr)
    [packages] = folder.glob("lib/python3*/site-packages")
    _mend(packages)
    (folder / _DONE).touch()
    return python


def _mend(packages: Path) -> None:
    top = packages / "hivemind" / "__init__.py"
    top.write_text(top.read_text() + _HIVEMIND)
    adapters = packages / "petals" / "utils" / "peft.py"
    text = adapters.read_text().replace("import bitsandbytes as bnb", "bnb = None")  # adapters and bits: not used here
    adapters.write_text(text.replace("lora.Linear8bitLt", "lora.Linear").replace("lora.Linear4bit", "lora.Linear"))


if __name__ == "__main__":
    ensure(Path(sys.argv[1]))
