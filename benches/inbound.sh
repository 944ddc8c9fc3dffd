#!/usr/bin/env bash
# Prints what a connection, a packet and a new session through a service cost: `VARIANT MEASURE FIGURE` for each, of
# each round.
#
#   benches/inbound.sh PROGRAM LOAD ROUNDS COUNT [VARIANT...]
#
# LOAD is benches/load.c, compiled. The site is a client on the internet, a router and three servers, in network
# namespaces. Variants:
#
#   routed    no balancing: the client speaks to one server, the router forwards, connection tracking and a hook for
#             translation are in force (a table that balances and that no packet of this variant matches)
#   rules     the same, but `ip rule` was used once (as `plain` of cost.sh)
#   peers     that table (nftables alone, hand-written), IPVS with NAT and HAProxy with `mode tcp`, in one router; and
#             what speaks to one server through that same router
#   services  what `PROGRAM run` puts in force with a service of each mode of persistence; and what speaks to one server
#             through that same router
#   beside    the same router, with IPVS and HAProxy in it
#   one       the same with one service; many: with 10,000. The program has ended again in all four
#
# Measures: `connection-X` (COUNT / 8 TCP connections one after the other: open, four bytes each way, close; everything
# counts: client, router, server), `in-X` and `back-X` (UDP packets of one session, to the server and to the client),
# `new-X` (first packets of sessions of 50 clients). `idle` is what generator and sink cost by themselves.
# Everything made here is gone at the end, however it ends.
. "${0%/*}/site.sh"
export LOAD_CHECKSUMS=1

