# Read by the other scripts here: network namespaces, programs in them, and how all of it goes again.
#
# There is a directory `dir` and a `prefix` for names. `name_spaces client` sets $client and makes `in_client`, which
# runs a command there; `add_spaces "$client"` makes it. Programs go into `jobs`. Whatever way the script ends,
# remove_site runs; it may be called before, too.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

bench=${0##*/}
bench=${bench%.sh}
prefix=homing-$bench-$$
spaces=() jobs=()
dir=$(mktemp -d "${TMPDIR:-/tmp}/homing-$bench.XXXXXX")
trap 'remove_site; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { echo "$bench: $*" >&2; }
die() { say "$*"; exit 1; }

# Names for these spaces, and a function for each that runs a command there.
name_spaces() {
    local name
    for name; do
        declare -g "$name=$prefix-$name"
        eval "in_$name() { ip netns exec \"\$$name\" \"\$@\"; }"
    done
}

add_spaces() {
    local space
    for space; do
        ip netns add "$space"
        spaces+=("$space")
        ip -n "$space" link set lo up
    done
}

remove_site() {
    local job space
    for job in "${jobs[@]}"; do
        kill "$job" 2> /dev/null || true
        # One that was stopped hears nothing.
        kill -CONT "$job" 2> /dev/null || true
        wait "$job" 2> /dev/null || true
    done
    for space in "${spaces[@]}"; do ip netns del "$space" 2> /dev/null || true; done
    jobs=() spaces=()
}
