#!/usr/bin/env bash
# Prints what a packet and a new session cost in the router: `VARIANT MEASURE FIGURE` for each, of each round.
#
#   benches/cost.sh PROGRAM LOAD ROUNDS COUNT [VARIANT...]
#
# LOAD is benches/load.c, compiled. The site is a client, a router and the internet in network namespaces; the
# client sends COUNT packets, the router forwards them, and the internet drops them where they arrive. Variants:
#
#   bare           forwarding and one masquerade rule, one uplink
#   plain          the same, but `ip rule` was used once: from then on the kernel asks the list of rules for each
#                  packet, twice, as it does for everybody who has a rule of his own
#   homing-U-P     what `PROGRAM run` puts in force with U uplinks and P policies, each with persistence by source;
#                  the program has ended again, so that nothing but packets costs anything
#
# Measures: `established` (packets of one session), `known` (first packets of sessions of 50 clients that are known),
# `fresh` (of a client that was never seen, each). With more than one policy, `known` goes by the last one, and
# `spread` goes by all of them in turn. `idle` is what generator and sink cost by themselves: the same packets
# over one cable. Everything made here is gone at the end, however it ends.
. "${0%/*}/site.sh"

[ $# -ge 4 ] || die "usage: cost.sh PROGRAM LOAD ROUNDS COUNT [VARIANT...]"
program=$(readlink -f "$1") load=$(readlink -f "$2") rounds=$3 count=$4
shift 4
[ $# -gt 0 ] || set -- bare plain homing-3-1 homing-8-1 homing-3-200
variants=("$@")

name_spaces client router internet
lan_mac=02:00:00:00:00:01 direct_mac=02:00:00:00:00:03
target=203.0.113.9 port=9

# Client, router and internet, with so many uplinks.
build_site() {
    local uplinks=$1 n mac
    add_spaces "$client" "$router" "$internet"
    ip link add lan0 address "$lan_mac" netns "$router" type veth peer name eth0 netns "$client"
    ip link add direct1 address "$direct_mac" netns "$internet" type veth peer name direct0 netns "$client"
    {
        echo "addr add 10.0.0.1/16 dev lan0"
        echo "link set lan0 up"
    } > "$dir/router"
    {
        echo "addr add $target/32 dev lo"
        echo "link set direct1 up"
    } > "$dir/internet"
    local devices=direct1
    for ((n = 0; n < uplinks; n++)); do
        mac=02:00:00:00:01:0$n
        ip link add "wan$n" netns "$router" type veth peer name "isp$n" address "$mac" netns "$internet"
        echo "addr add 198.18.$((100 + n)).1/24 dev isp$n"
        echo "link set isp$n up"
        devices+=,isp$n
    done >> "$dir/internet"
    for ((n = 0; n < uplinks; n++)); do
        echo "addr add 198.18.$((100 + n)).2/24 dev wan$n"
        echo "link set wan$n up"
        echo "neigh replace 198.18.$((100 + n)).1 lladdr 02:00:00:00:01:0$n dev wan$n nud permanent"
        echo "route add default via 198.18.$((100 + n)).1 dev wan$n metric $((100 + n))"
    done >> "$dir/router"
    ip -n "$router" -batch "$dir/router"
    ip -n "$internet" -batch "$dir/internet"
    ip -n "$client" -batch - <<< "addr add 10.0.0.2/16 dev eth0
link set eth0 up
link set direct0 up
route add default via 10.0.0.1"
    # What is as long as the load is dropped; shorter packets are the hello that makes a session.
    in_internet nft -f - << RULES
table netdev sink {
    chain sink {
        type filter hook ingress devices = { ${devices//,/, } } priority 0
        ip protocol udp ip length 100 drop
    }
}
RULES
    in_router sysctl -qw net.ipv4.ip_forward=1
    in_internet sysctl -qw net.ipv4.conf.all.rp_filter=0
    ip netns exec "$internet" "$load" echo "$target" "$port" &
    jobs+=($!)
}

# The policies as the docs describe them; the last takes everything that no other does.
write_profile() {
    local uplinks=$1 policies=$2 n
    echo "version: 1"
    echo "site: bench"
    # Sessions that last go past the rules where there is a flowtable: `fast.sh` measures those.
    echo "fast-path: off"
    echo "uplinks:"
    for ((n = 0; n < uplinks; n++)); do echo "  isp$n: { interface: wan$n }"; done
    echo "lans:"
    echo "  lan: { interface: lan0 }"
    echo "policies:"
    for ((n = 0; n < policies - 1; n++)); do
        echo "  - { name: p$n, persistence: source, match: { $(condition "$n") } }"
    done
    echo "  - { name: rest, persistence: source }"
}

condition() {
    local n=$1
    case $((n % 5)) in
        0 | 1) echo "to: [198.51.$n.0/24]" ;;
        2) echo "protocol: [tcp, udp], ports: [$((10000 + n))]" ;;
        3) echo "from: [10.0.$n.0/28]" ;;
        4) echo "to: [192.0.$n.0/24], ports: [$((10000 + n))]" ;;
    esac
}

