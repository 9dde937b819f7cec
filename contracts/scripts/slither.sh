#!/usr/bin/env bash
# Static analysis of the deployed contracts. Fails on any finding that is not answered in the code, where a
# `slither-disable` comment stands next to the reason.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
input=$(mktemp "${TMPDIR:-/tmp}/corolla-slither.XXXXXX.json")
trap 'rm -f "$input"' EXIT
node scripts/compile.mjs --slither-input > "$input"
.venv-slither/bin/slither "$input" --compile-force-framework solc-json --solc "$PWD/.solc/solc" \
  --config-file slither.config.json "$@"
