"""The redeemer's idea of gas stays close to what the contracts were measured to take."""

from __future__ import annotations

import json
from pathlib import Path

from corolla_node.redeemer import TRANSACTION_GAS, VOUCHER_GAS

MEASURED = json.loads((Path(__file__).resolve().parents[2] / "contracts" / "gas.json").read_text())


def test_the_estimate_of_a_redemption_is_a_little_above_the_measured_gas() -> None:
    for vouchers, name in (
        (1, "redeem, staked node, first"),
        (10, "redeem a batch of 10 tranches, staked node, first"),
    ):
        estimate = TRANSACTION_GAS + vouchers * VOUCHER_GAS
        assert MEASURED[name] <= estimate <= 1.2 * MEASURED[name]
