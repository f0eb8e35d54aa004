#!/bin/bash
# Makes the Python environment in which Schemathesis fuzzes the REST API, once, and prints the program's path.
#
# It is kept beside what cargo builds. deploy/schemathesis.txt pins every package; a changed list makes a new environment.
set -euo pipefail
cd "$(dirname "$0")/.."

list=deploy/schemathesis.txt
target=${CARGO_TARGET_DIR:-target}
folder=$target/schemathesis-$(sha256sum "$list" | cut -c1-12)
program=$(realpath -m "$folder")/bin/schemathesis

if [ ! -e "$folder/whole" ]; then
  mkdir -p "$target"
  # Two tests may want it at once, and one of them may be ended on the way: it has its name only when it is whole.
  exec 9>"$target/schemathesis.lock"
  flock 9
  if [ ! -e "$folder/whole" ]; then
    echo 'schemathesis: installing it, once' >&2
    rm -rf "$folder"
    python3 -m venv "$folder" >&2
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-input --timeout 20 --retries 2 \
      --only-binary=:all: --require-hashes --requirement "$list" >&2
    touch "$folder/whole"
  fi
fi
echo "$program"
