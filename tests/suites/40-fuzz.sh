# Fuzzing: see fuzz/README.md.
# shellcheck shell=bash

if [ -f fuzz/Cargo.toml ]; then
  suite fuzz-corpus "the seeds and every kept finding replayed by the fuzz targets, on stable"
  suite_fuzz_corpus() { cargo test --manifest-path fuzz/Cargo.toml; }

  suite fuzz "each fuzz target for 5 s (--full: 60 s); needs nightly"
  suite_fuzz() {
    need_cargo_fuzz
    local seconds=5 target runs=()
    ! full || seconds=60
    cargo +nightly fuzz build
    for target in $(cargo +nightly fuzz list); do
      cargo +nightly fuzz run "$target" -- -max_total_time=$seconds -print_final_stats=1 2>&1 | tee "$TARGET/tests/fuzz.out"
      runs+=("$target $(sed -n 's/^stat::number_of_executed_units: *//p' "$TARGET/tests/fuzz.out")")
    done
    note "executions: $(printf '%s, ' "${runs[@]}" | sed 's/, $//')"
  }

  suite fuzz-planted "three planted faults are each found by their fuzz target"
  suite_fuzz_planted() {
    need_cargo_fuzz
    fuzz/planted.sh | tee "$TARGET/tests/planted.out"
    note "$(sed -n 's/^found: //p' "$TARGET/tests/planted.out" | paste -sd ';')"
  }
fi

need_cargo_fuzz() {
  cargo +nightly --version >/dev/null 2>&1 || skip "no nightly toolchain; fuzz-corpus replays the seeds on stable"
  cargo +nightly fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
  need g++ g++
}
