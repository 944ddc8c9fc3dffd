#!/usr/bin/env bash
# Prints what the fast path saves and costs: `VARIANT MEASURE FIGURE` for each, of each round.
#
#   benches/fast.sh PROGRAM LOAD ROUNDS COUNT [VARIANT...]
#
# LOAD is benches/load.c, compiled; sessions are made by benches/flows.py. The site is a client, a router and the
# internet in network namespaces; a server stands beside the client. Variants:
#
#   plain       forwarding, masquerading and one port forward; `ip rule` was used once, as by everybody who has a rule
#   off         what `PROGRAM run` puts in force with three uplinks, one policy with persistence by source and one
#               service, with `fast-path: off`
#   auto        the same with the fast path
#
# Measures: `udp4-out`, `tcp6-in` and so on: a packet of an established session, from inside or to the service, less
# what generator, cables and sink cost by themselves: the router's share. For that the same packet is sent through a
# namespace that does nothing but pass it on to the other cable (`fwd to` at ingress). `new`: the first
# packet of a session, `connection`: a whole short TCP connection; both with what its ends cost, which is the same
# in all variants. `leave` (auto): milliseconds until 5,000 sessions that went past the rules have left an uplink
# that was disabled. `sweep` (auto): milliseconds of processor time for one look at 100,000 sessions.
# Run it in a machine whose clock counts instructions. Everything made here is gone at the end, however it ends.
. "${0%/*}/site.sh"

