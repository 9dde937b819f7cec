"""A node computes with what was asked for, is here and is admitted, or says why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_zoo import save_checkpoint

from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.protocol.errors import ConfigError, ModelError
from corolla_core.protocol.receipt import NumericClass
from corolla_node.engine import Engine, Machine, choose_engine, this_machine, usable_cores
from corolla_node.loading import block_bytes, blocks_that_fit

SIZES = {"float32": 400, "bfloat16": 200, "float16": 200, "int8": 100}
BARE = Machine(1000)
CARDS = Machine(1000, (150, 900, 500))


def chosen(device: str, dtype: str, *admitted: NumericClass, machine: Machine = BARE) -> Engine:
    return choose_engine(device, dtype, admitted=admitted, machine=machine, block_bytes=SIZES.__getitem__)


def test_without_a_card_a_node_computes_float32_on_the_cpu_and_says_why() -> None:
    assert chosen("auto", "auto") == Engine("cpu", "float32", 1000, "no CUDA card; float32 comes first there")
    assert chosen("cpu", "int8") == Engine("cpu", "int8", 1000, "as asked")


def test_the_card_with_the_most_room_is_taken_in_bfloat16() -> None:
    found = chosen("auto", "auto", machine=CARDS)
    assert (found.device, found.dtype, found.memory) == ("cuda:1", "bfloat16", 900)
    assert chosen("cuda:2", "float32", machine=CARDS).device == "cuda:2"
    assert chosen("cuda", "float16", machine=CARDS).device == "cuda:1"


def test_a_card_without_room_for_a_block_is_left_for_the_cpu() -> None:
    found = chosen("auto", "auto", machine=Machine(1000, (199,)))
    assert (found.device, found.dtype) == ("cpu", "float32")
    assert "cuda:0 has no room for a block" in found.why


def test_int8_is_computed_on_the_cpu_of_a_machine_with_cards() -> None:
    found = chosen("auto", "int8", machine=CARDS)
    assert found.device == "cpu"
    assert "int8 is not computed on cuda:1" in found.why


def test_arithmetic_that_nobody_named_is_the_first_one_admitted() -> None:
    assert chosen("auto", "auto", NumericClass.INT8, NumericClass.BF16).dtype == "int8"
    assert chosen("auto", "auto", NumericClass.FP32, machine=CARDS).dtype == "float32"
    found = chosen("auto", "auto", NumericClass.INT8, machine=CARDS)
    assert (found.device, found.dtype) == ("cpu", "int8")


@pytest.mark.parametrize(
    ("device", "dtype", "machine", "complaint"),
    [
        ("cuda", "auto", BARE, "no cuda"),
        ("cuda:3", "auto", CARDS, "no cuda:3"),
        ("cuda:0", "bfloat16", CARDS, "no room"),
        ("cpu", "float16", BARE, "float16 is not computed on cpu"),
        ("auto", "float16", BARE, "float16 is not computed on cpu"),
        ("cuda", "int8", CARDS, "int8 is not computed on cuda:1"),
        ("tpu", "auto", CARDS, "not tpu"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(device: str, dtype: str, machine: Machine, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        chosen(device, dtype, machine=machine)


def test_what_the_network_does_not_admit_is_refused() -> None:
    with pytest.raises(ModelError, match="admits fp32"):
        chosen("cpu", "int8", NumericClass.FP32)
    with pytest.raises(ModelError, match="admits fp16, tf32"):
        chosen("auto", "auto", NumericClass.FP16, NumericClass.TF32)


def test_int8_lets_a_node_hold_about_four_times_the_blocks(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(save_checkpoint("llama", tmp_path)))
    memory = block_bytes(checkpoint, "float32") * 2
    assert blocks_that_fit(checkpoint, dtype="float32", memory=memory) == 1
    assert blocks_that_fit(checkpoint, dtype="bfloat16", memory=memory) == 2
    assert blocks_that_fit(checkpoint, dtype="int8", memory=memory) == 4


def test_this_machine_has_memory() -> None:
    assert this_machine().memory > 0


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


SIBLINGS = {
    f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpu % 4},{cpu % 4 + 4}\n" for cpu in range(8)
}


def test_two_threads_of_one_core_count_once(tmp_path: Path) -> None:
    assert usable_cores(root=tree(tmp_path, SIBLINGS), cpus=range(8)) == 4
    assert usable_cores(root=tmp_path, cpus={1, 5, 6}) == 2


def test_cores_of_an_unknown_layout_are_what_the_process_may_run_on(tmp_path: Path) -> None:
    assert usable_cores(root=tmp_path, cpus=range(3)) == 3


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu.max": "900000 100000\n"}, 4),
        ({"cpu.max": "100000 0\n"}, 4),
        ({"cpu.max": "nonsense\n"}, 4),
    ],
)
def test_a_containers_quota_is_kept_to(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    tree(tmp_path, SIBLINGS)
    tree(tmp_path / "sys/fs/cgroup", files)
    assert usable_cores(root=tmp_path, cpus=range(8)) == cores


def test_there_is_a_core_here() -> None:
    assert usable_cores() >= 1
