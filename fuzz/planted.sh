#!/usr/bin/env bash
# Shows that the fuzz targets find faults: builds the library with one planted (`--cfg planted_fault`) and fuzzes the
# target that has to find it, from an empty corpus.
#   fuzz/planted.sh [FAULT...]     default: mask utf8 order
# Exit 1 if a fault was not found within 60 s of fuzzing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
declare -A TARGETS=([mask]=frame_decoder [utf8]=message_reader [order]=topic_ops)
[ $# -gt 0 ] || set -- mask utf8 order

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
missed=0
for fault in "$@"; do
  target=${TARGETS[$fault]}
  export RUSTFLAGS="--cfg planted_fault=\"$fault\""
  # Without the address sanitizer: what is planted is a wrong answer, and it is found sooner.
  build=(--sanitizer none --target-dir fuzz/target/planted)
  cargo +nightly fuzz build "${build[@]}" "$target"
  mkdir "$scratch/$fault"
  status=0
  cargo +nightly fuzz run "${build[@]}" "$target" "$scratch/$fault" -- -seed=1 -max_total_time=60 -print_final_stats=1 \
    -artifact_prefix="$scratch/" >"$scratch/log" 2>&1 || status=$?
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/log")
  if [ "$status" != 0 ] && grep -q 'panicked at' "$scratch/log"; then
    echo "found: $fault by $target after $executions executions"
    grep -A 2 'panicked at' "$scratch/log" | sed 's/^/    /'
  else
    echo "MISSED: $fault by $target after $executions executions (status $status)"
    tail -n 20 "$scratch/log"
    missed=1
  fi
done
exit "$missed"
