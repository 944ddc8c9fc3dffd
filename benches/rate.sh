#!/usr/bin/env bash
# Prints connections a second through homing and through two proxies: `PEER FIGURE` for each, of each round.
#
#   benches/rate.sh PROGRAM ROUNDS SECONDS
#
# The client is wrk with 16 connections at a time, each for one request (`Connection: close`); behind are three addresses
# of one nginx, which answers with 4 bytes. HAProxy (`mode tcp`) and nginx (`stream`) run twice: in homing's router
# (`haproxy`, `nginx`), where homing does what it does for uplinks, and in a bare one that has neither rules nor connection
# tracking (`haproxy-bare`, `nginx-bare`). There `routed` connects straight to a server; in a third router nftables alone
# does what the service needs (`nft`). All take turns. Everything made here is gone at the end, however it ends.
. "${0%/*}/site.sh"

[ $# = 3 ] || die "usage: rate.sh PROGRAM ROUNDS SECONDS"
program=$(readlink -f "$1") rounds=$2 seconds=$3
for tool in wrk nginx; do
    command -v "$tool" > /dev/null || die "$tool is missing (Debian's package of that name)"
done

virtual=198.18.100.2 farm=(10.2.0.11 10.2.0.12 10.2.0.13)
stream_module=/usr/lib/nginx/modules/ngx_stream_module.so

# A client, a router and servers, named with this suffix.
build_site() {
    local name=$1 server n
    local client=$prefix-client-$name router=$prefix-router-$name servers=$prefix-servers-$name
    add_spaces "$client" "$router" "$servers"
    ip link add dmz0 netns "$router" type veth peer name eth0 netns "$servers"
    for n in 0 1 2; do
        ip link add "wan$n" netns "$router" type veth peer name "isp$n" netns "$client"
        ip -n "$client" addr add "198.18.$((100 + n)).1/24" dev "isp$n"
        ip -n "$client" link set "isp$n" up
        ip -n "$router" addr add "198.18.$((100 + n)).2/24" dev "wan$n"
        ip -n "$router" link set "wan$n" up
        ip -n "$router" route add default via "198.18.$((100 + n)).1" dev "wan$n" metric $((100 + n))
    done
    ip -n "$router" addr add 10.2.0.1/24 dev dmz0
    ip -n "$router" link set dmz0 up
    for server in "${farm[@]}"; do ip -n "$servers" addr add "$server/24" dev eth0; done
    ip -n "$servers" link set eth0 up
    ip -n "$servers" route add default via 10.2.0.1
    ip netns exec "$router" sysctl -qw net.ipv4.ip_forward=1
    mkdir -p "$dir/web-$name"
    cat > "$dir/web-$name.conf" << CONFIG
worker_processes 1;
pid $dir/web-$name.pid;
error_log $dir/web-$name.log;
events { worker_connections 4096; }
http {
    access_log off;
    server { listen 80 backlog=4096; location / { return 200 "pong"; } }
}
CONFIG
    ip netns exec "$servers" nginx -e "$dir/web-$name.log" -c "$dir/web-$name.conf" -g 'daemon off;' 2>> "$dir/nginx" &
    jobs+=($!)
    # homing asks the servers but once.
    for _ in $(seq 100); do
        [ -z "$(ip netns exec "$servers" ss -Hltn sport = 80)" ] || return 0
        sleep 0.1
    done
    die "nginx does not start"
}

start_homing() {
    cat > "$dir/site.yaml" << PROFILE
version: 1
site: bench
probes: { default: { targets: [gateway] } }
uplinks:
  isp0: { interface: wan0 }
  isp1: { interface: wan1 }
  isp2: { interface: wan2 }
lans: { dmz: { interface: dmz0 } }
groups:
  web:
    check: { tcp: { port: 80 }, interval: 10m, rise: 1 }
    servers:
      a: { address: ${farm[0]} }
      b: { address: ${farm[1]} }
      c: { address: ${farm[2]} }
services:
  web: { virtual: [isp0], protocol: tcp, ports: [80], group: web }
PROFILE
    ip netns exec "$prefix-router-homing" "$program" run "$dir/site.yaml" \
        --runtime-dir "$dir/run" --state-dir "$dir/state" 2> "$dir/log" &
    jobs+=($!)
    for _ in $(seq 300); do
        [ "$(grep -c 'server web/. is up' "$dir/log")" -lt 3 ] || return 0
        sleep 0.1
    done
    cat "$dir/log" >&2
    die "homing has no servers"
}

start_haproxy() {
    command -v haproxy > /dev/null || { say "no haproxy: HAProxy is left out"; return 0; }
    cat > "$dir/haproxy.cfg" << CONFIG
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend f
    bind $virtual:83
    default_backend b
backend b
    balance roundrobin
    server a ${farm[0]}:80
    server b ${farm[1]}:80
    server c ${farm[2]}:80
CONFIG
    for site in homing bare; do
        ip netns exec "$prefix-router-$site" haproxy -f "$dir/haproxy.cfg" 2> "$dir/haproxy-$site.log" &
        jobs+=($!)
    done
    peers+=(haproxy:homing:83 haproxy-bare:bare:83)
}

start_stream() {
    [ -e "$stream_module" ] || { say "nginx has no stream module: nginx is left out"; return 0; }
    for site in homing bare; do
        cat > "$dir/stream-$site.conf" << CONFIG
load_module $stream_module;
worker_processes auto;
pid $dir/stream-$site.pid;
error_log $dir/stream-$site.log;
events { worker_connections 4096; }
stream {
    upstream b { server ${farm[0]}:80; server ${farm[1]}:80; server ${farm[2]}:80; }
    server { listen $virtual:84 backlog=4096; proxy_pass b; }
}
CONFIG
        ip netns exec "$prefix-router-$site" nginx -e "$dir/stream-$site.log" -c "$dir/stream-$site.conf" \
            -g 'daemon off;' 2>> "$dir/nginx" &
        jobs+=($!)
    done
    peers+=(nginx:homing:84 nginx-bare:bare:84)
}

start_nft() {
    ip netns exec "$prefix-router-nft" nft -f - << RULES
table inet balance {
    chain prerouting {
        type nat hook prerouting priority dstnat
        ip daddr $virtual tcp dport 80 dnat ip to numgen inc mod 3 map { 0 : ${farm[0]}, 1 : ${farm[1]}, 2 : ${farm[2]} }
    }
}
RULES
    peers+=(nft:nft:80)
}

# Connections a second; tells if any of them failed.
rate() {
    local name=$1 site=$2 port=$3 target=$virtual told
    [ "$name" != routed ] || target=${farm[0]}
    ip netns exec "$prefix-router-$site" conntrack -F > /dev/null 2>&1 || true
    told=$(ip netns exec "$prefix-client-$site" wrk -t1 -c16 "-d${seconds}s" -H 'Connection: close' "http://$target:$port/")
    ! grep -E 'Non-2xx|Socket errors' <<< "$told" >&2 || true
    sed -n "s/^Requests\/sec: *\([0-9.]*\)/$name \1/p" <<< "$told"
}

for site in homing bare nft; do build_site "$site"; done
ip -n "$prefix-client-bare" route add 10.2.0.0/24 via "$virtual"
peers=(homing:homing:80 routed:bare:80)
start_homing
start_haproxy
start_stream
start_nft
sleep 1
for peer in "${peers[@]}"; do IFS=: read -r -a peer <<< "$peer"; rate "${peer[@]}" > /dev/null; done
for _ in $(seq "$rounds"); do
    for peer in "${peers[@]}"; do IFS=: read -r -a peer <<< "$peer"; rate "${peer[@]}"; done
done
