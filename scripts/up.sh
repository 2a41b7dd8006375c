#!/usr/bin/env bash
# Starts the cloud on this machine and boots a demo server. Run again it finds what is there. DRIVER=fake needs no root.
. "$(dirname "$0")/lib.sh"
DRIVER=${DRIVER:-$(cat "$STATE/driver" 2>/dev/null || echo libvirt)}
if [ "$DRIVER" = libvirt ]; then
  scripts/install.sh client hypervisor guest
  [ "$(id -u)" = 0 ] || die "root is needed for bridges, taps, the firewall and the libvirt daemon: run 'sudo make up', or 'make up DRIVER=fake' for a cloud whose servers are played"
else
  scripts/install.sh client
fi
[ -x bin/kilonova ] || make -s build
mkdir -p -m 700 "$STATE"
if [ "$DRIVER" = libvirt ]; then
  test/guest/build.sh "$STATE/guest"
fi
if running; then
  say "the cloud is running already (process $(cat "$PIDFILE"))"
else
  say "starting the cloud"
  echo "$DRIVER" >"$STATE/driver"
  : >"$LOG"
  setsid nohup bin/kilonova up --state-dir "$STATE" --listen "$LISTEN" --compute-driver "$DRIVER" ${KILONOVA_FLAGS:-} >>"$LOG" 2>&1 </dev/null &
  echo $! >"$PIDFILE"
  for _ in $(seq 3000); do
    grep -q '^kilonova is ready' "$LOG" && break
    running || { tail -20 "$LOG" >&2; die "the cloud ended at its start; the log is $LOG"; }
    sleep 0.1
  done
  grep '^kilonova is ready' "$LOG" || { tail -20 "$LOG" >&2; die "the cloud was not ready within five minutes; the log is $LOG"; }
fi
# What is printed at the end must work from another shell, which knows nothing of this one's settings.
again="make down"
[ "$STATE" = "$PWD/state" ] || again="$again STATE=$STATE"
client /usr/bin/python3 scripts/demo.py --state "$STATE" --driver "$DRIVER" --down "$again"