[ $# -ge 4 ] || die "usage: inbound.sh PROGRAM LOAD ROUNDS COUNT [VARIANT...]"
program=$(readlink -f "$1") load=$(readlink -f "$2") rounds=$3 count=$4
shift 4
[ $# -gt 0 ] || set -- routed rules peers services beside one many
variants=("$@")

name_spaces client router servers
wan_mac=02:00:00:00:00:01 dmz_mac=02:00:00:00:00:02 direct_mac=02:00:00:00:00:03
client_mac=02:00:00:00:00:04 server_mac=02:00:00:00:00:05
virtual=198.18.100.2 farm=(10.2.0.11 10.2.0.12 10.2.0.13)
modes=(tcp ssl sticky ip)
declare -A tcp_port=([tcp]=81 [ssl]=82 [sticky]=83 [ip]=84)
declare -A udp_port=([tcp]=5001 [ssl]=5002 [sticky]=5003 [ip]=5004 [vpn]=4500)
direct_port=5000 many=10000 first_port=10000 chosen_port=15000

build_site() {
    local space n server port
    add_spaces "$client" "$router" "$servers"
    ip link add dmz0 address "$dmz_mac" netns "$router" type veth peer name eth0 address "$server_mac" netns "$servers"
    ip link add direct1 address "$direct_mac" netns "$servers" type veth peer name direct0 netns "$client"
    ip link add wan0 address "$wan_mac" netns "$router" type veth peer name isp0 address "$client_mac" netns "$client"
    for n in 1 2; do ip link add "wan$n" netns "$router" type veth peer name "isp$n" netns "$client"; done
    {
        for n in 0 1 2; do
            echo "addr add 198.18.$((100 + n)).1/24 dev isp$n"
            echo "link set isp$n up"
        done
        echo "link set direct0 up"
        for n in $(seq 60); do echo "addr add 203.0.113.$n/32 dev lo"; done
        echo "route add default via $virtual dev isp0"
    } > "$dir/client"
    {
        for n in 0 1 2; do
            echo "addr add 198.18.$((100 + n)).2/24 dev wan$n"
            echo "link set wan$n up"
            echo "route add default via 198.18.$((100 + n)).1 dev wan$n metric $((100 + n))"
        done
        echo "addr add 10.2.0.1/24 dev dmz0"
        echo "link set dmz0 up"
        echo "neigh replace 198.18.100.1 lladdr $client_mac dev wan0 nud permanent"
        for server in "${farm[@]}"; do echo "neigh replace $server lladdr $server_mac dev dmz0 nud permanent"; done
    } > "$dir/router"
    {
        for server in "${farm[@]}"; do echo "addr add $server/24 dev eth0"; done
        echo "link set eth0 up"
        echo "link set direct1 up"
        echo "neigh replace 10.2.0.1 lladdr $dmz_mac dev eth0 nud permanent"
        echo "route add default via 10.2.0.1"
    } > "$dir/servers"
    for space in client router servers; do ip -n "${!space}" -batch "$dir/$space"; done
    in_router sysctl -qw net.ipv4.ip_forward=1
    # Checksums are right; a network card would have looked at them.
    in_router sysctl -qw net.netfilter.nf_conntrack_checksum=0 2> /dev/null || true
    # What is as long as the load is dropped; shorter packets are the hello that makes a session.
    local rules="chain sink { type filter hook ingress devices = { DEVICES } priority 0; ip protocol udp ip length 100 drop; };"
    in_servers nft "table netdev sink { ${rules/DEVICES/eth0, direct1} }"
    in_client nft "table netdev sink { ${rules/DEVICES/isp0} }"
    ip netns exec "$servers" "$load" serve 80 &
    jobs+=($!)
    for server in "${farm[@]}"; do
        for port in "$direct_port" "${udp_port[@]}"; do
            ip netns exec "$servers" "$load" echo "$server" "$port" &
            jobs+=($!)
        done
    done
}

# The hand-written balancer of nftables; with it come connection tracking and the hook for translation.
nft_rules() {
    in_router nft -f - << RULES
table ip balancer {
    map slots { typeof numgen inc mod 3 : ip daddr . tcp dport; flags interval
        elements = { 0 : ${farm[0]} . 80, 1 : ${farm[1]} . 80, 2 : ${farm[2]} . 80 } }
    map services { type ipv4_addr . inet_service : verdict; elements = { $virtual . 91 : goto web } }
    chain web { meta l4proto tcp dnat ip to numgen inc mod 3 map @slots; };
    chain prerouting { type nat hook prerouting priority dstnat; ip daddr . tcp dport vmap @services; };
}
RULES
}

use_ip_rules() {
    ip -n "$router" rule flush
    ip -n "$router" rule add pref 32766 lookup main
    ip -n "$router" rule add pref 32767 lookup default
}

start_ipvs() {
    command -v ipvsadm > /dev/null || { say "no ipvsadm: IPVS is left out"; return 1; }
    local server
    in_router ipvsadm -A -t "$virtual:92" -s rr 2> "$dir/ipvs" ||
        { say "IPVS is left out: $(head -1 "$dir/ipvs")"; return 1; }
    in_router sysctl -qw net.ipv4.vs.conntrack="$1"
    for server in "${farm[@]}"; do in_router ipvsadm -a -t "$virtual:92" -r "$server:80" -m; done
}

start_haproxy() {
    command -v haproxy > /dev/null || { say "no haproxy: HAProxy is left out"; return 1; }
    cat > "$dir/haproxy.cfg" << CONFIG
global
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend f
    bind $virtual:93
    default_backend b
backend b
    balance roundrobin
    server a ${farm[0]}:80
    server b ${farm[1]}:80
    server c ${farm[2]}:80
CONFIG
    ip netns exec "$router" haproxy -f "$dir/haproxy.cfg" 2> "$dir/haproxy.log" &
    jobs+=($!)
    local tries
    for ((tries = 0; tries < 60; tries++)); do
        ! in_client "$load" connect 203.0.113.59 "$virtual" 93 1 > /dev/null 2>&1 || return 0
        sleep 1
    done
    cat "$dir/haproxy.log" >&2
    die "HAProxy does not serve"
}

profile_head() {
    local n
    echo "version: 1"
    echo "site: bench"
    # Sessions that last go past the rules where there is a flowtable: `fast.sh` measures those.
    echo "fast-path: off"
    echo "probes: { default: { targets: [gateway], interval: 1s } }"
    echo "uplinks:"
    for n in 0 1 2; do echo "  isp$n: { interface: wan$n }"; done
    echo "lans: { dmz: { interface: dmz0 } }"
    echo "firewall: { forward: open }"
    echo "groups:"
    group web ", port: 80"
    group datagrams ""
    echo "services:"
}

group() {
    local n names=(a b c)
    echo "  $1:"
    echo "    check: { tcp: { port: 80 }, interval: 1s }"
    echo "    servers:"
    for n in 0 1 2; do echo "      ${names[n]}: { address: ${farm[n]}$2 }"; done
}

profile_services() {
    local mode
    profile_head
    for mode in "${modes[@]}"; do
        echo "  t-$mode: { virtual: [isp0], protocol: tcp, ports: [${tcp_port[$mode]}], group: web, persistence: { mode: $mode } }"
        echo "  u-$mode: { virtual: [isp0], protocol: udp, ports: [${udp_port[$mode]}], group: datagrams, persistence: { mode: $mode } }"
    done
    echo "  vpn: { virtual: [isp0], group: datagrams, persistence: { mode: vpn } }"
}

profile_many() {
    local number
    profile_head
    for ((number = $1; number < $1 + $2; number++)); do
        echo "  s$number: { virtual: [isp0], protocol: udp, ports: [$number], group: datagrams }"
    done
}

start_homing() {
    rm -rf "$dir/run" "$dir/state"
    ip netns exec "$router" "$program" run "$dir/site.yaml" --runtime-dir "$dir/run" --state-dir "$dir/state" 2> "$dir/log" &
    jobs+=($!)
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        if grep -q ' INFO ready$' "$dir/log" && all_up; then end_homing; return; fi
        kill -0 "${jobs[-1]}" 2> /dev/null || break
        sleep 0.5
    done
    cat "$dir/log" >&2
    die "homing was not ready"
}

# The servers of both groups.
all_up() { [ "$(grep -c ' server [a-z]*/[abc] is up' "$dir/log")" -ge 6 ]; }

# What it put in force stays. Before, IPv6 has settled and has been followed.
end_homing() {
    sleep 4
    kill "${jobs[-1]}"
    wait "${jobs[-1]}" || die "homing did not end well"
    unset 'jobs[-1]'
}

forget() { in_router conntrack -F > /dev/null 2>&1 || true; }
sessions() { in_router conntrack -C; }

# Each path has a client of its own: two with the same port at the same server would clash.
measure_connections() {
    local name=$1 source=$2 target=$3 port=$4 figure
    forget
    figure=$(in_client "$load" connect "$source" "$target" "$port" "$((count / 8))") || die "$variant $name: no connection"
    echo "$variant connection-$name $figure"
}

measure_packets() {
    local name=$1 source=$2 target=$3 port=$4 server
    forget
    in_client "$load" hello "$source" "$target" "$port"
    server=$(in_router conntrack -L -p udp -s "$source" 2> /dev/null | sed 's/.* src=\([^ ]*\) .*/\1/')
    echo "$source $target $port" > "$dir/in"
    echo "$server $source $port" > "$dir/back"
    echo "$variant in-$name $(in_client "$load" flow isp0 "$wan_mac" "$dir/in" "$count")"
    echo "$variant back-$name $(in_servers "$load" flow eth0 "$dmz_mac" "$dir/back" "$count")"
    [ "$(sessions)" -le 3 ] || die "$variant $name: the session was not found again"
}

measure_new() {
    local name=$1 tuples=$2 made figure
    forget
    figure=$(in_client "$load" new isp0 "$wan_mac" "$tuples" "$count")
    made=$(sessions)
    [ "$made" -ge "$((count - count / 100))" ] || die "$variant $name: $made sessions of $count packets"
    echo "$variant new-$name $figure"
}

measure_proxies() {
    [ -z "$ipvs" ] || measure_connections ipvs 203.0.113.58 "$virtual" 92
    [ -z "$haproxy" ] || measure_connections haproxy 203.0.113.59 "$virtual" 93
}

# So many tuples of 50 clients, to ports from that one on.
tuples() {
    local target=$1 port=$2 ports=$3 n
    for ((n = 0; n < (ports > 50 ? ports : 50); n++)); do
        echo "203.0.113.$((n % 50 + 1)) $target $((port + n % ports))"
    done
}

measure_round() {
    local number=0 mode
    case $variant in
        routed | rules)
            measure_connections direct 203.0.113.51 "${farm[0]}" 80
            measure_packets direct 203.0.113.52 "${farm[0]}" "$direct_port"
            measure_new direct "$dir/new-direct" ;;
        peers)
            measure_connections direct 203.0.113.51 "${farm[0]}" 80
            measure_connections nft 203.0.113.52 "$virtual" 91
            measure_proxies ;;
        services)
            measure_connections direct 203.0.113.51 "${farm[0]}" 80
            measure_packets direct 203.0.113.52 "${farm[0]}" "$direct_port"
            for mode in "${modes[@]}"; do
                number=$((number + 1))
                measure_connections "$mode" "203.0.113.$((52 + number))" "$virtual" "${tcp_port[$mode]}"
                measure_new "$mode" "$dir/new-$mode"
            done
            for mode in "${modes[@]}" vpn; do
                measure_packets "$mode" 203.0.113.60 "$virtual" "${udp_port[$mode]}"
            done ;;
        beside)
            measure_connections direct 203.0.113.51 "${farm[0]}" 80
            measure_connections tcp 203.0.113.53 "$virtual" "${tcp_port[tcp]}"
            measure_proxies ;;
        one) measure_new chosen "$dir/new-chosen" ;;
        many) measure_new chosen "$dir/new-chosen"; measure_new spread "$dir/new-spread" ;;
    esac
    echo "203.0.113.60 ${farm[0]} $direct_port" > "$dir/in"
    echo "$variant idle $(in_client "$load" flow direct0 "$direct_mac" "$dir/in" "$count")"
}

