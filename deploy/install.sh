#!/bin/bash
# Installs programs, units and a configuration to begin with.
#
#   deploy/install.sh --from target/release --name director-2   for one replica, when each has a machine of its own
#   deploy/install.sh --from target/release --local-fleet 3     for a fleet of three on this machine, whose cloud it is
#
# DESTDIR is put before every path (for packages), PREFIX is /usr unless given. Without DESTDIR it is root's work: others
# are asked for it by sudo. Configurations that are there are left alone.
set -euo pipefail

if [ -z "${DESTDIR:-}" ] && [ "$(id -u)" != 0 ]; then
  exec sudo env PREFIX="${PREFIX:-/usr}" "$0" "$@"
fi

here=$(cd "$(dirname "$0")" && pwd)
from= name=director-1 local_fleet=0
while [ $# -gt 0 ]; do
  case $1 in
    --from) from=${2:?--from needs the folder with the programs}; shift 2 ;;
    --name) name=${2:?--name needs a name}; shift 2 ;;
    --local-fleet) local_fleet=${2:?--local-fleet needs a number}; shift 2 ;;
    *) echo "install: no option \`$1\` (--from, --name, --local-fleet)" >&2; exit 2 ;;
  esac
done
[ -n "$from" ] || { echo "install: where are the programs? --from target/release" >&2; exit 2; }
case $name in *[!a-zA-Z0-9_.-]*) echo "install: --name needs letters, digits, \`-\`, \`_\` and \`.\`" >&2; exit 2 ;; esac
case $local_fleet in *[!0-9]*) echo "install: --local-fleet needs a number" >&2; exit 2 ;; esac

root=${DESTDIR:-} prefix=${PREFIX:-/usr}
etc=$root/etc/directord
units=$root$prefix/lib/systemd/system

for program in directord dagent dctl; do
  install -D -m 0755 "$from/$program" "$root$prefix/bin/$program"
done
install -D -m 0644 "$here/systemd/directord@.service" "$units/directord@.service"
sed -i "s|ExecStart=/usr/bin/|ExecStart=$prefix/bin/|" "$units/directord@.service"
install -D -m 0644 "$here/systemd/directord.sysusers" "$root$prefix/lib/sysusers.d/directord.conf"
install -D -m 0644 "$here/../README.md" "$root$prefix/share/doc/directorate/README.md"
install -D -m 0644 "$here/directord.toml" "$root$prefix/share/doc/directorate/directord.toml"
install -d -m 0755 "$etc"

# Writes the sample as one replica's configuration, unless there is one. Comments stay as they are: they name others, too.
configure() { # NAME, then changes for sed
  local name=$1 file=$etc/$1.toml
  shift
  if [ -e "$file" ]; then echo "install: $file is there already and stays as it is"; return; fi
  sed -e "/^#/!s|director-1|$name|g" -e "s|/usr/bin/dagent|$prefix/bin/dagent|" "$@" "$here/directord.toml" >"$file"
  chmod 0644 "$file"
}

if [ "$local_fleet" -gt 0 ]; then
  dropin=$root/etc/systemd/system/directord@.service.d
  install -D -m 0644 "$here/systemd/local-cloud.conf" "$dropin/local-cloud.conf"
  for n in $(seq "$local_fleet"); do
    # Three ports and one for probes each, on loopback: 25555 to 25558, 25565 to 25568, …
    tens=$((2555 + n - 1))
    configure "director-$n" -e '/^advertise/d' -e "s|\"0.0.0.0:2555|\"127.0.0.1:$tens|" \
      -e "s|127.0.0.1:25558|127.0.0.1:${tens}8|"
  done
else
  configure "$name"
fi

# The rest needs the running system.
if [ -z "$root" ]; then
  if command -v systemd-sysusers >/dev/null; then systemd-sysusers directord.conf; fi
  if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
  owner=directord
  if [ "$local_fleet" -gt 0 ]; then owner=root; fi
  for file in "$etc"/*.toml; do
    install -d -o "$owner" -g "$owner" -m 0700 "/var/lib/directord/$(basename "$file" .toml)"
  done
fi

if [ "$local_fleet" -gt 0 ]; then
  echo "installed. Next: directord init --config /etc/directord/director-1.toml --profile ~/.config/directorate/config.toml"
else
  echo "installed. Next: set the addresses in /etc/directord/$name.toml; then, as the user that runs the service, make a fleet"
  echo "  sudo -u directord directord init --config /etc/directord/$name.toml"
  echo "or have the replica join one (directord join --help)."
fi
