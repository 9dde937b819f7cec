"""The cheats do what their names say, on a tiny model; and the detection benchmark counts as it claims."""

from __future__ import annotations

import pytest
import torch
from benchmarks.detection import one_by_one, upper_bound
from cheats import CHEATS, Stage, nothing, poison
from model_zoo import Zoo, tokens

from corolla_core.model.audited_span import load_audited_span
from corolla_core.model.numeric import load_served
from corolla_core.model.statistics import Windows
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span

SPAN = Span(0, 3)
LENGTH = 72


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    torch.set_num_threads(1)
    zoo = Zoo(tmp_path_factory.mktemp("zoo"))
    audited = load_audited_span(zoo.checkpoint("llama"), SPAN, NumericClass.BF16, wire="bfloat16")
    served = load_served(zoo.checkpoint("llama"), SPAN, NumericClass.BF16)
    return Stage(zoo.checkpoint("llama"), SPAN, NumericClass.BF16, served, audited, 0.02)


@pytest.fixture(scope="module")
def inputs(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    zoo = Zoo(tmp_path_factory.mktemp("front"))
    return zoo.front("llama").embed(tokens(11, 1, LENGTH), position=0).bfloat16()


@pytest.mark.parametrize("name", CHEATS)
def test_every_cheat_claims_rows_of_the_right_shape_that_are_not_the_honest_ones(
    name: str, stage: Stage, inputs: torch.Tensor
) -> None:
    claimed = CHEATS[name](stage, inputs)
    honest = nothing(stage, inputs)
    assert claimed.shape == honest.shape
    assert torch.isfinite(claimed).all()
    assert not torch.equal(claimed.bfloat16(), honest.bfloat16())
    statistics = stage.audited.statistics(inputs, claimed.bfloat16())
    if name not in ("int8 per channel", "int8 on one block", "int8 KV", "1 % noise", "poison (PGD)"):
        assert statistics.w16_max > 2 * stage.audited.statistics(inputs, honest.bfloat16()).w16_max


def test_stale_keys_spoil_the_second_half_only(stage: Stage, inputs: torch.Tensor) -> None:
    claimed, honest = CHEATS["stale KV"](stage, inputs), nothing(stage, inputs)
    half = LENGTH // 2
    torch.testing.assert_close(claimed[:, :half], honest[:, :half], rtol=0.02, atol=0.02)
    assert (claimed[:, half:] - honest[:, half:]).abs().max() > 0.1


def test_poison_stays_within_the_tolerance_and_does_more_harm_than_noise_of_its_size(
    stage: Stage, inputs: torch.Tensor
) -> None:
    honest = stage.audited.replay(inputs)
    poisoned = stage.audited.statistics(inputs, poison(stage, inputs))
    rng = torch.Generator().manual_seed(3)
    direction = torch.randn(honest.shape, generator=rng)
    harmless = honest + 0.8 * 0.02 * honest.norm(dim=-1, keepdim=True) * direction / direction.norm(
        dim=-1, keepdim=True
    )
    noise = stage.audited.statistics(inputs, harmless)
    assert poisoned.w16_max < 0.02
    assert poisoned.kl is not None
    assert noise.kl is not None
    assert poisoned.kl > 3 * noise.kl


def test_the_upper_bound_of_a_rate_never_seen_is_about_three_over_the_tries() -> None:
    assert upper_bound(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert upper_bound(5, 5) == 1
    assert upper_bound(1, 100) > 1 / 100


def test_windows_are_counted_one_by_one() -> None:
    seen = Windows(32, torch.tensor([[0.1, 0.2]]), {"int8": torch.tensor([[0.0, 0.9]])}, None, None)
    assert [(each.w16_max, each.alphas) for each in one_by_one(seen)] == [
        (pytest.approx(0.1), (("int8", 0.0),)),
        (pytest.approx(0.2), (("int8", pytest.approx(0.9)),)),
    ]
