#!/bin/bash
# Builds the stemcell `directorate-host`: VMs of the local cloud get this machine's own files below a writable layer of
# theirs. No download, and done in a blink; for trying things out and for tests, not for jobs that nobody trusts.
#
#   deploy/host-stemcell.sh FILE.tgz
set -euo pipefail

output=${1:?usage: host-stemcell.sh FILE.tgz}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What the cloud looks for in an image that is no archive: use the host.
echo 'directorate-host' >"$work/image"

cat >"$work/stemcell.MF" <<MF
---
name: directorate-host
version: "1.0"
operating_system: directorate-host
api_version: 3
bosh_protocol: "1"
sha1: sha256:$(sha256sum "$work/image" | cut -d' ' -f1)
stemcell_formats: [directorate-host]
cloud_properties:
  name: directorate-host
  version: "1.0"
  infrastructure: directorate-local
  root: host
MF

mkdir -p "$(dirname "$output")"
# The same bytes each time: what has not changed is not uploaded again.
tar -C "$work" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=0644 -cf - stemcell.MF image |
  gzip -n >"$output.new"
mv "$output.new" "$output"
