#!/usr/bin/env bash
# Stops the cloud, its guests and whatever it made on this host.
. "$(dirname "$0")/lib.sh"
if running; then
  pid=$(cat "$PIDFILE")
  say "stopping the cloud (process $pid)"
  kill -TERM "$pid"
  for _ in $(seq 400); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
  if [ -d "/proc/$pid" ]; then kill -KILL "$pid"; fi
fi
rm -f "$PIDFILE"
if [ -x bin/kilonova ] && [ -d "$STATE" ]; then
  bin/kilonova host down --state-dir "$STATE"
fi
