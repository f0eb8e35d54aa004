#!/bin/bash
# The demo: a fleet of three, Redis deployed from its source, the leader killed on the way, a VM killed afterwards.
# `make demo` builds first; `make demo-down` removes every trace.
#
#   DEMO_VICTIM=follower make demo     kill a follower instead of the leader during the deploy
#   DEMO_VICTIM=restart make demo      … or kill the leader and start it again at once
#   DEMO_ISOLATION=process make demo   a lower rung of the local cloud than the best one
set -euo pipefail
if [ $# -gt 0 ]; then
  sed -n '/^#!/d; /^#/!q; s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
source "$(dirname "$0")/fleet.sh"

victim=${DEMO_VICTIM:-leader}
measured=()

step() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
measure() { measured+=("$(printf '%-44s %s' "$1" "$2")"); }

start_fleet() {
  step "1. A fleet of three directors on loopback"
  mkdir -p "$demo"
  local n started
  for n in "${replicas[@]}"; do write_config "$n"; done

  started=$(now_ms)
  "$bin/directord" init --config "$demo/director-1/directord.toml" --profile "$demo/profile" >"$demo/init.log"
  start_replica 1
  wait_until 'the first replica answers' 20 replica_answers 1
  measure 'start of the first replica -> API answers' "$(seconds $(($(now_ms) - started)))"

  for n in 2 3; do
    # In the environment: a command line can be read by everybody.
    DIRECTORD_JOIN_TOKEN=$(dctl cluster join-token 2>/dev/null) "$bin/directord" join \
      --config "$demo/director-$n/directord.toml" --endpoint "127.0.0.1:$(api_port 1)" >>"$demo/init.log"
    start_replica "$n"
    wait_until "replica $n answers" 20 replica_answers "$n"
  done
  wait_until 'all three vote' 20 three_voters
  measure 'start of the first replica -> fleet of three' "$(seconds $(($(now_ms) - started)))"
  dctl cluster status
}

three_voters() {
  [ "$(dctl --json cluster status | json 'data["members"].count { |m| %w[leader follower].include?(m["role"]) }')" = 3 ]
}

# Which addresses VMs can have depends on the rung that the cloud stands on here: best first, the first that works.
cloud_config() {
  local rung=${DEMO_ISOLATION:-auto}
  [ "$rung" != auto ] || rung=$("$bin/directord" probe-isolation | awk '$2 == "yes" { print $1; exit }')
  case $rung in
    namespaces | user-namespaces) echo "$root/examples/cloud-config-local.yml" ;;
    *) echo "$root/examples/cloud-config-process.yml" ;;
  esac
}

upload() {
  step "2. Two releases, a stemcell and a cloud config"
  "$root/examples/fetch-redis-blob.sh"
  dctl build-stemcell "$demo/stemcell.tgz"
  local name
  for name in hello redis; do
    # From a copy: what creating a release leaves in its folder goes with the demo.
    cp -r "$root/examples/$name-release" "$demo/"
    dctl create-release --force --dir "$demo/$name-release" --tarball "$demo/$name.tgz"
    dctl upload-release "$demo/$name.tgz"
  done
  dctl upload-stemcell "$demo/stemcell.tgz"
  dctl --yes update-cloud-config "$(cloud_config)"
}

# Prints what it reads, and keeps it with the time of each line.
timed_log() {
  local line
  while IFS= read -r line; do
    printf '%s\n' "$line"
    printf '%s %s\n' "$(now_ms)" "$line" >>"$1"
  done
}

deploy_redis() {
  step "3. Redis: one primary, two replicas, compiled from source; a director dies on the way"
  : >"$demo/deploy.log"
  dctl --yes deploy "$root/examples/redis.yml" 2>&1 | timed_log "$demo/deploy.log" &
  local deploy=$!
  wait_until 'instances are being updated' 600 grep -q 'Updating instance' "$demo/deploy.log"
  kill_one
  wait "$deploy" || { echo 'demo: the deploy failed' >&2; return 1; }
  lines_are_complete
  # Two of three go on, but bear no further loss.
  if [ "$victim" != restart ]; then
    start_replica "$(cat "$demo/killed")"
    wait_until 'the killed director is back' 30 three_voters
  fi
}

