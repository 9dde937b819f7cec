#!/usr/bin/env bash
# Every check of the contracts, setting up what is missing:
#   Brownie's tests (unit, attacks, properties, invariants, shared vectors, gas figures), in two processes with an Anvil
#   each; Slither. That the exported ABI is what the sources give is `make lint`'s to say.
# COROLLA_EXAMPLES=1000 makes hypothesis look harder (default 40).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
echo "== Slither, while Brownie compiles"
bash scripts/slither.sh &
slither=$!
# By itself: whoever loads the project after a change rewrites build/, and two workers must not do so at once.
bash scripts/brownie.sh compile
wait "$slither"
echo "== Brownie on Anvil"
bash scripts/brownie.sh test tests -n 2 --no-loadscope-reorder "$@"
