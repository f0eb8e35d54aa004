#!/bin/busybox sh
# The first program of a machine that boots from its own disk: loads what the disk needs, waits for it, and moves in.
b=/bin/busybox
$b mkdir -p /proc /sys /dev /root
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
# A driver that finds no hardware may refuse to be loaded.
while read -r module; do $b insmod "/modules/$module" 2>/dev/null; done </modules/order
for word in $($b cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; esac
done
tries=0
until $b mount -t ext4 "$root" /root 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "no disk with $root appeared within a minute"; $b reboot -f; }
    $b usleep 100000
done
$b mount --move /dev /root/dev
$b umount /sys
$b umount /proc
exec $b switch_root /root /sbin/init
