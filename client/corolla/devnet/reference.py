"""Plain transformers on the whole model: what every route through the network must reproduce, token for token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from corolla.values import ChatMessage


class Reference:
    """A checkpoint loaded whole in float32, decoding greedily with transformers' own model and cache."""

    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def chat_ids(self, messages: Sequence[ChatMessage]) -> list[int]:
        """A chat's prompt as the model's own template renders it, ready for an answer."""
        text = self.tokenizer.apply_chat_template(
            [dict(each) for each in messages], tokenize=False, add_generation_prompt=True
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def generate(self, prompt_ids: Sequence[int], max_tokens: int) -> list[int]:
        """The new tokens of `model.generate` without sampling, an end-of-sequence token left out."""
        prompt = torch.tensor([list(prompt_ids)])
        out = self.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=max_tokens
        )
        ids = [int(token) for token in out[0, len(prompt_ids) :]]
        return ids[:-1] if ids and ids[-1] in self.end_ids() else ids

    def text(self, token_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def end_ids(self) -> frozenset[int]:
        """Every token that ends a sequence, by the generation config."""
        configured = self.model.generation_config.eos_token_id
        if configured is None:
            return frozenset()
        return frozenset(configured if isinstance(configured, list) else [configured])
