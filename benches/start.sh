#!/usr/bin/env bash
# Prints how long homing takes from exec to ready with three uplinks, how much memory it then has, and how much
# of a processor it takes while nothing happens.
#
#   benches/start.sh [PROGRAM] [RUNS] [SECONDS]     default: target/release/homing, 10 runs, 30 s of idleness
#
# The site is two network namespaces with three cables between them, each with IPv4 and IPv6. They,
# the files and every process started here are gone at the end, however it ends. The clock starts
# right before exec and stops at the time stamp of homing's log line `ready`, which it writes when the
# first apply was read back and found right (and tells systemd the same).
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
unset JOURNAL_STREAM NOTIFY_SOCKET HOMING_LOG    # each would change what is written to the log

program=${1:-target/release/homing}
runs=${2:-10}
seconds=${3:-30}

say() { printf '%s\n' "$*" >&2; }
die() { say "bench: $*"; exit 1; }

[ -x "$program" ] || die "$program is not there: run \`make build\` first"
program=$(readlink -f "$program")
for tool in ip nft; do
    command -v "$tool" > /dev/null || die "$tool is missing: run \`make deps\` first"
done

# Without root: the same in a user namespace, with a /run of its own for `ip netns`.
if [ "$(id -u)" != 0 ]; then
    unshare --user --map-root-user --net --mount true 2> /dev/null ||
        die "network namespaces need root here: run it with sudo"
    exec unshare --user --map-root-user --net --mount -- \
        sh -c 'mount -t tmpfs tmpfs /run && exec "$@"' sh "$(readlink -f "$0")" "$program" "$runs" "$seconds"
fi

router=homing-bench-$$-router
isp=homing-bench-$$-isp
dir=$(mktemp -d "${TMPDIR:-/tmp}/homing-bench.XXXXXX")
pid=

stop() {
    [ -n "$pid" ] || return 0
    kill "$pid" 2> /dev/null || true
    wait "$pid" 2> /dev/null || true
    pid=
}

clean() {
    stop
    ip netns del "$router" 2> /dev/null || true
    ip netns del "$isp" 2> /dev/null || true
    rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

build_site() {
    ip netns add "$router"
    ip netns add "$isp"
    local in_router=(ip -n "$router") n
    "${in_router[@]}" link set lo up
    for n in 0 1 2; do
        ip link add "wan$n" netns "$router" type veth peer name "cust$n" netns "$isp"
        ip -n "$isp" addr add "198.18.10$n.1/24" dev "cust$n"
        ip -n "$isp" addr add "2001:db8:10$n::1/64" dev "cust$n" nodad
        ip -n "$isp" link set "cust$n" up
        "${in_router[@]}" addr add "198.18.10$n.2/24" dev "wan$n"
        "${in_router[@]}" addr add "2001:db8:10$n::2/64" dev "wan$n" nodad
        "${in_router[@]}" link set "wan$n" up
        "${in_router[@]}" route add default via "198.18.10$n.1" dev "wan$n" metric "$((100 + n))"
        "${in_router[@]}" -6 route add default via "2001:db8:10$n::1" dev "wan$n" metric "$((100 + n))"
    done
    cat > "$dir/site.yaml" << 'PROFILE'
version: 1
site: bench
uplinks:
  fiber: { interface: wan0, weight: 5 }
  cable: { interface: wan1, weight: 4 }
  lte: { interface: wan2, weight: 1 }
PROFILE
}

homing() {
    ip netns exec "$router" "$program" "$@"
}

# Starts homing and waits until it is ready; sets `pid` and `took` (microseconds).
start() {
    : > "$dir/log"
    ip netns exec "$router" bash -c 'echo "$EPOCHREALTIME" > "$1/begun"; shift; exec "$@"' \
        bash "$dir" "$program" run "$dir/site.yaml" --runtime-dir "$dir/run" \
        --state-dir "$dir/state" 2> "$dir/log" &
    pid=$!
    local line
    for _ in $(seq 1000); do
        line=$(grep -m 1 ' INFO ready$' "$dir/log" || true)
        [ -z "$line" ] || break
        kill -0 "$pid" 2> /dev/null || { cat "$dir/log" >&2; die "homing ended"; }
        sleep 0.01
    done
    [ -n "$line" ] || { cat "$dir/log" >&2; die "homing was not ready within 10 s"; }
    local begun ready
    begun=$(< "$dir/begun")
    ready=$(date -d "${line%% *}" +%s%6N)
    took=$((ready - ${begun/./}))
}

# min, median and max of what stands on standard input, in milliseconds
summary() {
    sort -n | awk '{ v[NR] = $1 / 1000 }
        END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
              printf "median %.1f ms (min %.1f, max %.1f, %d runs)\n", m, v[1], v[NR], NR }'
}

memory() {
    awk '/^VmRSS:/ { rss = $2 } /^VmHWM:/ { top = $2 }
         END { printf "resident %.1f MB (highest %.1f MB)", rss / 1024, top / 1024 }' "/proc/$pid/status"
    awk '/^Pss:/ { printf ", proportional %.1f MB\n", $2 / 1024 }' "/proc/$pid/smaps_rollup"
}

# Nanoseconds that all its threads have had.
used() {
    cat /proc/"$pid"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# Runs it for some seconds more, while nothing happens.
measure_idle() {
    local before after
    start
    sleep 5    # IPv6 has settled, and homing has followed it
    before=$(used)
    sleep "$seconds"
    after=$(used)
    stop
    homing down --runtime-dir "$dir/run" --state-dir "$dir/state"
    awk -v used="$((after - before))" -v seconds="$seconds" \
        'BEGIN { printf "%.3f %% of a core (%.1f ms in %d s)\n", used / seconds / 1e7, used / 1e6, seconds }'
}

build_site
say "homing $("$program" --version | cut -d' ' -f2), Linux $(uname -r), $(nproc) cores, $(nft --version | cut -d' ' -f2)"

for _ in $(seq "$runs"); do
    start
    echo "$took" >> "$dir/first"
    stop
    start
    echo "$took" >> "$dir/again"
    homing status --runtime-dir "$dir/run" > "$dir/status"
    memory > "$dir/memory"
    stop
    homing down --runtime-dir "$dir/run" --state-dir "$dir/state"
    rm -rf "$dir/state"
done

echo "start to ready, 3 uplinks, nothing there before: $(summary < "$dir/first")"
echo "start to ready, 3 uplinks, data plane in place:  $(summary < "$dir/again")"
echo "memory, ready and asked for its status once:     $(cat "$dir/memory")"
measure_idle > "$dir/idle"
echo "idle, 3 uplinks:                                 $(cat "$dir/idle")"
