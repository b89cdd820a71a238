# The program `wingbeat`, used as its users do.
# shellcheck shell=bash

suite serve-cli "serve: flags, exit codes, endpoints, topics, Unix sockets, drain"
suite_serve_cli() {
  need python3 python3
  build_wingbeat
  WINGBEAT="$WINGBEAT" python3 tests/program/serve.py -v
}

suite memory "bytes of server memory per idle connection, from 4,000 to 16,000 of them: in (0, 128]"
suite_memory() { memory epoll; }

suite memory-uring "the same on io_uring"
suite_memory_uring() {
  build_wingbeat
  need_uring "$WINGBEAT"
  memory uring
}

# memory DRIVER
memory() {
  need python3 python3
  build_wingbeat
  python3 tests/program/memory.py "$WINGBEAT" --driver "$1" | tee "$TARGET/tests/memory-$1.out"
  note "$(tail -n 1 "$TARGET/tests/memory-$1.out")"
}

suite channels-memory "bytes of server memory per connection with one joined channel, from 4,000 to 16,000: in (0, 1024]"
suite_channels_memory() {
  need python3 python3
  build_wingbeat
  cargo build --release --features cli --example fixture
  python3 tests/program/channels_memory.py "$WINGBEAT" "$TARGET/release/examples/fixture" --port 0 |
    tee "$TARGET/tests/channels-memory.out"
  note "$(tail -n 1 "$TARGET/tests/channels-memory.out")"
}

suite load-stop "load: a server that stands still for 1 s shows in p99 (no coordinated omission)"
suite_load_stop() {
  need python3 python3
  start_server
  local json=$TARGET/tests/load-stop.json
  rm -f "$json"
  "$WINGBEAT" load echo "ws://$ADDRESS/echo" -c 10 -r 1000 -d 10s --warmup 1s --json "$json" &
  local client=$!
  sleep 5
  kill -STOP "$SERVER"
  sleep 1
  kill -CONT "$SERVER"
  wait "$client"
  tests/program/figures.py "$json" 'latency_us.p99 > 500000' 'latency_us.p50 < 500000'
  stop_server
}

suite many "serve and load: 30,000 connections over several descriptor tables, a message to all, all closed with 1000"
suite_many() {
  need python3 python3
  build_wingbeat
  local driver drivers=(epoll) said
  # The demanded driver starts where io_uring works, and says why where it does not. (It fails either way.)
  said=$("$WINGBEAT" load idle ws://127.0.0.1:9/ --driver uring -c 1 2>&1) || true
  [[ $said != *connect_refused* ]] || drivers+=(uring)
  for driver in "${drivers[@]}"; do
    (ulimit -n 12000 && benches/million.py --connections 30000 --hold 20s --driver "$driver" --program "$WINGBEAT")
  done
  note "30,000 connections: ${drivers[*]}"
}
