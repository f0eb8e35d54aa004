#!/bin/bash
# Removes every trace of the demo: the deployments, the fleet, the VMs, the mounts, the folder. (The source of Redis that
# was fetched stays in examples/redis-release/blobs, for the next time and for the tests.)
set -uo pipefail
source "$(dirname "$0")/fleet.sh"

if [ ! -d "$demo" ]; then
  echo 'demo-down: there is no demo here'
  exit 0
fi

# The orderly way first: the fleet deletes its VMs and disks itself.
if [ -x "$bin/dctl" ] && timeout 10 "$bin/dctl" cluster status >/dev/null 2>&1; then
  for deployment in $(dctl --json deployments | json 'data["rows"].map { |row| row["name"] }.join("\n")'); do
    echo "demo-down: deleting deployment $deployment"
    timeout 120 "$bin/dctl" --yes -d "$deployment" delete-deployment --force >/dev/null ||
      echo "demo-down: $deployment was not deleted in order; its processes are ended below" >&2
  done
fi

# Then by force whatever is left, replicas first: they would bring VMs back.
end_all() {
  local signal=$1 pids
  pids=$(demo_processes)
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill "-$signal" $pids 2>/dev/null
  [ -z "$pids" ]
}
end_all TERM
for _ in $(seq 100); do
  [ -z "$(demo_processes)" ] && break
  sleep 0.1
done
for _ in $(seq 50); do
  end_all KILL && break
  sleep 0.1
done

# Mounts below the folder, innermost first; then nothing holds it any more.
awk -v demo="$demo/" 'index($5, demo) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
  while read -r mount; do umount -l "$mount"; done
# Disks of VMs that were ended by force are still attached: a loop device holds its file, deleted or not.
losetup --noheadings --list --output NAME,BACK-FILE 2>/dev/null |
  awk -v demo="$demo/" 'index($2, demo) == 1 { print $1 }' |
  while read -r loop; do losetup --detach "$loop"; done
# Without root, what jobs have written belongs to ids of the user's range.
rm -rf "$demo" 2>/dev/null || unshare --map-root-user --map-auto rm -rf "$demo"
if [ -e "$demo" ] || [ -n "$(demo_processes)" ]; then
  echo "demo-down: something is left: $(ls -d "$demo" 2>/dev/null) $(demo_processes | tr '\n' ' ')" >&2
  exit 1
fi
echo 'demo-down: no trace left'
