#!/usr/bin/env bash
# run.sh - measures bin/kilonova on the fake driver, first with our own tool, then with osload where ../shared has it.
# Compare ratios of one run only: machines differ and others may use them. OUT=FILE keeps the JSON.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top"
[ -x bin/kilonova ] || make -s build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/perf" ./test/perf
"$work/perf" -binary bin/kilonova -dir "$work/state" ${OUT:+-json "$OUT"} "$@"
if [ -d ../shared/tools/osload ]; then
  (cd ../shared/tools/osload && go build -o "$work/osload" .)
  test/perf/osload.sh "$work/osload" "$work/osload-state"
else
  echo "osload is not here (../shared/tools/osload): its figures are left out"
fi
