#!/usr/bin/env bash
# osload.sh TOOL DIR - the figures of osload (boot, read, candidates, delete) for a fresh cloud with 10 fake hosts. N=servers of a boot.
set -euo pipefail
tool=${1:?} dir=${2:?}
top=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$dir"
"$top/bin/kilonova" up --state-dir "$dir" --listen 127.0.0.1:0 --compute-driver fake --fake-hosts 10 --set quota.instances=-1 --set quota.cores=-1 --set quota.ram=-1 >"$dir.log" 2>&1 &
pid=$!
trap 'kill -TERM $pid 2>/dev/null || true; wait $pid 2>/dev/null || true' EXIT
for _ in $(seq 300); do grep -q '^kilonova is ready' "$dir.log" && break; kill -0 $pid || { cat "$dir.log" >&2; exit 1; }; sleep 0.1; done
. "$dir/openrc"
vars=$(OS_CLIENT_CONFIG_FILE=$dir/clouds.yaml OS_CLOUD=admin PATH=/usr/bin:/bin /usr/bin/python3 "$top/test/perf/prepare.py")
eval "$vars"
run() { echo "== osload $*"; "$tool" -image "$IMAGE" -flavor "$FLAVOR" -network "$NETWORK" -timeout 300 "$@"; }
run -n "${N:-1000}" -c 1,8,32 boot
run -n 200 -c 8 -keep boot
run -c 1,8 -seconds 4 read
run -c 8 -n 200 delete
run -c 1 -seconds 4 -providers 1,100,1000 candidates
