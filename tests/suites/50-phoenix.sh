# What those say who know Phoenix: its official client, raw sockets row by row, and a browser.
# shellcheck shell=bash

FIXTURE=$TARGET/debug/examples/fixture

# node_tests DIR FILE...: installs what DIR pins and runs its tests; the note says how many passed.
node_tests() {
  local dir=$1 out
  shift
  need_node
  npm ci --prefix "$dir" --no-audit --no-fund --silent
  out=$TARGET/tests/$(basename "$dir")-$(basename "$1" .mjs).out
  # The timeout is that of a whole file: a guard against hanging, not a judgement of speed. What clients leave behind (a
  # poll that was given up) does not keep the process.
  (cd "$dir" && node --test --test-force-exit --test-timeout=900000 --test-reporter=spec "$@") 2>&1 | tee "$out"
  note "$(sed -n 's/^ℹ \(pass\|fail\) \([0-9]*\)$/\2 \1ed/p' "$out" | paste -sd, | sed 's/,/, /')"
}

build_fixture() {
  cargo build --features "$FEATURES" --example fixture
  FIXTURE=$(realpath "$FIXTURE")
  export FIXTURE
}

suite phoenix-client "npm's phoenix 1.8.16 and 1.8.12 against the fixture: WebSocket, long-poll, restarts"
suite_phoenix_client() {
  build_fixture
  node_tests tests/phoenix client.mjs
}

suite phoenix-table "the Phoenix wire row by row: handshakes, V1 and V2, routing, close codes, long-poll"
suite_phoenix_table() {
  build_fixture
  node_tests tests/phoenix table.mjs longpoll.mjs
}

suite browser "headless Chromium: the chat page (screenshots in target/tests/screenshots), and npm's phoenix on the fixture"
suite_browser() {
  command -v chromium >/dev/null || (apt_install chromium) || skip "there is no chromium, and it cannot be installed"
  build_wingbeat
  build_fixture
  SCREENSHOTS=$TARGET/tests/screenshots
  mkdir -p "$SCREENSHOTS"
  SCREENSHOTS=$(realpath "$SCREENSHOTS") WINGBEAT=$(realpath "$WINGBEAT") CHROMIUM=$(command -v chromium)
  export SCREENSHOTS WINGBEAT CHROMIUM
  node_tests tests/browser chat.mjs phoenix.mjs
}
