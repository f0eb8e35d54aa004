#!/bin/bash
# Puts the source of Redis into the sample release as a blob. It comes from Debian's source package, fetched by apt from
# wherever this machine already gets its packages; no root and no change to the system's package lists.
#
#   examples/fetch-redis-blob.sh             does nothing if the blob is there and its digest is right
#   REDIS_TARBALL=file examples/fetch-…      takes the source from a file instead
set -euo pipefail

release=$(cd "$(dirname "$0")/redis-release" && pwd)
blob=redis/redis-7.0.15.tar.gz
wanted=$(sed -n "\\|^$blob:|,\$s/^ *sha: sha256:\\([0-9a-f]*\\)\$/\\1/p" "$release/config/blobs.yml" | head -n 1)
target=$release/blobs/$blob

digest_is_right() { echo "$wanted  $1" | sha256sum --check --status; }

if [ -f "$target" ] && digest_is_right "$target"; then
  echo "blob $blob is there"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The system's own sources, asked for source packages instead of binaries. Only the distribution's: others may have none.
source_lists() {
  local codename
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:?this system does not name its release}")
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] || continue
    grep -v '^#' "$file" | awk -v RS= -v ORS='\n\n' -v suite="(^|\n)Suites:[^\n]*[ \t]$codename" '$0 ~ suite' |
      sed 's/^Types:.*/Types: deb-src/' >>"$work/apt/sources.list.d/system.sources"
  done
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -nE "s/^deb(-src)?( +\\[[^]]*\\])? +([^ ]+ +$codename.*)/deb-src\\2 \\3/p" | sort -u \
    >"$work/apt/sources.list" || true
}

fetch() {
  mkdir -p "$work"/{apt/sources.list.d,lists/partial,cache/archives/partial,source}
  source_lists
  local options=(-q -o "Dir::Etc::SourceList=$work/apt/sources.list" -o "Dir::Etc::SourceParts=$work/apt/sources.list.d"
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User= -o Acquire::Languages=none)
  apt-get "${options[@]}" update
  (cd "$work/source" && apt-get "${options[@]}" source --download-only --only-source redis)
}

if [ -n "${REDIS_TARBALL:-}" ]; then
  tarball=$REDIS_TARBALL
else
  fetch >"$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; echo "could not fetch the source package of redis" >&2; exit 1; }
  tarball=$(find "$work/source" -name 'redis_*.orig.tar.gz' | head -n 1)
fi

if [ -z "$tarball" ] || ! digest_is_right "$tarball"; then
  echo "the source of redis here (${tarball##*/}) is not the one in config/blobs.yml (sha256 $wanted)" >&2
  exit 1
fi
mkdir -p "$(dirname "$target")"
# Renamed into place, so that an interrupted copy is never taken for the blob.
cp "$tarball" "$target.new"
mv "$target.new" "$target"
echo "blob $blob fetched, digest checked"
