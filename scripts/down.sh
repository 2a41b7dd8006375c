#!/usr/bin/env bash
# Stops the cloud, its guests and whatever it made on this host.
. "$(dirname "$0")/lib.sh"
if running; then
  pid=$(cat "$PIDFILE")
  say "stopping the cloud (process $pid)"
  kill -TERM "$pid"
  for _ in $(seq 400); do running || break; sleep 0.1; done # not by /proc/PID: where nobody waits for the dead it stays
  if running; then kill -KILL "$pid"; fi
fi
rm -f "$PIDFILE"
if [ -x bin/kilonova ] && [ -d "$STATE" ]; then
  bin/kilonova host down --state-dir "$STATE" --set compute.driver="$(cat "$STATE/driver" 2>/dev/null || echo libvirt)"
fi
