#!/bin/bash
# Licences, bans and sources of every dependency (deny.toml); known vulnerabilities too, where the database of them can
# be had. cargo-deny is built on the first run, which takes some minutes, and kept with cargo's other tools.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version >/dev/null 2>&1; then
  echo 'deny: building cargo-deny, once'
  cargo install --quiet --locked cargo-deny
fi

cargo deny --log-level error check bans licenses sources

if timeout 60 cargo deny --log-level error fetch db >/dev/null 2>&1; then
  cargo deny --log-level error check --disable-fetch advisories
else
  echo 'deny: the advisory database is out of reach: advisories were NOT checked'
fi
