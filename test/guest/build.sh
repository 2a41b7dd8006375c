#!/bin/sh
# Builds the small guest image that tests boot: guest.qcow2, some 20 MiB, made of Debian packages and the files beside this script.
#
#   build.sh OUTDIR
#
# The image is a whole disk: an MBR, a FAT partition with the boot loader, kernel and initramfs, and an ext4 root that grows with the disk. For
# what the guest does, see root/etc/init.d/guest. Nothing is installed or mounted; the kernel and the guest agent are downloaded with
# "apt-get download" into OUTDIR/packages. Files in the image belong to root, so run it as root (or under fakeroot). When neither the files
# here nor the packages changed since the last run, nothing is done.
set -eu
umask 022
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C PATH

[ $# = 1 ] || { echo "usage: $0 OUTDIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/packages"
out=$(cd "$1" && pwd)

missing=$(sed 's/#.*//' "$here/packages" | while read -r p; do
	[ -z "$p" ] || dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || echo "$p"
done)
[ -z "$missing" ] || { echo "$0: these packages are not installed:" $missing >&2; exit 3; }

# Two runs that share OUTDIR do it one after the other.
exec 9>"$out/lock"
flock 9

newest() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[^ ]*-cloud-amd64\)$/\1/p' | sort -V | tail -n 1; }
kernel=$(newest)
if [ -z "$kernel" ] && [ "$(id -u)" = 0 ]; then # a new machine has no lists of packages
	apt-get update -qq >/dev/null
	kernel=$(newest)
fi
[ -n "$kernel" ] || { echo "$0: apt knows no cloud kernel; run apt-get update" >&2; exit 3; }
extras="$kernel-unsigned qemu-guest-agent liburing2 libnuma1"

# The stamp names everything that goes into the image.
stamp=$( (cd "$here" && find . -type f | sort | xargs sha256sum; echo "$extras"; dpkg-query -W busybox-static dropbear-bin e2fsprogs syslinux) | sha256sum)
if [ -s "$out/guest.qcow2" ] && [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then
	exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch PACKAGE: the lists may name a version that the mirror has replaced.
fetch() {
	(cd "$out/packages" && apt-get download -q -o APT::Sandbox::User=root -o Acquire::Retries=3 "$1" >/dev/null) ||
		{ apt-get update -qq >/dev/null; (cd "$out/packages" && apt-get download -q -o APT::Sandbox::User=root -o Acquire::Retries=3 "$1" >/dev/null); }
}

for p in $extras; do
	set -- "$out/packages/$p"_*.deb
	[ -e "$1" ] || { fetch "$p"; set -- "$out/packages/$p"_*.deb; }
	dpkg-deb -x "$1" "$work/extra"
done
version=$(ls "$work/extra/lib/modules")
modules=$work/extra/lib/modules/$version
depmod -b "$work/extra" "$version"

# put_modules ROOT NAME...: copies the modules with what they need and writes the order in which to load them. Names that the kernel has built in
# or not at all are passed over.
put_modules() {
	into=$1/lib/modules; shift
	mkdir -p "$into"
	for name; do
		modprobe -d "$work/extra" -S "$version" --ignore-install --show-depends "$name" 2>/dev/null || true
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r file; do
		cp "$file" "$into/"
		strip --strip-debug "$into/${file##*/}" 2>/dev/null || true
		echo "${file##*/}"
	done > "$into/order"
}

# put_program FILE: copies a program and the libraries that it is linked with.
put_program() {
	cp "$1" "$root/usr/sbin/"
	LD_LIBRARY_PATH=$work/extra/usr/lib/x86_64-linux-gnu:$work/extra/lib/x86_64-linux-gnu ldd "$1" | grep -o '/[^ ]*' | while read -r lib; do
		case $lib in
		*/ld-linux*) cp -L "$lib" "$root/lib64/" ;;
		*) cp -L "$lib" "$root/usr/lib/" ;;
		esac
	done
}

# The root file system.
root=$work/root
mkdir -p "$root"
cp -R "$here/root/." "$root/"
for d in bin sbin dev proc sys run tmp mnt lib64 root/.ssh home/kilo/.ssh etc/dropbear usr/bin usr/lib var/lib/guest var/log; do
	mkdir -p "$root/$d"
