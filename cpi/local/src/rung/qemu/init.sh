#!/bin/busybox sh
# The first program of a machine: loads what its disks and its network need, puts its root together, and moves in.
b=/bin/busybox
$b mkdir -p /proc /sys /dev /base /own /root
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
$b grep -q directorate.canary /proc/cmdline && { echo directorate-canary >/dev/console; $b poweroff -f; }
while read -r module; do $b insmod "/modules/$module"; done </modules/order
for disk in /sys/block/vd*; do
    case $($b cat "$disk/serial") in
        base) base=/dev/${disk##*/} ;;
        own) own=/dev/${disk##*/} ;;
    esac
done
$b mount -t ext4 -o ro "$base" /base || $b poweroff -f
$b mount -t ext4 "$own" /own || $b poweroff -f
$b mkdir -p /own/upper /own/work /own/data
$b mount -t overlay -o lowerdir=/base,upperdir=/own/upper,workdir=/own/work root /root || $b poweroff -f
# What jobs write most lies on a plain disk: some of them put overlays there.
$b mkdir -p /root/var/vcap/data
$b mount --bind /own/data /root/var/vcap/data
$b mount --move /dev /root/dev
$b umount /sys
$b umount /proc
exec $b switch_root /root /sbin/init
