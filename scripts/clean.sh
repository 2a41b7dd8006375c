#!/usr/bin/env bash
# Removes the state of a cloud that is down.
. "$(dirname "$0")/lib.sh"
running && die "the cloud is running: make down first"
if [ -d "$STATE" ]; then
  [ -e "$STATE/secrets" ] || [ -e "$STATE/guest" ] || die "$STATE does not look like the state of a cloud; remove it yourself if you are sure"
  say "removing $STATE"
  rm -rf "$STATE"
fi
