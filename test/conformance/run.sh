#!/usr/bin/env bash
# run.sh SELECTION [REGEX] - runs Debian's Tempest against a Kilonova and judges the outcome.
#
# SELECTION names a file selections/SELECTION.txt (one regular expression a line) or is "regex" with the expression as second argument.
# By default it starts a cloud of its own on the fake driver; with OS_CLIENT_CONFIG_FILE and OS_CLOUD set it uses that cloud.
# It prints total, passed, failed and skipped, and fails on any failure that known-failures.txt does not list with its reason,
# and on any listed one that passes now.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
selection=${1:?selection}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"
hosts=${FAKE_HOSTS:-2}
concurrency=${CONCURRENCY:-2}
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
unset PYTHONPATH

cloud=
finish() {
  if [ -n "$cloud" ]; then kill -TERM "$cloud" 2>/dev/null || true; wait "$cloud" 2>/dev/null || true; fi
  if [ -z "${WORK:-}" ]; then rm -rf "$work"; fi
}
trap finish EXIT

if [ -z "${OS_CLOUD:-}" ]; then
  "$top/bin/kilonova" up --state-dir "$work/state" --listen 127.0.0.1:0 --compute-driver fake --fake-hosts "$hosts" --set identity.bcrypt_cost=4 \
    --set compute.report_interval=2s ${KILONOVA_FLAGS:-} >"$work/kilonova.log" 2>&1 &
  cloud=$!
  for _ in $(seq 300); do
    grep -q '^kilonova is ready' "$work/kilonova.log" && break
    kill -0 "$cloud" 2>/dev/null || { cat "$work/kilonova.log" >&2; exit 1; }
    sleep 0.1
  done
  export OS_CLIENT_CONFIG_FILE=$work/state/clouds.yaml OS_CLOUD=admin
fi

/usr/bin/python3 "$here/configure.py" "$work/tempest" --hosts "$hosts"
cd "$work/tempest"
if [ "$selection" = regex ]; then
  printf '%s\n' "${2:?regular expression}" >include.txt
else
  grep -v '^#' "$here/selections/$selection.txt" >include.txt
fi
grep -v '^#' "$here/selections/exclude.txt" | sed 's/[[:space:]]*#.*//' | grep . >exclude.txt || true
began=$(date +%s)
# Tempest's own exit code tells only that something failed; judge.py says what.
timeout -s TERM "${LIMIT:-3600}" tempest run --subunit --include-list include.txt --exclude-list exclude.txt --concurrency "$concurrency" >run.subunit 2>run.log || true
/usr/bin/python3 "$here/judge.py" run.subunit "$here/known-failures.txt" --seconds $(( $(date +%s) - began )) --out "${OUTCOMES:-outcomes.txt}"
