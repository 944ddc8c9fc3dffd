#!/usr/bin/env bash
# Runs a few scenarios on other kernels than the one that runs here, each in a virtual machine.
#
#   netns-tests/on-kernels.sh TESTS PROGRAM [KERNEL...]
#
# TESTS is the compiled scenarios, PROGRAM the homing that they start, KERNEL a Debian release (netns-tests/vm --help).
# The machine's clock advances with its instructions: so nothing is too slow for a deadline, however busy the
# host is. By default 6.1 and 6.12. Not 7.3 (trixie-backports) yet: there the kernel's IPv6 `fib` expression no longer
# heeds `suppress_prefixlength`, so that new IPv6 sessions take the main table's default route instead of a policy.
# What reads the host's files the clock does not wait for: programs are read once before.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: on-kernels.sh TESTS PROGRAM [KERNEL...]" >&2; exit 2; }
tests=$1 program=$2
shift 2
[ $# -gt 0 ] || set -- bookworm bookworm-backports

# The plan loads and nothing remains to be done; sessions are spread and stay, and leave a dead uplink; both families;
# status and explain answer.
scenarios=(
    balance::v4::round_robin_gives_equal_shares
    evacuation::v4::a_disabled_uplink_loses_its_sessions_at_once
    evacuation::v6::sessions_of_every_kind_leave_a_silent_uplink
    explain::v4::it_names_the_uplink_that_a_session_then_takes
    lifecycle::v4::nothing_is_to_change_after_a_reload_or_traffic
    matching::v6::by_ports
    sessions::v4::a_link_that_returns_with_its_address_keeps_its_sessions
)
export PATH="$PATH:/usr/sbin:/sbin"
read_once=("$program" "$tests")
for tool in nft ip conntrack; do
    tool=$(command -v "$tool")
    read_once+=("$tool")
    while read -r library; do read_once+=("$library"); done < <(ldd "$tool" | grep -o '/[^ ]*')
done

status=0
for kernel; do
    echo "==> Kernel of $kernel"
    "${0%/*}/vm" --kernel "$kernel" --virtual-clock --timeout 280 -- \
        sh -c 'n=$1; shift; while [ "$n" -gt 0 ]; do cat "$1" > /dev/null; shift; n=$((n - 1)); done
               uname -r; nft list ruleset; exec "$@"' sh "${#read_once[@]}" "${read_once[@]}" \
        "$tests" --test-threads 1 --exact "${scenarios[@]}" || { status=1; echo "==> failed on $kernel"; }
done
exit "$status"
