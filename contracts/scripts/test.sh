#!/usr/bin/env bash
# Every check of the contracts, setting up what is missing:
#   the exported ABI and bytecode are what the sources give; Brownie's tests on Ganache (unit, attacks, properties,
#   invariants, shared vectors, gas figures); Slither.
# COROLLA_EXAMPLES=1000 makes hypothesis look harder (default 40).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
echo "== exported ABI and bytecode"
node scripts/compile.mjs --check
echo "== Brownie on Ganache"
bash scripts/brownie.sh test tests "$@"
echo "== Slither"
bash scripts/slither.sh
