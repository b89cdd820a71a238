# What cargo alone can show.
# shellcheck shell=bash

# All of them. Whatever builds unoptimised builds with these, so that it is built once.
FEATURES=cli,jwt

suite fmt "rustfmt finds nothing to change"
suite_fmt() {
  cargo fmt --all --check
  rustfmt --check --config-path . fuzz/src/*.rs fuzz/fuzz_targets/*.rs
}

suite clippy "no warning from clippy or rustc, with every set of features"
suite_clippy() {
  cargo clippy --all-targets --features "$FEATURES" -- -D warnings
  cargo clippy --all-targets -- -D warnings
  cargo clippy --all-targets --no-default-features -- -D warnings
  cargo clippy --all-targets --no-default-features --features epoll -- -D warnings
}

suite docs "rustdoc without a warning"
suite_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features "$FEATURES"; }

suite unit "unit and property tests of the library and the program"
suite_unit() { cargo test --features "$FEATURES" --lib --bins; }

suite doctest "the examples in the documentation"
suite_doctest() { cargo test --features "$FEATURES" --doc; }

suite no-default-features "proto, buffer and pubsub without the engine: build and tests"
suite_no_default_features() {
  cargo build --no-default-features
  cargo test --no-default-features --lib --tests
}

suite sim-soak "the engine on the simulator, judged after every turn: 10,000 seeds (--full: 1,000,000)"
suite_sim_soak() {
  local seeds=10000 profile=dev
  ! full || seeds=1000000 profile=soak
  WINGBEAT_SOAK_SEEDS=${WINGBEAT_SOAK_SEEDS:-$seeds} \
    cargo test --profile "$profile" --features "$FEATURES" --test sim_soak -- --nocapture
}

for driver in epoll uring; do
  suite "soak-$driver" "all that clients do to a server on real sockets, judged by a model: 24 rounds on $driver (--full: 1,000)"
  eval "suite_soak_$driver() { soak $driver; }"
done

soak() {
  local rounds=24 profile=dev
  ! full || rounds=1000 profile=soak
  if [ "$1" = uring ]; then
    cargo build --features "$FEATURES" --bin wingbeat
    need_uring "$TARGET/debug/wingbeat"
  fi
  WINGBEAT_DRIVER=$1 WINGBEAT_SOAK_ROUNDS=${WINGBEAT_SOAK_ROUNDS:-$rounds} \
    cargo test --profile "$profile" --features "$FEATURES" --test soak -- --nocapture
}

# Every other test program (tests/NAME.rs or tests/NAME/main.rs) is a suite of its own name.
for file in $(compgen -G 'tests/*.rs'; compgen -G 'tests/*/main.rs'); do
  name=${file#tests/} name=${name%.rs} name=${name%/main}
  [[ $name != @(sim_soak|soak) ]] || continue
  suite "${name//_/-}" "$(sed -n '1s/^\/\/! *//p' "$file")"
  eval "suite_$name() { cargo test --features $FEATURES --test $name; }"
done

for name in server zero_alloc own_descriptor_table; do
  suite "${name//_/-}-uring" "the same as ${name//_/-} on io_uring"
  eval "suite_${name}_uring() { on_uring $name; }"
done

on_uring() {
  cargo test --features "$FEATURES" --test "$1" --no-run # the program, too
  need_uring "$TARGET/debug/wingbeat"
  WINGBEAT_DRIVER=uring cargo test --features "$FEATURES" --test "$1"
}

if [ -d benches ] && compgen -G 'benches/*.rs' >/dev/null; then
  suite benches "every benchmark runs once"
  suite_benches() { cargo test --features "$FEATURES" --benches; }
fi
