#!/usr/bin/env bash
# Installs what the contract checks need into contracts/: npm packages, the solc shim, Brownie and Slither in
# environments of their own. Does nothing, fast, when that is already there.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3

if ! cmp -s package-lock.json node_modules/.lock-installed; then
  npm ci --no-audit --no-fund --loglevel=error >&2
  cp package-lock.json node_modules/.lock-installed
fi

mkdir -p .solc
ln -sfn ../scripts/solc.mjs .solc/solc-v0.8.30
ln -sfn ../scripts/solc.mjs .solc/solc

# Brownie pins some seventy exact versions: never in the product's environment. Its compiled wheel breaks stateful
# tests and our `networks:` section, hence the build from source without mypyc.
if ! cmp -s requirements.txt .venv/.installed; then
  "$python" -m venv --clear .venv
  .venv/bin/pip install -q "setuptools<81" wheel
  BROWNIE_NOCOMPILE=1 .venv/bin/pip install -q --no-binary eth-brownie --no-build-isolation -r requirements.txt
  cp requirements.txt .venv/.installed
fi
if ! cmp -s requirements-slither.txt .venv-slither/.installed; then
  "$python" -m venv --clear .venv-slither
  .venv-slither/bin/pip install -q -r requirements-slither.txt
  cp requirements-slither.txt .venv-slither/.installed
fi
