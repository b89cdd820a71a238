// Phoenix channels, version 2.0.0, as far as this page needs them: every message is
// [join_ref, ref, topic, event, payload].
const PUSH_TIMEOUT_MS = 10_000;
const HEARTBEAT_MS = 20_000;
const RECONNECT_MS = [100, 500, 1000, 2000, 5000, 10_000];
const REJOIN_MS = [1000, 2000, 5000, 10_000];

const step = (steps, tries) => steps[Math.min(tries, steps.length - 1)];

/** One WebSocket that comes back by itself, and the channels on it. */
class Wire {
  /** Told about every change: `(state, retryAt)`, state one of connecting, open, waiting. */
  onState = () => {};
  state = "waiting";
  #address;
  #socket = null;
  #channels = new Map();
  #replies = new Map();
  #ref = 0;
  #tries = 0;
  #timer = 0;

  constructor(address) {
    this.#address = address;
    // Whoever comes back to the page, or to the network, does not want to wait.
    addEventListener("online", () => this.retry());
    document.addEventListener("visibilitychange", () => document.hidden || this.retry());
    addEventListener("pageshow", () => this.retry());
  }

  /** Connects at once, unless it is connected or about to be. */
  retry() {
    if (this.state === "waiting") this.#connect();
  }

  /** A channel that is joined now and after every reconnect. `params()` is asked at each join. */
  channel(topic, params, handlers) {
    const channel = new Channel(this, topic, params, handlers);
    this.#channels.set(topic, channel);
    channel.join();
    return channel;
  }

  leave(channel) {
    this.#channels.delete(channel.topic);
    channel.forget();
    this.push(channel.joinRef, channel.topic, "phx_leave", {}).catch(() => {});
  }

  /** Resolves with the response; rejects with an Error whose `reason` says why not. */
  push(joinRef, topic, event, payload, ref = this.makeRef()) {
    return new Promise((resolve, reject) => {
      if (this.state !== "open") return reject(new Refused("offline"));
      const timer = setTimeout(() => this.#settle(ref, "error", { reason: "timeout" }), PUSH_TIMEOUT_MS);
      this.#replies.set(ref, { resolve, reject, timer });
      this.#socket.send(JSON.stringify([joinRef, ref, topic, event, payload]));
    });
  }

  makeRef() {
    return `${++this.#ref}`;
  }

  #connect() {
    clearTimeout(this.#timer);
    const socket = new WebSocket(this.#address());
    this.#socket = socket;
    this.#change("connecting");
    socket.onopen = () => {
      this.#tries = 0;
      this.#change("open");
      this.#timer = setTimeout(() => this.#beat(), HEARTBEAT_MS);
      for (const channel of this.#channels.values()) channel.join();
    };
    socket.onmessage = ({ data }) => this.#receive(...JSON.parse(data));
    socket.onclose = () => this.#lost(socket);
  }

  #receive(joinRef, ref, topic, event, payload) {
    if (event === "phx_reply") return this.#settle(ref, payload.status, payload.response);
    const channel = this.#channels.get(topic);
    if (channel && (joinRef === null || joinRef === channel.joinRef)) channel.receive(event, payload);
  }

  #settle(ref, status, response) {
    const waiting = this.#replies.get(ref);
    if (!waiting) return;
    this.#replies.delete(ref);
    clearTimeout(waiting.timer);
    if (status === "ok") waiting.resolve(response);
    else waiting.reject(new Refused(response?.reason ?? status));
  }

  // A connection can be dead without a word: a heartbeat without an answer says so.
  #beat() {
    const socket = this.#socket;
    this.push(null, "phoenix", "heartbeat", {}).then(
      () => { if (this.#socket === socket) this.#timer = setTimeout(() => this.#beat(), HEARTBEAT_MS); },
      () => { socket.close(); this.#lost(socket); },
    );
  }

  #lost(socket) {
    if (this.#socket !== socket) return;
    this.#socket = null;
    clearTimeout(this.#timer);
    // Some chance in it, so that a server that comes back is not met by all at once.
    const delay = step(RECONNECT_MS, this.#tries++) * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => this.retry(), delay);
    this.#change("waiting", Date.now() + delay);
    for (const ref of [...this.#replies.keys()]) this.#settle(ref, "error", { reason: "offline" });
    for (const channel of this.#channels.values()) channel.lost();
  }

  #change(state, retryAt = 0) {
    this.state = state;
    this.onState(state, retryAt);
  }
}

/** One topic. `handlers`: joined(response), refused(reason), lost(), and `events`, a function per event. */
class Channel {
  joinRef = null;
  #wire;
  #params;
  #handlers;
  #tries = 0;
  #timer = 0;

  constructor(wire, topic, params, handlers) {
    this.topic = topic;
    this.#wire = wire;
    this.#params = params;
    this.#handlers = handlers;
  }

  join() {
    clearTimeout(this.#timer);
    if (this.#wire.state !== "open") return;
    const ref = this.#wire.makeRef();
    this.joinRef = ref;
    this.#wire.push(ref, this.topic, "phx_join", this.#params(), ref).then(
      (response) => { this.#tries = 0; this.#handlers.joined(response); },
      ({ reason }) => { if (reason !== "offline" && this.joinRef === ref) this.#again(reason); },
    );
  }

  push(event, payload) {
    return this.#wire.push(this.joinRef, this.topic, event, payload);
  }

  receive(event, payload) {
    if (event === "phx_error" || event === "phx_close") this.#again(event);
    else if (Object.hasOwn(this.#handlers.events, event)) this.#handlers.events[event](payload);
  }

  lost() {
    clearTimeout(this.#timer);
    this.#handlers.lost();
  }

  forget() {
    clearTimeout(this.#timer);
  }

  #again(reason) {
    this.#handlers.refused(reason);
    this.#timer = setTimeout(() => this.join(), step(REJOIN_MS, this.#tries++));
  }
}

class Refused extends Error {
  constructor(reason) {
    super(`refused: ${reason}`);
    this.reason = reason;
  }
}
