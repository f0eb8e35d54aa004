#!/bin/bash
# Installs the Debian packages that are missing here, after naming them.
#
#   deploy/setup.sh build          what compiling and testing needs
#   deploy/setup.sh build bench    … and what the benchmark compares with
#
# As root it installs; with `sudo` that asks for no password, too; otherwise it prints the one line to run and stops.
set -euo pipefail

# Compiling: Rust's linker, RocksDB where the system has none, and the packaging scripts of the sample releases.
build=(gcc g++ make git ca-certificates)
# Running: templates are rendered by Ruby; the local cloud makes networks, file systems and users.
# … and Schemathesis, which fuzzes the REST API, lives in a Python environment of its own (deploy/schemathesis.sh).
# … and Redis, which the tests deploy without compiling it first: of its packages the one that starts no server.
run=(ruby iproute2 nftables e2fsprogs uidmap procps python3 python3-venv redis-tools)
# Machines by QEMU, the Debian that they boot, and a CD with settings for one of them.
if [ "$(uname -m)" = x86_64 ]; then
  run+=(qemu-system-x86 mmdebstrap genisoimage)
fi
# `make bench` measures beside etcd.
bench=(etcd-server)

# bindgen loads libclang; on Debian 12 two packages are enough, a fifth of what `libclang-dev` brings. RocksDB from the
# system saves a quarter of an hour, but has to be the version that our bindings fit (docs/decisions/0002-rocksdb.md).
release=$(. /etc/os-release 2>/dev/null && echo "${ID:-}-${VERSION_ID:-}") || release=unknown
case $release in
  debian-12) build+=(libclang1-14 libclang-common-14-dev) ;;
  *) build+=(libclang-dev) ;;
esac
if [ "$release-$(uname -m)" = debian-12-x86_64 ] && [ "${ROCKSDB_COMPILE:-}" != 1 ]; then
  build+=(librocksdb-dev)
fi

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
is_known() { apt-cache show "$1" >/dev/null 2>&1; }

missing=()
want() {
  local package
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
}

for group in "$@"; do
  case $group in
    build) want "${build[@]}" "${run[@]}" ;;
    bench) want "${bench[@]}" ;;
    *) echo "setup: no group \`$group\` (build, bench)" >&2; exit 2 ;;
  esac
done

if ! command -v cargo >/dev/null; then
  echo "setup: there is no cargo here: install the Rust toolchain first (rustup reads rust-toolchain.toml)" >&2
  exit 1
fi
if ! command -v apt-get >/dev/null; then
  echo "setup: this is no Debian, so nothing was checked; what Debian calls it: ${build[*]} ${run[*]}"
  exit 0
fi
if [ ${#missing[@]} = 0 ]; then
  exit 0
fi

echo "setup: missing Debian packages: ${missing[*]}"
as_root=()
if [ "$(id -u)" != 0 ]; then
  if ! sudo -n true 2>/dev/null; then
    echo "setup: installing them needs root. Run this, then try again:" >&2
    echo "  sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo -n)
fi

# A fresh machine knows no packages yet.
is_known "${missing[0]}" || "${as_root[@]}" apt-get update -q
# etcd's package would start a server of its own; a policy file that says no keeps the machine as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
  "${as_root[@]}" chmod 0755 $policy
  trap '"${as_root[@]}" rm -f $policy' EXIT
fi
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
