"""Petals' client, run by its own Python: `… petals_client CHECKPOINT INITIAL_PEER PREFIX`."""

from __future__ import annotations

import sys
from collections.abc import Generator

import torch
from petals import AutoDistributedModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from benchmarks.rivals.lines import serve


def main(checkpoint: str, peer: str, prefix: str) -> None:
    disable_progress_bar()
    torch.set_num_threads(1)
    model = AutoDistributedModelForCausalLM.from_pretrained(
        checkpoint, initial_peers=[peer], dht_prefix=prefix, torch_dtype=torch.float32, show_route=False
    )

    @torch.inference_mode()
    def generate(prompt: list[int], tokens: int) -> Generator[int, None, None]:
        """The same tight loop as plain transformers', without Petals' `generate` around it."""
        with model.inference_session(max_length=len(prompt) + tokens):
            step = prompt
            while True:
                token = int(model(input_ids=torch.tensor([step])).logits[0, -1].argmax())
                yield token
                step = [token]

    serve(generate)


if __name__ == "__main__":
    main(*sys.argv[1:])
