#!/usr/bin/env bash
# run.sh SELECTION [REGEX] - runs Debian's Tempest against a Kilonova and judges the outcome.
#
# SELECTION names a file selections/SELECTION.txt (one regular expression a line) or is "regex" with the expression as second argument.
# CONCURRENCY tests run at once, after those of selections/alone.txt, which bear no others beside them. LIMIT ends the run after so many seconds.
# By default it starts a cloud of its own on the fake driver; with OS_CLIENT_CONFIG_FILE and OS_CLOUD set it uses that cloud.
# With GUESTS=1 that cloud runs real guests on QEMU, in namespaces of its own (root is needed), Tempest logs in to them, and the lists are
# known-failures-guests.txt and known-skips-guests.txt.
# It prints total, passed, failed and skipped, and fails on any failure that known-failures.txt and any skip that known-skips.txt does not
# list with its reason, and on any listed one that passes or runs now.
set -euo pipefail
guests=${GUESTS:-}
if [ -n "$guests" ] && [ -z "${INSIDE:-}" ]; then
  images=${KILONOVA_GUEST_DIR:-${TMPDIR:-/tmp}/kilonova-guest}
  "$(dirname "$0")/../guest/build.sh" "$images"
  # What is outside is one address, that of the external network's gateway. No libvirt and no control groups of the machine are seen there; all that is started ends with the first process.
  exec env INSIDE=1 GUEST_IMAGE="$images/guest.qcow2" unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private sh -c 'ip link set lo up
ip link add outside0 type bridge && ip addr add 203.0.113.1/24 dev outside0 && ip link set outside0 up && ip route add default dev outside0
for d in /sys/fs/cgroup/* /sys/fs/cgroup; do if mountpoint -q "$d"; then umount -l "$d"; fi; done
mkdir -p /run/libvirt && mount -t tmpfs tmpfs /run/libvirt
"$@" & wait $!' sh "$0" "$@"
fi
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
selection=${1:?selection}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"
hosts=${FAKE_HOSTS:-3}
concurrency=${CONCURRENCY:-4} # most of a test is waiting
driver=(--compute-driver fake --fake-hosts "$hosts")
list=
if [ -n "$guests" ]; then
  hosts=1 list=-guests concurrency=${CONCURRENCY:-2}
  driver=(--compute-driver libvirt --set compute.virt_type=qemu --set compute.cpu_allocation_ratio=16 --set compute.ram_allocation_ratio=4
    --set compute.disk_allocation_ratio=8 --set compute.shutdown_timeout=20)
fi
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
unset PYTHONPATH

cloud= web= judged=
finish() {
  if [ $? != 0 ] && [ -z "$judged" ] && [ -e "$work/kilonova.log" ]; then # it did not come to a judgement, which tells this too
    echo "######## end of the cloud's log, and its last warnings" >&2
    tail -n 20 "$work/kilonova.log" | cut -c1-500 >&2
    grep -E 'level=(WARN|ERROR)' "$work/kilonova.log" | tail -n 20 | cut -c1-500 >&2 || true
  fi
  if [ -n "$web" ]; then kill -TERM "$web" 2>/dev/null || true; fi
  if [ -n "$cloud" ]; then kill -TERM "$cloud" 2>/dev/null || true; wait "$cloud" 2>/dev/null || true; fi
  if [ -n "$guests" ]; then "$top/bin/kilonova" host down --state-dir "$work/state" >/dev/null 2>&1 || true; fi
  if [ -z "${WORK:-}" ]; then rm -rf "$work"; fi
}
trap finish EXIT

if [ -z "${OS_CLOUD:-}" ]; then
  # What images are downloaded from: a server of one file.
  mkdir -p "$work/web"
  printf 'an image from the web' >"$work/web/image.raw"
  /usr/bin/python3 -u -m http.server 0 --bind 127.0.0.1 --directory "$work/web" >"$work/web.log" 2>&1 &
  web=$!
  for _ in $(seq 1200); do grep -q ' port ' "$work/web.log" && break; sleep 0.1; done
  port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p;q' "$work/web.log")
  [ -n "$port" ] || { echo "the server of the image does not start" >&2; exit 1; }
  export HTTP_IMAGE=http://127.0.0.1:$port/image.raw
  "$top/bin/kilonova" up --state-dir "$work/state" --listen 127.0.0.1:0 "${driver[@]}" --set identity.bcrypt_cost=4 \
    --set compute.report_interval=2s --set image.web_download_networks=127.0.0.0/8 --set "image.web_download_ports=80,443,$port" \
    --set "image.further_stores=second=$work/second" --set image.show_multiple_locations=true \
    --set filter_scheduler.enabled_filters=ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter,SameHostFilter,DifferentHostFilter \
    ${KILONOVA_FLAGS:-} >"$work/kilonova.log" 2>&1 &
  cloud=$!
  for _ in $(seq 3000); do
    grep -q '^kilonova is ready' "$work/kilonova.log" && break
    kill -0 "$cloud" 2>/dev/null || { cat "$work/kilonova.log" >&2; exit 1; }
    sleep 0.1
  done
  grep -q '^kilonova is ready' "$work/kilonova.log" || { echo "the cloud is not ready after five minutes" >&2; exit 1; }
  export OS_CLIENT_CONFIG_FILE=$work/state/clouds.yaml OS_CLOUD=admin
fi

/usr/bin/python3 "$here/configure.py" "$work/tempest" --hosts "$hosts" ${guests:+--guests "$GUEST_IMAGE"}
cd "$work/tempest"
if [ "$selection" = regex ]; then
  printf '%s\n' "${2:?regular expression}" >include.txt
else
  grep -v '^#' "$here/selections/$selection.txt" >include.txt
fi
grep -v '^#' "$here/selections/exclude.txt" | sed 's/[[:space:]]*#.*//' | grep . >exclude.txt || true
began=$(date +%s)
ends=$(( began + ${LIMIT:-3600} ))
# part LIST CONCURRENCY - Tempest's own exit code tells only that something failed; judge.py says what.
part() {
  [ -s "$1" ] || return 0
  timeout -s TERM -k 120 "$(( ends - $(date +%s) ))" tempest run --subunit --load-list "$1" --concurrency "$2" >>run.subunit 2>>run.log || true
}
: >run.subunit
tempest run --list-tests --include-list include.txt --exclude-list exclude.txt 2>>run.log | grep '^tempest\.' >all.list
grep -v '^#' "$here/selections/alone.txt" >alone.txt
grep -E -f alone.txt all.list >alone.list || true
grep -v -E -f alone.txt all.list >rest.list || true
part alone.list 1
part rest.list "$concurrency"
judged=1
/usr/bin/python3 "$here/judge.py" run.subunit "$here/known-failures$list.txt" --skips "$here/known-skips$list.txt" --selection include.txt --seconds $(( $(date +%s) - began )) --out "${OUTCOMES:-outcomes.txt}" \
  $([ ! -e "$work/kilonova.log" ] || echo "--log $work/kilonova.log")
