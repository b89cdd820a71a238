# What others say about our WebSocket: Autobahn|Testsuite in both roles, a hostile peer, two other implementations.
# shellcheck shell=bash

AUTOBAHN_CASES='1.*,2.*,3.*,4.*,5.*,6.*,7.*,9.*,10.*' # 12 and 13 are compression, which is not offered yet

autobahn_note() { note "$(grep '^autobahn: ' "$1" | tail -n 1 | sed 's/^autobahn: //')"; }

suite autobahn-server "Autobahn|Testsuite judges the server, strictly"
suite_autobahn_server() { autobahn_server server "$AUTOBAHN_CASES" --driver epoll; }

suite autobahn-uring "the same on io_uring"
suite_autobahn_uring() {
  build_wingbeat
  need_uring "$WINGBEAT"
  autobahn_server uring "$AUTOBAHN_CASES" --driver uring
}

# autobahn_server NAME CASES [SERVE_FLAG...]
autobahn_server() {
  local name=$1 cases=$2
  shift 2
  need_python
  tests/autobahn/setup.sh
  start_server "$@"
  tests/autobahn/run.sh "ws://$ADDRESS/echo" "$cases" "tests/autobahn/reports/$name" --strict --jobs 2 --per-section |
    tee "$TARGET/tests/autobahn-$name.out"
  autobahn_note "$TARGET/tests/autobahn-$name.out"
  stop_server
}

suite autobahn-client "Autobahn|Testsuite judges the engine in its client role, strictly"
suite_autobahn_client() { autobahn_client engine "$AUTOBAHN_CASES"; }

suite autobahn-client-blocking "Autobahn|Testsuite judges the blocking client, strictly (large messages with --full)"
suite_autobahn_client_blocking() {
  local cases=$AUTOBAHN_CASES
  full || cases=${cases/,9.\*/}
  autobahn_client blocking "$cases"
}

# autobahn_client engine|blocking CASES
autobahn_client() {
  need_python
  tests/autobahn/setup.sh
  cargo build --release --features cli --example autobahn_client
  AUTOBAHN_CLIENT=$1 tests/autobahn/run-client.sh "$TARGET/release/examples/autobahn_client" "$2" \
    "tests/autobahn/reports/client-$1" --strict --per-section | tee "$TARGET/tests/autobahn-client-$1.out"
  autobahn_note "$TARGET/tests/autobahn-client-$1.out"
}

# The probe is kept beside the repository, not in it: it judges more servers than this one.
ADVERSARY=${WINGBEAT_ADVERSARY:-../shared/adversary/probe.py}
suite adversary "a hostile peer: malformed, slow, huge and broken input"
suite_adversary() { adversary --driver epoll; }

suite adversary-uring "the same on io_uring"
suite_adversary_uring() {
  build_wingbeat
  need_uring "$WINGBEAT"
  adversary --driver uring
}

# adversary [SERVE_FLAG...]
adversary() {
  [ -f "$ADVERSARY" ] || skip "$ADVERSARY is not there (WINGBEAT_ADVERSARY names another place)"
  need python3 python3
  start_server "$@"
  local status=0
  python3 "$ADVERSARY" 127.0.0.1 "$PORT" /echo --pid "$SERVER" --no-pmd | tee "$TARGET/tests/adversary.out" || status=$?
  note "$(tail -n 1 "$TARGET/tests/adversary.out")"
  [ "$status" = 0 ] || fail "see the lines that begin with FAIL"
  stop_server
}

suite interop-ws "npm's ws: its client against our server, our load client against its server"
suite_interop_ws() {
  need_node
  npm ci --prefix tests/interop --no-audit --no-fund --silent
  start_server
  node tests/interop/client.mjs "ws://$ADDRESS/echo"
  stop_server
  start_listening node tests/interop/server.mjs
  load_against_other
}

suite interop-websockets "PyPI's websockets: its client against our server, our load client against its server"
suite_interop_websockets() {
  venv tests/interop/venv tests/interop/requirements.txt
  local python=tests/interop/venv/bin/python
  start_server
  $python tests/interop/client.py "ws://$ADDRESS/echo"
  stop_server
  start_listening $python tests/interop/server.py
  load_against_other
}

# Our client against the server at $ADDRESS: every message comes back, small and fragment-sized, text and binary.
load_against_other() {
  build_wingbeat
  local payload
  for payload in 20 1KiB 100KiB; do
    "$WINGBEAT" load echo "ws://$ADDRESS/" -c 4 -d 2s --warmup 200ms --payload "$payload" --json "$TARGET/tests/other.json"
    tests/program/figures.py "$TARGET/tests/other.json" 'messages_per_s > 0'
  done
  "$WINGBEAT" load echo "ws://$ADDRESS/" -c 4 -d 2s --warmup 200ms --binary -p 16 --json "$TARGET/tests/other.json"
  tests/program/figures.py "$TARGET/tests/other.json" 'messages_per_s > 0'
}
