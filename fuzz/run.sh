#!/usr/bin/env bash
# Feeds every decoder with mutated input: SECONDS for each (300 unless told), or for each TARGET named.
#
#     fuzz/run.sh [SECONDS [TARGET...]]
#     fuzz/run.sh keep          # takes what reaches new code, if it is small, into fuzz/corpus
#
# The compiler's coverage counters are there in every toolchain, so neither nightly nor cargo-fuzz is
# needed. Overflow is checked, and so is time (2 s) and memory (300 MB). What was found lies in
# fuzz/artifacts: put it into fuzz/corpus/TARGET with a name that says what it is, see the unit test
# `every_kept_input_is_read_to_its_end` fail, and mend the decoder.
set -euo pipefail
cd "$(dirname "$0")"

host=$(rustc --print host-tuple)
export RUSTFLAGS="-Cpasses=sancov-module -Ccodegen-units=1 -Cdebug-assertions --cfg=fuzzing
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# With a target named, what runs while building is built without counters.
cargo build --locked --release --target "$host"
built=${CARGO_TARGET_DIR:-target}/$host/release

all=(profile state routing nftables sessions notices refusals http answer dns)
limits=(-max_len=8192 -timeout=2 -rss_limit_mb=300)
mkdir -p artifacts

if [ "${1:-}" = keep ]; then
    for target in "${all[@]}"; do
        mkdir -p "work/$target" "corpus/$target" kept
        # Edges alone, not how often each was passed: few files that reach everything. Of those found by
        # a machine (their names are digests) the fifty that are longest, of at most 2 KB.
        "$built/$target" "${limits[@]}" -max_len=2048 -set_cover_merge=1 -use_counters=0 \
            kept "corpus/$target" "work/$target" > "work/$target.log" 2>&1
        ls -S kept | tail -n +51 | while read -r file; do rm "kept/$file"; done
        find "corpus/$target" -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
        mv kept/* "corpus/$target"
        rmdir kept
    done
    exit
fi

seconds=${1:-300}
targets=("${@:2}")
[ "${#targets[@]}" != 0 ] || targets=("${all[@]}")
failed=()
for target in "${targets[@]}"; do
    mkdir -p "work/$target" "corpus/$target"
    words=()
    [ ! -e "$target.dict" ] || words=("-dict=$target.dict")
    seeds=("work/$target" "corpus/$target")
    [ "$target" != profile ] || seeds+=(../profiles)
    echo "==> $target: ${seconds}s"
    if ! "$built/$target" "${limits[@]}" "${words[@]}" "-max_total_time=$seconds" -print_final_stats=1 \
        "-artifact_prefix=artifacts/$target-" "${seeds[@]}" > "work/$target.log" 2>&1; then
        failed+=("$target")
        grep -m1 -A1 -E 'panicked|ERROR' "work/$target.log" || true
    fi
    grep -E 'DONE|number_of_executed_units' "work/$target.log" || true
done
[ "${#failed[@]}" = 0 ] || { echo "found something: ${failed[*]}; see fuzz/artifacts"; exit 1; }
