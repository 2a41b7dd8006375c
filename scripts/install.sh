#!/usr/bin/env bash
# install.sh SET… - installs the Debian packages of the named sets that are missing. Root is needed for that only.
set -euo pipefail
base="ca-certificates curl jq procps"
client="python3-openstackclient python3-osc-placement"
hypervisor="libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils qemu-block-extra nftables iproute2 openssh-client iputils-ping genisoimage novnc"
machines="ovmf swtpm swtpm-tools spice-html5"
guest="busybox-static cpio dosfstools mtools syslinux syslinux-common syslinux-efi dropbear-bin kmod e2fsprogs qemu-utils"
conformance="tempest python3-tempest python3-subunit python3-testtools python3-openstackclient"
browser="chromium"
databases="postgresql mariadb-server"
want=$base
for s in "$@"; do want="$want ${!s}"; done
missing=
for p in $want; do
  dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
echo "==> installing Debian packages:$missing"
as_root=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "These packages are missing and installing them needs root:$missing" >&2; exit 1; }
  echo "    (root is needed for that: sudo may ask for your password)"
  as_root=sudo
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
patient="-o Acquire::Retries=5 -o DPkg::Lock::Timeout=600" # a mirror that stutters, or another apt at work, is no failure
if ! { $as_root apt-get $patient update -qq && $as_root env DEBIAN_FRONTEND=noninteractive apt-get $patient install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -20 "$log" >&2
  echo "The packages could not be installed; the whole log is in $log" >&2
  exit 1
fi
rm -f "$log"