kill_one() {
  local leader number killed
  leader=$(leader_number)
  number=$leader
  [ "$victim" = follower ] && number=$((leader % 3 + 1))
  killed=$(now_ms)
  kill_replica "$number"
  echo "$number" >"$demo/killed"
  printf '\033[1m    killed director-%s (SIGKILL)\033[0m\n' "$number"
  echo "note: written after the kill" >"$demo/note"
  dctl --yes update-config note "$demo/note" >/dev/null
  measure "kill of a director ($victim) -> next write" "$(seconds $(($(now_ms) - killed)))"
  [ "$victim" = restart ] && start_replica "$number"
  echo "$killed" >"$demo/killed-at"
}

# The lines on the screen must be the task's whole event log, each once, whichever director sent them.
lines_are_complete() {
  local task killed next count
  task=$(sed -n '/^[0-9]* Task [0-9]* |/{s/^[0-9]* Task \([0-9]*\) |.*/\1/p;q}' "$demo/deploy.log")
  count=$(grep -c "^[0-9]* Task ${task:-?} |" "$demo/deploy.log" || true)
  [ "$count" -gt 0 ] || { echo "demo: no line of a task was followed, see $demo/deploy.log" >&2; return 1; }
  diff <(cut -d' ' -f2- "$demo/deploy.log" | grep "^Task $task |") \
    <(dctl task "$task" --no-follow 2>/dev/null | grep "^Task $task |") >"$demo/lines.diff" ||
    { echo "demo: what was followed differs from the task's log, see $demo/lines.diff" >&2; return 1; }
  echo "    $count lines followed through the change, none missing, none twice"
  killed=$(cat "$demo/killed-at")
  next=$(awk -v killed="$killed" '$1 > killed && / \| / { print $1; exit }' "$demo/deploy.log")
  [ -n "$next" ] || { echo 'demo: the task did nothing after the kill' >&2; return 1; }
  measure 'kill of a director -> next step of the task' "$(seconds $((next - killed)))"
}

smoke_tests() {
  # Progress goes to standard error, the result to standard output.
  dctl --json --yes -d redis run-errand smoke-tests >"$demo/errand-$1.json"
  json 'data["runs"].map { |run| run["stdout"] }.join("\n")' <"$demo/errand-$1.json" | tee "$demo/errand-$1.log"
  # The run's number is counted in Redis itself: data that was lost would begin at 1 again.
  grep -q "smoke tests: run $1 passed" "$demo/errand-$1.log"
}

replica() { dctl --json -d redis instances | json "data['rows'].select { |i| i['group'] == 'replica' }.min_by { |i| i['index'] }['$1']"; }
has_new_vm() {
  local cid
  cid=$(replica vm_cid)
  [ -n "$cid" ] && [ "$cid" != "$1" ] && [ "$(replica process_state)" = running ]
}

# Pids of everything that a VM consists of: its first process, which takes a container down with it, and whatever carries
# the VM's mark where a VM is only processes.
vm_processes() {
  json '(data["processes"] || {}).values.map { |p| p["pid"] }.join(" ")' <"$demo/cloud/vms/$1/vm.json"
  grep -lszxF -- "DIRECTORATE_VM=$demo/cloud/vms/$1" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
}

lose_a_vm() {
  step "4. The errand; then a VM dies, and comes back with its disk"
  smoke_tests 1
  local cid died pid
  cid=$(replica vm_cid)
  died=$(now_ms)
  for pid in $(vm_processes "$cid"); do kill -KILL "$pid" 2>/dev/null || true; done
  printf '\033[1m    killed VM %s\033[0m\n' "$cid"
  wait_until 'the VM is resurrected' 180 has_new_vm "$cid"
  measure 'death of a VM -> resurrected and running' "$(seconds $(($(now_ms) - died)))"
  smoke_tests 2
}

closing_words() {
  step "5. What was measured here"
  printf '    %s\n' "${measured[@]}"
  cat <<TEXT

The fleet goes on running. Look around:

    export PATH=$bin:\$PATH DCTL_PROFILE=$DCTL_PROFILE DCTL_ENDPOINTS=$DCTL_ENDPOINTS
    dctl cluster status
    dctl -d redis instances --vitals
    dctl tasks --recent            dctl task 3 --debug
    dctl events                    dctl health shards

make demo-down removes every trace.
TEXT
}

if [ -e "$demo" ]; then
  echo "demo: there is a demo already (in .demo); make demo-down removes it" >&2
  exit 1
fi
trap 'echo "demo: stopped early; logs are in .demo/director-*/directord.log, make demo-down cleans up" >&2' ERR
start_fleet
upload
deploy_redis
lose_a_vm
closing_words