done
cp /bin/busybox "$root/bin/busybox"
for applet in $(busybox --list); do
	[ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
ln -s ../bin/busybox "$root/sbin/init"
ln -s ../bin/busybox "$root/sbin/getty"
ln -s ../usr/sbin/shutdown "$root/sbin/shutdown"
ln -s ../run "$root/var/run"
ln -s usr/lib "$root/lib"
put_program "$work/extra/usr/sbin/qemu-ga"
put_program "$(command -v dropbear)"
put_program "$(command -v dropbearkey)"
put_program "$(command -v resize2fs)"
strip --strip-unneeded "$root"/usr/lib/*.so* "$root"/usr/sbin/qemu-ga "$root"/usr/sbin/dropbear* 2>/dev/null || true
put_modules "$root/usr" virtio_net e1000 e1000e virtio_console virtio_rng virtio_balloon button evdev isofs vfat nls_cp437 nls_ascii sr_mod \
	8021q i6300esb pvpanic_pci virtiofs
secret=$(busybox mkpasswd -m sha512 -S kilokilokilokilo kilo)
printf 'root:x:0:0:root:/root:/bin/sh\nkilo:x:1000:1000:kilo:/home/kilo:/bin/sh\n' > "$root/etc/passwd"
printf 'root:*:20000::::::\nkilo:%s:20000::::::\n' "$secret" > "$root/etc/shadow"
printf 'root:x:0:\nkilo:x:1000:\n' > "$root/etc/group"
printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
echo kilo > "$root/etc/hostname"
echo /bin/sh > "$root/etc/shells"
printf 'ttyS0\ntty1\n' > "$root/etc/securetty"
printf 'Guest for tests: log in as kilo, password kilo.\n\\n \\l\n' > "$root/etc/issue"
: > "$root/etc/fstab"
chmod 600 "$root/etc/shadow"
chmod 700 "$root/root" "$root/root/.ssh" "$root/home/kilo/.ssh"
chmod 1777 "$root/tmp"
chmod 755 "$root"/bin/blkid "$root"/usr/bin/* "$root"/etc/init.d/* "$root"/etc/qemu/* "$root"/etc/acpi/PWRF/* "$root"/usr/sbin/* "$root"/usr/share/udhcpc/* "$root"/usr/lib/guest/*
chown -R 0:0 "$root"
chown -R 1000:1000 "$root/home/kilo"

# The initramfs: finds the disk, lets its last partition grow, hands over.
early=$work/early
mkdir -p "$early/bin" "$early/dev" "$early/proc" "$early/sys" "$early/new"
cp /bin/busybox "$early/bin/"
for applet in sh mount umount insmod usleep switch_root cat dd printf blockdev echo; do
	ln -s busybox "$early/bin/$applet"
done
cp "$here/early-init" "$early/init"
chmod 755 "$early/init"
put_modules "$early" crc32c_generic crc32c_intel virtio_pci virtio_blk virtio_scsi sd_mod ata_piix ahci nvme ext4
(cd "$early" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -9) > "$work/initrd"
cp "$work/extra/boot/vmlinuz-$version" "$work/vmlinuz"

# The disk: 1 MiB for the MBR, FAT, ext4.
mib() { echo $((($(cat "$@" | wc -c) + 1048575) / 1048576)); }
boot_mib=$(($(mib "$work/vmlinuz" "$work/initrd") + 4))
root_mib=$(($(du -sm "$root" | cut -f1) * 5 / 4 + 10))
# no_timer_check: on a busy machine an emulated timer may miss the beat by which the kernel would judge it broken, and panic. nowatchdog and no reports of stalls: there
# processors may stand still for many seconds, and what the kernel would say of that gets into what others read on the consoles.
cat > "$work/syslinux.cfg" <<-'X'
	DEFAULT guest
	PROMPT 0
	TIMEOUT 1
	LABEL guest
	  LINUX /vmlinuz
	  INITRD /initrd
	  APPEND console=tty0 console=ttyS0,115200 quiet mitigations=off no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1 random.trust_cpu=on random.trust_bootloader=on
X
truncate -s "${boot_mib}M" "$work/boot.fat"
mkfs.vfat -F 16 -n KILOBOOT "$work/boot.fat" >/dev/null
mcopy -i "$work/boot.fat" "$work/vmlinuz" "$work/initrd" "$work/syslinux.cfg" ::/
efi=/usr/lib/SYSLINUX.EFI/efi64/syslinux.efi
if [ -e "$efi" ]; then # also starts under UEFI when the package syslinux-efi is there
	mmd -i "$work/boot.fat" ::/EFI ::/EFI/BOOT
	mcopy -i "$work/boot.fat" "$efi" ::/EFI/BOOT/BOOTX64.EFI
	mcopy -i "$work/boot.fat" /usr/lib/syslinux/modules/efi64/ldlinux.e64 "$work/syslinux.cfg" ::/EFI/BOOT/
fi
syslinux --install "$work/boot.fat"
truncate -s "${root_mib}M" "$work/root.ext4"
mke2fs -q -F -t ext4 -L kiloroot -m 0 -J size=4 -O ^64bit,resize_inode -E resize=8388608,lazy_itable_init=0 -d "$root" "$work/root.ext4"

disk=$work/disk
truncate -s "$((1 + boot_mib + root_mib))M" "$disk"
dd if="$work/boot.fat" of="$disk" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/root.ext4" of="$disk" bs=1M seek=$((1 + boot_mib)) conv=notrunc,sparse status=none
word() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
# entry FLAG TYPE START COUNT: one line of the partition table, in sectors; the CHS fields say "too large".
entry() { /usr/bin/printf "\\x$1\\xfe\\xff\\xff\\x$2\\xfe\\xff\\xff$(word "$3")$(word "$4")"; }
{
	head -c 440 /usr/lib/syslinux/mbr/mbr.bin
	head -c "$((440 - $(head -c 440 /usr/lib/syslinux/mbr/mbr.bin | wc -c)))" /dev/zero
	printf 'KILO\0\0'
	entry 80 0e 2048 $((boot_mib * 2048))
	entry 00 83 $(((1 + boot_mib) * 2048)) $((root_mib * 2048))
	head -c 32 /dev/zero
	printf '\125\252'
} | dd of="$disk" conv=notrunc status=none

qemu-img convert -c -f raw -O qcow2 "$disk" "$out/guest.qcow2.new"
mv "$out/guest.qcow2.new" "$out/guest.qcow2"
echo "$stamp" > "$out/stamp"