[ $# -ge 4 ] || die "usage: fast.sh PROGRAM LOAD ROUNDS COUNT [VARIANT...]"
program=$(readlink -f "$1") load=$(readlink -f "$2") rounds=$3 count=$4
flows=$(readlink -f "${0%/*}/flows.py")
shift 4
[ $# -gt 0 ] || set -- plain off auto
variants=("$@")
# How many sessions leave, and are looked at; none: that is left out.
leaving=${FAST_LEAVING:-5000} looked_at=${FAST_SWEPT:-100000}

name_spaces client router internet wire
port=9
inside4=10.0.0.2 inside6=fd00::2 outside4=203.0.113.9 outside6=2001:db8:ffff::9
client_mac=02:00:00:00:00:02 lan_mac=02:00:00:00:00:01 cable_mac=02:00:00:00:00:03 back_mac=02:00:00:00:00:04

build_site() {
    local uplinks=$1 n device
    add_spaces "$client" "$router" "$internet" "$wire"
    for space in "${spaces[@]}"; do
        # Nobody asks for neighbours or routers while something is measured.
        ip netns exec "$space" sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.router_solicitations=0
    done
    ip link add lan0 address "$lan_mac" netns "$router" type veth peer name eth0 address "$client_mac" netns "$client"
    # Beside the router: what goes into `cable0` comes out of the other's `cable1`.
    ip link add cable0 netns "$client" type veth peer name out0 netns "$wire"
    ip link add cable1 address "$cable_mac" netns "$internet" type veth peer name out1 netns "$wire"
    ip link add cable0 netns "$internet" type veth peer name in0 netns "$wire"
    ip link add cable1 address "$back_mac" netns "$client" type veth peer name in1 netns "$wire"
    for device in out0 out1 in0 in1; do ip -n "$wire" link set "$device" up; done
    ip netns exec "$wire" nft -f - << 'RULES'
table netdev pass {
    chain outwards {
        type filter hook ingress device out0 priority 0
        fwd to "out1"
    }
    chain inwards {
        type filter hook ingress device in0 priority 0
        fwd to "in1"
    }
}
RULES
    {
        echo "addr add 10.0.0.1/16 dev lan0"
        echo "addr add fd00::1/64 dev lan0"
        echo "link set lan0 up"
        echo "neigh replace $inside4 lladdr $client_mac dev lan0 nud permanent"
        echo "neigh replace $inside6 lladdr $client_mac dev lan0 nud permanent"
    } > "$dir/router"
    {
        echo "addr add $outside4/32 dev lo"
        echo "addr add $outside6/128 dev lo"
        echo "link set cable0 up"
        echo "link set cable1 up"
    } > "$dir/internet"
    for ((n = 0; n < uplinks; n++)); do
        ip link add "wan$n" address 02:00:00:00:02:0$n netns "$router" type veth \
            peer name "isp$n" address 02:00:00:00:01:0$n netns "$internet"
        {
            echo "addr add 198.18.$((100 + n)).1/24 dev isp$n"
            echo "addr add 2001:db8:$((100 + n))::1/64 dev isp$n"
            echo "link set isp$n up"
            echo "neigh replace 198.18.$((100 + n)).2 lladdr 02:00:00:00:02:0$n dev isp$n nud permanent"
            echo "neigh replace 2001:db8:$((100 + n))::2 lladdr 02:00:00:00:02:0$n dev isp$n nud permanent"
        } >> "$dir/internet"
        {
            echo "addr add 198.18.$((100 + n)).2/24 dev wan$n"
            echo "addr add 2001:db8:$((100 + n))::2/64 dev wan$n"
            echo "link set wan$n up"
            echo "neigh replace 198.18.$((100 + n)).1 lladdr 02:00:00:00:01:0$n dev wan$n nud permanent"
            echo "neigh replace 2001:db8:$((100 + n))::1 lladdr 02:00:00:00:01:0$n dev wan$n nud permanent"
            echo "route add default via 198.18.$((100 + n)).1 dev wan$n metric $((100 + n))"
            echo "-6 route add default via 2001:db8:$((100 + n))::1 dev wan$n metric $((100 + n))"
        } >> "$dir/router"
    done
    sed -i 's/^-6 route add default/route add ::\/0/' "$dir/router"
    ip -n "$router" -batch "$dir/router"
    ip -n "$internet" -batch "$dir/internet"
    ip -n "$client" -batch - <<< "addr add $inside4/16 dev eth0
addr add $inside6/64 dev eth0
link set eth0 up
link set cable0 up
link set cable1 up
neigh replace 10.0.0.1 lladdr $lan_mac dev eth0 nud permanent
neigh replace fd00::1 lladdr $lan_mac dev eth0 nud permanent
route add default via 10.0.0.1
route add ::/0 via fd00::1"
    in_router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    in_internet sysctl -qw net.ipv4.conf.all.rp_filter=0
    ip netns exec "$internet" python3 "$flows" serve "$port" "$outside4" "$outside6" &
    jobs+=($!)
    ip netns exec "$client" python3 "$flows" serve "$port" "$inside4" "$inside6" &
    jobs+=($!)
    ip netns exec "$internet" "$load" serve 80 &
    jobs+=($!)
    sleep 2
}

plain_rules() {
    in_router nft -f - << RULES
table inet plain {
    chain prerouting {
        type nat hook prerouting priority dstnat
        iifname "wan0" meta nfproto ipv4 meta l4proto { tcp, udp } th dport 443 dnat ip to $inside4:$port
        iifname "wan0" meta nfproto ipv6 meta l4proto { tcp, udp } th dport 443 dnat ip6 to [$inside6]:$port
    }
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname "wan0" masquerade
    }
}
RULES
    for family in -4 -6; do
        ip -n "$router" "$family" rule flush
        ip -n "$router" "$family" rule add pref 32766 lookup main
    done
    ip -n "$router" rule add pref 32767 lookup default
}

write_profile() {
    echo "version: 1
site: bench
uplinks:
  isp0: { interface: wan0 }
  isp1: { interface: wan1 }
  isp2: { interface: wan2 }
lans:
  lan: { interface: lan0 }
policies:
  - { name: rest, balance: round-robin, persistence: source }
groups:
  four: { servers: { a: { address: $inside4, port: $port } }, check: { udp: { send: x } } }
  six: { servers: { a: { address: \"$inside6\", port: $port } }, check: { udp: { send: x } } }
services:
  shop4: { virtual: [isp0], protocol: [tcp, udp], ports: [443], group: four }
  shop6: { virtual: [isp0], protocol: [tcp, udp], ports: [444], group: six }
probes:
  default: { targets: [{ icmp: $outside4 }, { icmp: \"$outside6\" }] }
fast-path: $1"
}

start_homing() {
    write_profile "$1" > "$dir/site.yaml"
    rm -rf "$dir/run" "$dir/state"
    ip netns exec "$router" "$program" run "$dir/site.yaml" --runtime-dir "$dir/run" --state-dir "$dir/state" 2> "$dir/log" &
    jobs+=($!)
    homing=$!
    for _ in $(seq 600); do
        ! grep -q ' INFO ready$' "$dir/log" || { sleep 8; return; }
        sleep 0.1
    done
    cat "$dir/log" >&2
    die "homing was not ready"
}

command() { in_router "$program" "$@" --runtime-dir "$dir/run"; }

# What it put in force stays; nothing but packets costs anything then.
pause_homing() { kill -STOP "$homing"; }
resume_homing() { kill -CONT "$homing"; }

forget() { in_router conntrack -F > /dev/null 2>&1; }
carried() { { in_router conntrack -L; in_router conntrack -L -f ipv6; } 2> /dev/null | grep -c OFFLOAD || true; }

# One session: NAME KIND SPACE DEVICE SOURCE TARGET PORT SINK SINK-DEVICE CABLE-MAC
session() {
    local name=$1 kind=$2 space=$3 device=$4 source=$5 target=$6 to=$7 sink=$8 sink_device=$9 mac=${10}
    local through cable carried
    forget
    read -r through cable carried < <(ip netns exec "$space" python3 "$flows" cost "$kind" "$device" "$source" "$target" "$to" \
        "$count" "$sink" "$sink_device" cable0 "$mac" "$router")
    [ "$variant" != auto ] || [ "$carried" -ge 1 ] || die "$variant $name: it was not offloaded"
    [ "$variant" = auto ] || [ "$carried" = 0 ] || die "$variant $name: it was offloaded"
    echo "$variant $name $((through - cable))"
}

# By round-robin and a binding, the client's sessions go by one uplink; which, conntrack tells.
way_out() {
    in_client "$load" hello "$inside4" "$outside4" "$port"
    in_router conntrack -L -p udp -d "$outside4" 2> /dev/null | sed -n 's/.*dst=198\.18\.10\([0-9]\)\.2 .*/\1/p' | head -1
}

measure_round() {
    local kind out six
    [ "$variant" = plain ] || pause_homing
    # The clock leaps while a file is read: no session may leave the flowtable, or be forgotten, for that.
    [ "$variant" != auto ] || in_router sysctl -qw net.netfilter.nf_flowtable_tcp_timeout=3600 net.netfilter.nf_flowtable_udp_timeout=3600
    in_router sysctl -qw net.netfilter.nf_conntrack_udp_timeout_stream=3600 net.netfilter.nf_conntrack_udp_timeout=3600
    forget
    out=$(way_out)
    for kind in udp tcp; do
        session "$kind"4-out "$kind" "$client" eth0 "$inside4" "$outside4" "$port" "$internet" "isp$out" "$cable_mac"
        session "$kind"4-in "$kind" "$internet" isp0 "$outside4" 198.18.100.2 443 "$client" eth0 "$back_mac"
        six=443
        [ "$variant" = plain ] || six=444
        session "$kind"6-in "$kind" "$internet" isp0 "$outside6" 2001:db8:100::2 "$six" "$client" eth0 "$back_mac"
    done
    for kind in udp tcp; do
        for n in 0 1 2; do
            [ "$n" = 0 ] || [ "$variant" != plain ] || continue
            # The uplink of IPv6 is another one: try which.
            [ "$variant" = plain ] || [ "$(way_out6)" = "$n" ] || continue
            session "$kind"6-out "$kind" "$client" eth0 "$inside6" "$outside6" "$port" "$internet" "isp$n" "$cable_mac"
        done
    done
    forget
    in_internet nft -f - << RULES
table netdev sink {
    chain sink {
        type filter hook ingress devices = { $(devices) } priority 0
        ip protocol udp ip length 100 drop
    }
}
RULES
    echo "$variant new $(in_client "$load" new eth0 "$lan_mac" "$dir/one" "$count")"
    in_internet nft delete table netdev sink
    forget
    echo "$variant connection $(in_client "$load" connect "$inside4" "$outside4" 80 "$((count / 10))")"
    [ "$variant" = plain ] || { resume_homing; sleep 10; }
}

devices() {
    [ "$variant" = plain ] && echo isp0 || echo isp0, isp1, isp2
}

way_out6() {
    in_client python3 -c "import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(3); s.connect(('$outside6', $port)); s.send(b'x'); s.recv(9)"
    in_router conntrack -L -f ipv6 -p udp -d "$outside6" 2> /dev/null | sed -n 's/.*dst=2001:db8:10\([0-9]\)::2 .*/\1/p' | head -1
}

echo "$inside4 $outside4 $port" > "$dir/one"

# So many sessions of 50 clients, every fifth (or none) of TCP, all of them past the rules: here every packet asks to be let in.
talk() {
    local n rule timeouts=(net.netfilter.nf_flowtable_tcp_timeout net.netfilter.nf_flowtable_udp_timeout) were
    [ -e "$dir/clients" ] || {
        for n in $(seq 2 51); do echo "addr add 10.0.1.$n/16 dev eth0"; done > "$dir/clients"
        ip -n "$client" -batch "$dir/clients"
    }
    # By then nothing is left to be done after routes changed.
    sleep 11
    pause_homing
    forget
    were=$(in_router sysctl "${timeouts[@]}" | tr -d ' ')
    in_router sysctl -qw "${timeouts[@]/%/=3600}"
    rule=$(in_router nft -ae insert rule inet homing forward ct state established iifname vmap @fast-ways |
        sed -n 's/.* # handle \([0-9]*\)$/\1/p')
    : > "$dir/talked"
    (ulimit -n 250000; exec ip netns exec "$client" python3 "$flows" talk 10.0.1. 50 "$outside4" "$port" "$1" "$2") > "$dir/talked" &
    jobs+=($!)
    for _ in $(seq 30000); do
        ! grep -q talked "$dir/talked" || break
        sleep 0.2
    done
    grep -q talked "$dir/talked" || die "they did not talk"
    # Nothing is to be put right, which would let them out again. Who is in stays for the time that was in force then.
    # shellcheck disable=SC2086 # a word for each
    in_router sysctl -qw $were
    in_router nft delete rule inet homing forward handle "$rule"
    resume_homing
}

# All over one uplink, which then is disabled.
measure_leave() {
    command uplink isp1 disable > /dev/null
    command uplink isp2 disable > /dev/null
    talk "$leaving" 5
    echo "$variant leave-carried $(carried)"
    command uplink isp1 enable > /dev/null
    command uplink isp2 enable > /dev/null
    sleep 2
    command uplink isp0 disable > /dev/null
    for _ in $(seq 100); do
        ! grep -q 'evacuated .* of isp0' "$dir/log" || break
        sleep 0.1
    done
    grep 'evacuated .* of isp0' "$dir/log" >&2 || die "nobody left"
    echo "$variant leave $(sed -n 's/.*evacuated .* of isp0.*within \([0-9.]*\) ms.*/\1/p' "$dir/log" | head -1)"
    command uplink isp0 enable > /dev/null
    kill "${jobs[-1]}"
    wait "${jobs[-1]}" 2> /dev/null || true
    unset 'jobs[-1]'
}

# Processor time of the thread that looks at the sessions, in milliseconds.
swept() {
    local task
    for task in /proc/"$homing"/task/*; do
        [ "$(cat "$task/comm")" != sweeper ] || awk '{ printf "%.0f\n", $1 / 1e6 }' "$task/schedstat"
    done
}

measure_sweep() {
    local before after
    talk "$looked_at" 0
    sleep 5
    echo "$variant sweep-sessions $(in_router conntrack -C)"
    echo "$variant sweep-carried $(carried)"
    before=$(swept)
    sleep 30
    after=$(swept)
    echo "$variant sweep $((after - before))"
}

for variant in "${variants[@]}"; do
    rm -f "$dir/clients"
    case $variant in
        plain) build_site 1; plain_rules ;;
        off | auto) build_site 3; start_homing "$variant" ;;
        *) die "no variant $variant" ;;
    esac
    for ((round = 0; round < rounds; round++)); do measure_round; done
    if [ "$variant" = auto ]; then
        [ "$leaving" = 0 ] || measure_leave
        [ "$looked_at" = 0 ] || measure_sweep
    fi
    remove_site
done