# A session of each policy: `source target port`.
spread_tuples() {
    local policies=$1 n
    for ((n = 0; n < policies - 1; n++)); do
        case $((n % 5)) in
            0 | 1) echo "10.0.1.$((n % 50 + 1)) 198.51.$n.7 $port" ;;
            2) echo "10.0.1.$((n % 50 + 1)) $target $((10000 + n))" ;;
            3) echo "10.0.$n.5 $target $port" ;;
            4) echo "10.0.1.$((n % 50 + 1)) 192.0.$n.7 $((10000 + n))" ;;
        esac
    done
    echo "10.0.1.50 $target $port"
}

start_homing() {
    write_profile "$1" "$2" > "$dir/site.yaml"
    rm -rf "$dir/run" "$dir/state"
    ip netns exec "$router" "$program" run "$dir/site.yaml" --runtime-dir "$dir/run" --state-dir "$dir/state" 2> "$dir/log" &
    jobs+=($!)
    for _ in $(seq 600); do
        ! grep -q ' INFO ready$' "$dir/log" || { end_homing; return; }
        sleep 0.1
    done
    cat "$dir/log" >&2
    die "homing was not ready"
}

# What it put in force stays. Before, IPv6 has settled and has been followed.
end_homing() {
    sleep 4
    kill "${jobs[-1]}"
    wait "${jobs[-1]}" || die "homing did not end well"
    unset 'jobs[-1]'
}

plain_rules() {
    in_router nft -f - << 'RULES'
table ip plain {
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname "wan0" masquerade
    }
}
RULES
}

use_ip_rules() {
    ip -n "$router" rule flush
    ip -n "$router" rule add pref 32766 lookup main
    ip -n "$router" rule add pref 32767 lookup default
}

sessions() { in_router conntrack -C; }
forget() { in_router conntrack -F > /dev/null 2>&1; }

# Prints one figure; dies if the router made another number of sessions than it should.
measure_new() {
    local name=$1 tuples=$2 made
    forget
    figure=$(in_client "$load" new eth0 "$lan_mac" "$tuples" "$count")
    made=$(sessions)
    [ "$made" -ge "$((count - count / 100))" ] || die "$variant $name: $made sessions of $count packets"
    echo "$variant $name $figure"
}

measure_round() {
    forget
    in_client "$load" hello 10.0.0.2 "$target" "$port"
    echo "$variant established $(in_client "$load" flow eth0 "$lan_mac" "$dir/one" "$count")"
    [ "$(sessions)" -le 3 ] || die "$variant: the session was not found again"
    measure_new known "$dir/known"
    measure_new fresh "$dir/fresh-$round"
    case $variant in
        *-1 | plain | bare) ;;
        *) measure_new spread "$dir/spread" ;;
    esac
    echo "$variant idle $(in_client "$load" flow direct0 "$direct_mac" "$dir/one" "$count")"
}

echo "10.0.0.2 $target $port" > "$dir/one"
for n in $(seq 1 50); do echo "10.0.1.$n $target $port"; done > "$dir/known"
for ((round = 0; round <= rounds; round++)); do
    awk -v round="$round" -v count="$count" -v target="$target" -v port="$port" \
        'BEGIN { for (i = 0; i < count; i++) { n = round * count + i
                 printf "10.0.%d.%d %s %d\n", 208 + n / 250 % 48, n % 250 + 1, target, port } }' > "$dir/fresh-$round"
done

for variant in "${variants[@]}"; do
    case $variant in
        bare) build_site 1; plain_rules ;;
        plain) build_site 1; plain_rules; use_ip_rules ;;
        homing-*)
            IFS=- read -r _ uplinks policies <<< "$variant"
            build_site "$uplinks"
            spread_tuples "$policies" > "$dir/spread"
            start_homing "$uplinks" "$policies" ;;
        *) die "no variant $variant" ;;
    esac
    # No session may expire before it is counted: the virtual clock leaps while a file is read.
    in_router sysctl -qw net.netfilter.nf_conntrack_udp_timeout=3600
    round=0
    measure_round > /dev/null    # the first round warms up
    for ((round = 1; round <= rounds; round++)); do
        measure_round
    done
    remove_site
done
