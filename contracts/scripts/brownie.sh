#!/usr/bin/env bash
# Runs Brownie with the project's own home, compiler and chain: `bash scripts/brownie.sh test -k redeem`.
# Anvil listens on a free port and dies with Brownie.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
home=$(mktemp -d "${TMPDIR:-/tmp}/corolla-brownie.XXXXXX")
trap 'rm -rf "$home"' EXIT
port=$(.venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir -p "$home/.brownie" "$home/bin"
# Where the kernel can do it, Anvil dies with Brownie even if that is killed outright. Its binary, not the npm package's
# launcher, which would be the one to die.
cat > "$home/bin/anvil" <<SH
#!/usr/bin/env bash
guard=(); command -v setpriv >/dev/null && guard=(setpriv --pdeathsig KILL --)
exec "\${guard[@]}" "$(echo "$root"/node_modules/@foundry-rs/anvil-*/bin/anvil)" "\$@"
SH
chmod +x "$home/bin/anvil"
cat > "$home/.brownie/network-config.yaml" <<YAML
live: []
development:
  - name: Anvil
    id: anvil
    cmd: anvil
    host: http://127.0.0.1
    cmd_settings:
      port: $port
      chain_id: 1337
      gas_limit: 30000000
      accounts: 12
      evm_version: shanghai
      mnemonic: test test test test test test test test test test test junk
      steps_tracing: true
YAML
export HOME=$home SOLCX_BINARY_PATH=$root/.solc PATH=$home/bin:$PATH OMP_NUM_THREADS=1
export PYTHONPATH=$root/../core
command=$1; shift
if [ "$command" = test ]; then set -- "$@" --network anvil; fi
status=0
.venv/bin/brownie "$command" "$@" || status=$?
exit "$status"
