#!/usr/bin/env bash
# Runs scenarios on other kernels than the one that runs here, each in a virtual machine.
#
#   netns-tests/on-kernels.sh [--short] TESTS PROGRAM [KERNEL...]
#
# TESTS is the compiled scenarios, PROGRAM the homing that they start, KERNEL a Debian release (netns-tests/vm --help);
# by default 6.1, 6.12 and 7.3. With --short a few scenarios, by default on 6.1 alone.
# These kernels have flowtables: all scenarios run with the fast path on, and those in `fast_path.rs` that need
# flowtables run here and nowhere else.
# The machine's clock advances with its instructions: so nothing is too slow for a deadline, however busy the
# host is. But it leaps while a file of the host's is read: so programs are copied into the machine's memory first.
set -euo pipefail

short=
[ "${1-}" != --short ] || { short=1; shift; }
[ $# -ge 2 ] || { echo "usage: on-kernels.sh [--short] TESTS PROGRAM [KERNEL...]" >&2; exit 2; }
tests=$1 program=$2
shift 2
if [ $# = 0 ]; then
    set -- bookworm
    [ -n "$short" ] || set -- bookworm bookworm-backports trixie-backports
fi

# The plan loads and nothing remains to be done; sessions are spread and stay, go past the rules, and leave a dead
# uplink all the same; both families; status and explain answer.
scenarios=(
    balance::v4::round_robin_gives_equal_shares
    evacuation::v6::sessions_of_every_kind_leave_a_silent_uplink
    explain::v4::it_names_the_uplink_that_a_session_then_takes
    fast_path::v4::it_is_told_whether_sessions_take_it_and_why
    fast_path::with_flowtables::v4::established_sessions_go_past_the_rules
    fast_path::with_flowtables::v6::offloaded_sessions_leave_a_silent_uplink_and_no_other
    lifecycle::v4::nothing_is_to_change_after_a_reload_or_traffic
    matching::v6::by_ports
)
if [ -z "$short" ]; then
    mapfile -t fast < <("$tests" --list --ignored | sed -n 's/^\(fast_path::.*\): test$/\1/p')
    scenarios+=(
        "${fast[@]}"
        balance::v6::round_robin_gives_equal_shares
        bound::v4::a_binding_outlives_its_timeout_under_a_long_session_and_ends_idle
        bound::v6::datagrams_in_tcp_mode_are_a_session_for_the_timeout
        evacuation::v4::a_disabled_uplink_loses_its_sessions_at_once
        evacuation::v4::idle_clients_with_strict_firewalls_are_reset
        evacuation::v6::a_link_that_returns_keeps_who_has_not_left
        evacuation::v4::none_of_five_hundred_sessions_elsewhere_is_lost
        explain::v6::it_names_the_uplink_that_a_session_then_takes
        matching::v4::by_ports
        persistence::v4::a_binding_does_not_end_under_a_live_session
        persistence::v6::a_binding_ends_when_it_was_idle_for_its_timeout
        places::v4::a_vpn_server_calls_back_from_the_address_that_its_client_knows
        places::v6::an_address_comes_and_goes_and_others_clients_stay
        services::v4::a_drained_server_keeps_whom_it_has_and_a_disabled_one_does_not
        services::v4::a_server_that_dies_loses_its_sessions_and_nobody_else_s
        services::v4::connections_are_limited_exactly
        services::v6::who_calls_from_inside_is_served_too
        servers::v4::removing_a_server_moves_nobody_else
        sessions::v4::a_link_that_returns_with_its_address_keeps_its_sessions
        sessions::v6::a_link_that_returns_with_its_address_keeps_its_sessions
    )
fi
mapfile -t scenarios < <(printf '%s\n' "${scenarios[@]}" | sort -u)
known=$("$tests" --list)
for scenario in "${scenarios[@]}"; do
    grep -q "^$scenario: test$" <<< "$known" || { echo "on-kernels: there is no scenario $scenario" >&2; exit 2; }
done
export PATH="$PATH:/usr/sbin:/sbin"
copied=("$program" "$tests")
for tool in nft ip conntrack sysctl pppd; do
    tool=$(command -v "$tool")
    copied+=("$tool")
    while read -r library; do copied+=("$library"); done < <(ldd "$tool" | grep -o '/[^ ]*')
done

# Loaded before anything is measured by the clock, too.
modules="nf_flow_table_inet nft_flow_offload nft_ct nft_fib_inet nft_nat nft_reject_inet nft_hash nft_numgen nf_conntrack_netlink veth 8021q bridge ppp_async"

# All together within half an hour, the short ones within five minutes.
limit=1700
[ -z "$short" ] || limit=280

run() {
    "${0%/*}/vm" --kernel "$1" --virtual-clock --mem 2048 --timeout "$limit" --env "modules=$modules" -- \
        sh -c 'n=$1; shift
               while [ "$n" -gt 0 ]; do
                   file=$(readlink -f "$1"); cp -p "$file" "$file.here"; mv "$file.here" "$file"; shift; n=$((n - 1))
               done
               ulimit -n 65536; uname -r; modprobe -a $modules; nft list ruleset; exec "$@"' sh "${#copied[@]}" "${copied[@]}" \
        "$tests" --test-threads 1 --include-ignored --exact "${scenarios[@]}"
}

# All kernels at once; but what a first use installs comes one after the other.
said=$(mktemp -d)
jobs=()
trap 'rm -rf "$said"' EXIT
trap 'kill "${jobs[@]}" 2> /dev/null; exit 130' INT TERM
for kernel; do "${0%/*}/vm" --kernel "$kernel" -- true; done
for kernel; do
    run "$kernel" > "$said/$kernel" 2>&1 &
    jobs+=($!)
done
status=0 number=0
for kernel; do
    wait "${jobs[number]}" || { status=1; echo "failed" >> "$said/$kernel"; }
    echo "==> Kernel of $kernel"
    cat "$said/$kernel"
    number=$((number + 1))
done
exit "$status"
