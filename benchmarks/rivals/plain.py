"""Plain transformers: `python -m benchmarks.rivals.plain CHECKPOINT [FOLDER]`.

With a FOLDER its weights are accelerate's to keep there, and read for every pass: `disk_offload`, the way to run a
model that does not fit.
"""

from __future__ import annotations

import sys
from collections.abc import Generator

import torch
from accelerate import disk_offload
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from benchmarks.rivals.lines import serve


def main(checkpoint: str, folder: str | None = None) -> None:
    disable_progress_bar()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    if folder is not None:
        disk_offload(model, folder)

    @torch.inference_mode()
    def generate(prompt: list[int], tokens: int) -> Generator[int, None, None]:
        """The tightest plain loop: the model, its cache, argmax, nothing else."""
        out = model(input_ids=torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
        while True:
            token = int(out.logits[0, -1].argmax())
            yield token
            out = model(input_ids=torch.tensor([[token]]), past_key_values=out.past_key_values)

    serve(generate)


if __name__ == "__main__":
    main(*sys.argv[1:])
