# Shared by the scripts here: where things are, and how the cloud's process is found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
STATE=${STATE:-$PWD/state}
PATH=$PATH:/usr/sbin:/sbin # su keeps a PATH without them
case $STATE in /*) ;; *) STATE=$PWD/$STATE ;; esac
LISTEN=${LISTEN:-127.0.0.1:8774}
PIDFILE=$STATE/kilonova.pid
LOG=$STATE/kilonova.log
# Debian's clients use Debian's python, whatever else is in PATH.
client() { env PATH="/usr/bin:/bin:/usr/sbin:/sbin" OS_CLIENT_CONFIG_FILE="$STATE/clouds.yaml" "$@"; }
say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
# running: is the process of the pid file alive and ours?
running() {
  [ -s "$PIDFILE" ] || return 1
  local pid; pid=$(cat "$PIDFILE")
  [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q 'kilonova up'
}