tuples "${farm[0]}" "$direct_port" 1 > "$dir/new-direct"
for mode in "${modes[@]}"; do tuples "$virtual" "${udp_port[$mode]}" 1 > "$dir/new-$mode"; done
tuples "$virtual" "$chosen_port" 1 > "$dir/new-chosen"
tuples "$virtual" "$first_port" "$many" > "$dir/new-spread"

for variant in "${variants[@]}"; do
    build_site
    ipvs='' haproxy=''
    case $variant in
        routed) nft_rules ;;
        rules) nft_rules; use_ip_rules ;;
        peers)
            nft_rules
            ! start_ipvs 0 || ipvs=yes
            ! start_haproxy || haproxy=yes ;;
        beside)
            profile_services > "$dir/site.yaml"
            start_homing
            # A firewall that knows sessions must know those of IPVS too.
            ! start_ipvs 1 || ipvs=yes
            ! start_haproxy || haproxy=yes ;;
        services) profile_services > "$dir/site.yaml"; start_homing ;;
        one) profile_many "$chosen_port" 1 > "$dir/site.yaml"; start_homing ;;
        many) profile_many "$first_port" "$many" > "$dir/site.yaml"; start_homing ;;
        *) die "no variant $variant" ;;
    esac
    # No session may expire before it is counted: the virtual clock leaps while a file is read.
    in_router sysctl -qw net.netfilter.nf_conntrack_udp_timeout=3600 net.netfilter.nf_conntrack_udp_timeout_stream=3600
    measure_round > /dev/null    # the first round warms up
    for ((round = 1; round <= rounds; round++)); do
        measure_round
    done
    remove_site
done
