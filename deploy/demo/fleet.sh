# A fleet of three replicas on this machine's loopback: to be sourced by demo.sh and demo-down.sh.
#
# Everything lives below .demo/ in the checkout: a folder per replica (configuration, data, log, pid), the cloud that
# they share, and the operator's profile. Whatever runs for the demo has that path in its command line or its
# environment; that is how demo-down.sh finds it again, also after this script was interrupted.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
demo=$root/.demo
replicas=(1 2 3)

# Programs from the build that `make demo` just made.
case ${PROFILE:-dev} in
  dev) bin=${CARGO_TARGET_DIR:-$root/target}/debug ;;
  *) bin=${CARGO_TARGET_DIR:-$root/target}/$PROFILE ;;
esac

# Ports: 25555 and up, unless somebody else has them.
port_base=${DEMO_PORT:-25555}
api_port() { echo $((port_base + 10 * ($1 - 1))); }
peer_port() { echo $((port_base + 10 * ($1 - 1) + 1)); }
agent_port() { echo $((port_base + 10 * ($1 - 1) + 2)); }
metrics_port() { echo $((port_base + 10 * ($1 - 1) + 3)); }

# Inherited by the replicas and all that they start.
export DIRECTORATE_DEMO=$demo
export DCTL_PROFILE=$demo/profile
# The profile of `init` knows the first replica; the demo may kill that one.
DCTL_ENDPOINTS=$(for n in "${replicas[@]}"; do printf '127.0.0.1:%s,' "$(api_port "$n")"; done)
export DCTL_ENDPOINTS=${DCTL_ENDPOINTS%,}

dctl() { "$bin/dctl" "$@"; }

now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
seconds() { printf '%d.%03d s' $(($1 / 1000)) $(($1 % 1000)); }

# Prints one value out of JSON: `json 'data.first["role"]' <text`.
json() { ruby -rjson -e 'data = JSON.parse($stdin.read); value = eval(ARGV[0]); puts value unless value.nil?' "$1"; }

# Repeats a command until it succeeds; says what it waited for if it never does.
wait_until() {
  local what=$1 limit_seconds=$2 end
  shift 2
  end=$(($(now_ms) + limit_seconds * 1000))
  until "$@" >/dev/null 2>&1; do
    if [ "$(now_ms)" -gt "$end" ]; then
      echo "demo: waited ${limit_seconds} s in vain until $what" >&2
      return 1
    fi
    sleep 0.05
  done
}

write_config() {
  local n=$1
  mkdir -p "$demo/director-$n"
  cat >"$demo/director-$n/directord.toml" <<TOML
name = "director-$n"
data_dir = "$demo/director-$n/data"
timing = "default"

[api]
listen = "127.0.0.1:$(api_port "$n")"

[peer]
listen = "127.0.0.1:$(peer_port "$n")"

[agent]
listen = "127.0.0.1:$(agent_port "$n")"

[cpi]
kind = "local"

[cpi.local]
root = "$demo/cloud"
isolation = "${DEMO_ISOLATION:-auto}"
agent = "$bin/dagent"

[secrets]
kek_file = "$demo/director-$n/kek"

[metrics]
listen = "127.0.0.1:$(metrics_port "$n")"
TOML
}

start_replica() {
  local n=$1
  # A session of its own: closing the terminal, or Ctrl-C in it, leaves the fleet running.
  setsid "$bin/directord" run --config "$demo/director-$n/directord.toml" \
    >>"$demo/director-$n/directord.log" 2>&1 </dev/null &
  echo $! >"$demo/director-$n/pid"
  # Or the shell would report its death, in the middle of what is shown.
  disown
}

replica_answers() { curl_ready "http://127.0.0.1:$(metrics_port "$1")/readyz"; }
# `/dev/tcp` instead of curl: one package less to ask for.
curl_ready() {
  local host_port=${1#http://} path
  path=/${host_port#*/} host_port=${host_port%%/*}
  exec 9<>"/dev/tcp/${host_port%:*}/${host_port#*:}" || return 1
  printf 'GET %s HTTP/1.0\r\n\r\n' "$path" >&9
  timeout 2 head -n 1 <&9 | grep -q ' 200 '
}

leader_number() {
  local name
  name=$(dctl --json cluster status | json 'data["members"].find { |m| m["role"] == "leader" }&.fetch("name")')
  [ -n "$name" ] && echo "${name#director-}"
}

kill_replica() {
  local pid
  pid=$(cat "$demo/director-$1/pid")
  kill -KILL "$pid"
  rm -f "$demo/director-$1/pid"
}

# Pids of everything that belongs to the demo: by the path in the command line, or by the mark in the environment.
demo_processes() {
  local pid own_session
  own_session=$(cut -d' ' -f6 /proc/$$/stat)
  { grep -lszF -- "$demo/" /proc/[0-9]*/cmdline; grep -lszxF -- "DIRECTORATE_DEMO=$demo" /proc/[0-9]*/environ; } |
    cut -d/ -f3 | sort -un |
    while read -r pid; do
      # Not ourselves nor the make that called us: the fleet has sessions of its own.
      [ "$(cut -d' ' -f6 "/proc/$pid/stat" 2>/dev/null || echo "$own_session")" = "$own_session" ] || echo "$pid"
    done
}
