#!/usr/bin/env bash
# Runs Brownie with the project's own home, compiler and chain: `bash scripts/brownie.sh test -k redeem`.
# Ganache listens on a free port and dies with Brownie.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
home=$(mktemp -d "${TMPDIR:-/tmp}/corolla-brownie.XXXXXX")
trap 'rm -rf "$home"' EXIT
port=$(.venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir -p "$home/.brownie" "$home/bin"
# Where the kernel can do it, Ganache dies with Brownie even if that is killed outright.
cat > "$home/bin/ganache-cli" <<SH
#!/usr/bin/env bash
guard=(); command -v setpriv >/dev/null && guard=(setpriv --pdeathsig KILL --)
exec "\${guard[@]}" node "$root/node_modules/ganache/dist/node/cli.js" "\$@"
SH
chmod +x "$home/bin/ganache-cli"
cat > "$home/.brownie/network-config.yaml" <<YAML
live: []
development:
  - name: Ganache
    id: ganache-cli
    cmd: ganache-cli --logging.quiet --chain.chainId 1337 --chain.networkId 1337
    host: http://127.0.0.1
    cmd_settings:
      port: $port
      gas_limit: 30000000
      accounts: 12
      evm_version: shanghai
      mnemonic: test test test test test test test test test test test junk
YAML
export HOME=$home SOLCX_BINARY_PATH=$root/.solc PATH=$home/bin:$PATH OMP_NUM_THREADS=1
export PYTHONPATH=$root/../core
command=$1; shift
if [ "$command" = test ]; then set -- "$@" --network ganache-cli; fi
status=0
.venv/bin/brownie "$command" "$@" || status=$?
exit "$status"
