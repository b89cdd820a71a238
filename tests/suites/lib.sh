# What the suites share. Sourced by tests/run, in the root of the repository, under `set -euo pipefail`.
# shellcheck shell=bash

SKIPPED=77
TARGET=${CARGO_TARGET_DIR:-target}
WINGBEAT=$TARGET/release/wingbeat

# suite NAME WHAT: announces a suite; its function is suite_NAME (dashes as underscores).
suite() { SUITES+=("$1"); ABOUT[$1]=$2; }

full() { [ -n "$WINGBEAT_FULL" ]; }

# note TEXT: shown beside the suite's result. skip WHY: ends the suite, visibly, as neither passed nor failed.
note() { { set +x; } 2>/dev/null; echo "tests/run note: $*"; set -x; }
skip() { note "$*"; exit "$SKIPPED"; }
fail() { { set +x; } 2>/dev/null; echo "FAILED: $*"; exit 1; }
note_of() { sed -n 's/^tests\/run note: //p' "$1" | tail -n 1; }

# need TOOL PACKAGE...: the tool is there, or is installed from the distribution.
need() {
  local tool=$1
  shift
  command -v "$tool" >/dev/null || apt_install "$@"
}

apt_install() {
  command -v apt-get >/dev/null || fail "missing: $*, and this system has no apt-get to install it"
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  "${root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "$@"
}

need_python() {
  need python3 python3
  python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3-venv
}

need_node() {
  need node nodejs
  need npm npm
}

# venv DIR REQUIREMENTS: a virtual environment that holds exactly what the file pins; made again when the file changes.
venv() {
  need_python
  local want
  want=$(sha256sum <"$2")
  [ "$(cat "$1/.requirements" 2>/dev/null)" != "$want" ] || return 0
  rm -rf "$1"
  python3 -m venv "$1"
  "$1/bin/pip" --disable-pip-version-check --quiet install --no-deps -r "$2"
  echo "$want" >"$1/.requirements"
}

build_wingbeat() { cargo build --release --features cli --bin wingbeat; }

# start_server [SERVE_FLAG...]: builds and starts `wingbeat serve` on a free port and waits until it listens.
# Sets SERVER (its pid), ADDRESS (IP:PORT) and PORT.
start_server() {
  build_wingbeat
  start_listening "$WINGBEAT" serve --bind 127.0.0.1:0 --max-message 16MiB "$@"
}

# start_listening COMMAND...: starts a program that prints `listening on ADDR` when it is ready.
start_listening() { listens "$@" || fail "it ended before it listened, or does not listen after 20 s: $*"; }

# listens COMMAND...: the same; 1 if it does not come to listen.
listens() {
  local out
  out=$(mktemp)
  "$@" >"$out" &
  SERVER=$! ADDRESS=
  for _ in $(seq 200); do
    ADDRESS=$(sed -n 's/^listening on //p' "$out" | head -n 1)
    if [ -n "$ADDRESS" ] || ! kill -0 "$SERVER" 2>/dev/null; then break; fi
    sleep 0.1
  done
  rm -f "$out"
  PORT=${ADDRESS##*:}
  [ -n "$ADDRESS" ]
}

# need_uring PROGRAM: `PROGRAM serve --driver uring` starts here; kernels and containers may forbid it.
need_uring() {
  listens "$1" serve --driver uring --bind 127.0.0.1:0 || skip "the driver on io_uring does not start here"
  stop_server
}

# stop_server: SIGTERM, and the status that the server ended with (0 after a drain).
stop_server() {
  kill -TERM "$SERVER"
  wait "$SERVER"
}
