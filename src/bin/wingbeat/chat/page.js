// The page. Whatever comes from the server ends up in text nodes, never in markup.
const KEPT_MESSAGES = 200;
const TYPING_SHOWN_MS = 5000;
const TYPING_SENT_EVERY_MS = 2500;
const GONE_AFTER_MS = 2000;
const GROUPED_MS = 5 * 60_000;
const PROBLEMS = {
  offline: "Not connected. Your message is still here: send it again in a moment.",
  timeout: "The server does not answer. Your message is still here.",
  gone: "This person is not here any more.",
  text: "A message has 1 to 2,000 characters.",
  name: "A name has 1 to 32 characters.",
  room: "A room's name has 1 to 40 characters.",
};

/** A name as the server takes it. */
const short = (text, length) => [...text.replace(/\s+/g, " ").replace(/\p{Cc}/gu, "").trim()].slice(0, length).join("").trim();

const $ = (id) => document.getElementById(id);

/** An element: properties, then what is in it. */
function el(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** JSON in a storage that may be forbidden, full, or written by somebody else. */
const stored = {
  read(storage, key) {
    try { return JSON.parse(window[storage].getItem(`wingbeat.${key}`)); } catch { return null; }
  },
  write(storage, key, value) {
    try { window[storage].setItem(`wingbeat.${key}`, JSON.stringify(value)); } catch { /* then it is not kept */ }
  },
};

const visit = { token: randomToken(), id: null, rooms: [], messages: {}, ...stored.read("sessionStorage", "visit") };
const me = { id: visit.id ?? null, name: stored.read("localStorage", "name") ?? "" };
const rooms = new Map();
let current = null;
let recipient = null;
let retryAt = 0;

const wire = new Wire(() => {
  const url = new URL("socket/websocket", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.search = new URLSearchParams({ token: visit.token, vsn: "2.0.0" });
  url.hash = "";
  return url;
});

/** Whoever has it is the same person after a reconnect, and nobody else can be. */
function randomToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(18));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

function remember() {
  visit.rooms = [...rooms.keys()];
  visit.messages = Object.fromEntries([...rooms].map(([name, { log }]) => [name, log]));
  stored.write("sessionStorage", "visit", visit);
}

/** One room: its channel, its people, what was said. */
class Room {
  unread = 0;
  isJoined = false;
  draft = "";
  people = new Map(); // id -> metas, each {name, phx_ref}
  before = new Set(); // who was here when the connection broke: their coming back is no news
  leavers = new Map(); // id -> timer: a reload, or a restart of the server, is no news either
  typing = new Map(); // id -> {name, timer}

  constructor(name) {
    this.name = name;
    this.log = visit.messages[name] ?? [];
    this.channel = wire.channel(`chat:${name}`, () => ({ name: me.name }), {
      joined: ({ id }) => { visit.id = me.id = id; this.isJoined = true; if (this === current) problem(null); remember(); showAll(); },
      refused: (reason) => { this.isJoined = false; if (this === current) problem(reason); showAll(); },
      lost: () => this.lose(),
      events: {
        msg: (message) => this.add({ kind: "msg", ...message }),
        private: (message) => this.add({ kind: "private", ...message }),
        typing: ({ from, name }) => this.types(from, name),
        presence_state: (state) => this.enter(state),
        presence_diff: (diff) => this.change(diff),
      },
    });
  }

  lose() {
    this.before = new Set([...this.people.keys(), ...this.leavers.keys()]);
    for (const id of [...this.leavers.keys()]) this.returns(id);
    this.typing.clear();
    this.isJoined = false;
  }

  nameOf(id) {
    return this.people.get(id)?.at(-1)?.name;
  }

  add(entry) {
    this.log.push(entry);
    this.log.splice(0, this.log.length - KEPT_MESSAGES);
    this.stopsTyping(entry.from);
    const isSeen = this === current && !document.hidden;
    if (!isSeen && entry.kind !== "notice" && entry.from !== me.id) this.unread++;
    remember();
    if (this === current) append(entry);
    showRooms();
  }

  enter(state) {
    this.people = new Map(Object.entries(state).map(([id, { metas }]) => [id, metas]));
    showPeople();
  }

  change({ joins, leaves }) {
    const old = new Set(this.people.keys());
    for (const [id, { metas }] of Object.entries(joins)) {
      const refs = new Set(metas.map(({ phx_ref }) => phx_ref));
      const others = (this.people.get(id) ?? []).filter(({ phx_ref }) => !refs.has(phx_ref));
      this.people.set(id, [...others, ...metas]);
    }
    for (const [id, { metas }] of Object.entries(leaves)) {
      const refs = new Set(metas.map(({ phx_ref }) => phx_ref));
      const left = (this.people.get(id) ?? []).filter(({ phx_ref }) => !refs.has(phx_ref));
      if (left.length > 0) this.people.set(id, left);
      else if (this.people.delete(id) && id !== me.id) this.leaves(id, metas.at(-1).name);
    }
    for (const id of this.people.keys()) {
      if (old.has(id) || id === me.id || this.returns(id) || this.before.delete(id)) continue;
      this.notice(`${this.nameOf(id)} came in`);
    }
    showPeople();
  }

  /** Told only if they do not come back at once. */
  leaves(id, name) {
    this.stopsTyping(id);
    const tell = () => { this.leavers.delete(id); this.notice(`${name} left`); };
    this.leavers.set(id, setTimeout(tell, GONE_AFTER_MS));
  }

  /** Whether somebody is back who was about to be told gone. */
  returns(id) {
    clearTimeout(this.leavers.get(id));
    return this.leavers.delete(id);
  }

  notice(text) {
    this.add({ kind: "notice", text, at: Date.now() });
  }

  types(id, name) {
    clearTimeout(this.typing.get(id)?.timer);
    this.typing.set(id, { name, timer: setTimeout(() => this.stopsTyping(id), TYPING_SHOWN_MS) });
    showTyping();
  }

  stopsTyping(id) {
    clearTimeout(this.typing.get(id)?.timer);
    if (this.typing.delete(id)) showTyping();
  }
}

// ---- which room

/** As it is in links: the same for everybody who means the same. */
const roomName = (text) => short(text.toLowerCase(), 40).replace(/\s/g, "-");

function roomOfHash() {
  try { return roomName(decodeURIComponent(location.hash.slice(1))) || "lobby"; } catch { return "lobby"; }
}

function open(name) {
  if (current) current.draft = $("text").value;
  if (!rooms.has(name)) rooms.set(name, new Room(name));
  current = rooms.get(name);
  current.unread = 0;
  writeTo(null);
  problem(null);
  $("text").value = current.draft;
  fitText();
  remember();
  showAll();
  showLog();
  closeDrawers();
}

function leave(room) {
  room.lose();
  wire.leave(room.channel);
  rooms.delete(room.name);
  if (room === current) location.hash = [...rooms.keys()].at(-1) ?? "lobby";
  remember();
  showRooms();
}

// ---- what is shown

function showAll() {
  showRooms();
  showPeople();
  showTyping();
  showConnection();
}

/** An item per key, in the order of the keys. An item that is there stays, and with it the focus and a click half done. */
function fill(list, keys, make) {
  const old = new Map([...list.children].map((item) => [item.dataset.key, item]));
  const kept = new Set(keys);
  for (const [key, item] of old) if (!kept.has(key)) item.remove();
  keys.forEach((key, at) => {
    const item = old.get(key) ?? make(at);
    item.dataset.key = key;
    if (list.children[at] !== item) list.insertBefore(item, list.children[at] ?? null);
  });
}

function showRooms() {
  const all = [...rooms.values()];
  fill($("room-list"), [...rooms.keys()], (at) => roomItem(all[at]));
  all.forEach((room, at) => {
    const [link, leaving] = $("room-list").children[at].children;
    link.ariaCurrent = room === current ? "page" : null;
    link.classList.toggle("unread", room.unread > 0);
    link.lastElementChild.hidden = room.unread === 0;
    link.lastElementChild.firstChild.data = room.unread;
    leaving.hidden = all.length === 1;
  });
  const elsewhere = all.reduce((sum, { unread }) => sum + unread, 0);
  $("elsewhere").hidden = elsewhere === 0;
  $("title").textContent = `# ${current.name}`;
  document.title = `${elsewhere > 0 ? `(${elsewhere}) ` : ""}${current.name} · wingbeat`;
  $("me").replaceChildren(avatar(me.id ?? "", me.name), el("span", { className: "name" }, me.name || "You"), hidden("change your name"));
}

function roomItem(room) {
  const badge = el("span", { className: "badge" }, "0", hidden("unread"));
  const link = el("a", { href: `#${encodeURIComponent(room.name)}` }, el("span", { className: "name" }, room.name), badge);
  const ariaLabel = `Leave ${room.name}`;
  return el("li", {}, link, el("button", { type: "button", className: "icon", ariaLabel, onclick: () => leave(room) }, "✕"));
}

function showPeople() {
  const { people } = current;
  const named = [...people].map(([id, metas]) => ({ id, name: metas.at(-1).name }));
  named.sort((a, b) => (b.id === me.id) - (a.id === me.id) || a.name.localeCompare(b.name));
  const keys = named.map(({ id, name }) => JSON.stringify([id, name, id === me.id]));
  fill($("people-list"), keys, (at) => personItem(named[at]));
  $("people-list").classList.toggle("stale", !current.isJoined);
  $("people-count").textContent = people.size || "";
  $("alone").hidden = !current.isJoined || people.size > 1;
}

function personItem({ id, name }) {
  const isMe = id === me.id;
  const title = isMe ? "This is you" : `Write to ${name} in private`;
  const person = el("button", { type: "button", className: "person", title, disabled: isMe }, avatar(id, name),
    el("span", { className: "name" }, name), isMe ? el("small", {}, "you") : hidden("write in private"));
  person.onclick = () => { writeTo({ id, name }); closeDrawers(); $("text").focus(); };
  return el("li", {}, person);
}

function showTyping() {
  const names = [...current.typing.values()].map(({ name }) => name);
  const several = names.length > 2 ? "Several people are typing…" : `${names.join(" and ")} are typing…`;
  $("typing").textContent = names.length === 0 ? "" : names.length === 1 ? `${names[0]} is typing…` : several;
}

function showConnection() {
  const isReady = wire.state === "open" && current.isJoined;
  const state = isReady ? "open" : wire.state === "waiting" ? "waiting" : "connecting";
  $("connection").dataset.state = state;
  $("connection").textContent = { open: "Connected", waiting: "Offline", connecting: "Connecting…" }[state];
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  $("banner").hidden = state !== "waiting";
  const when = seconds > 1 ? ` in ${seconds} seconds` : "…";
  $("banner").firstElementChild.textContent = `The connection is lost. Trying again${when}`;
  $("send").disabled = !isReady;
}

function showLog() {
  $("log").replaceChildren();
  $("newest").hidden = true;
  current.log.forEach((entry, at) => $("log").append(messageOf(entry, current.log[at - 1])));
  showEmpty();
  toNewest();
}

function showEmpty() {
  $("empty").hidden = current.log.length > 0;
  $("empty").replaceChildren(el("b", {}, `This is #${current.name}`), el("span", {}, "Nothing was said since you came. Say hello!"));
}

/** A new entry: followed, unless somebody reads further up. */
function append(entry) {
  const isFollowing = isAtNewest() || entry.from === me.id;
  $("log").append(messageOf(entry, current.log.at(-2)));
  while ($("log").childElementCount > KEPT_MESSAGES) $("log").firstElementChild.remove();
  showEmpty();
  if (isFollowing) toNewest();
  else $("newest").hidden = false;
}

function messageOf(entry, previous) {
  if (entry.kind === "notice") return el("li", { className: "notice" }, entry.text);
  const isOwn = entry.from === me.id;
  const isMore = previous?.from === entry.from && previous.kind === entry.kind && previous.to === entry.to
    && entry.at - previous.at < GROUPED_MS;
  const by = el("div", { className: "by" }, el("b", {}, isOwn ? "You" : entry.name));
  if (entry.kind === "private") by.append(el("i", {}, isOwn ? `in private to ${entry.to_name}` : "to you, in private"));
  by.append(timeOf(entry.at));
  const text = el("div", { className: "text", title: timeOf(entry.at).textContent, dir: "auto" }, entry.text);
  const classes = ["message", entry.kind, isOwn && "own", isMore && "more"].filter(Boolean).join(" ");
  return el("li", { className: classes }, avatar(entry.from, entry.name), by, text);
}

function timeOf(at) {
  const time = new Date(at);
  return el("time", { dateTime: time.toISOString() }, time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
}

/** The first letters of a name, in a colour that goes with the id. */
function avatar(id, name) {
  const letters = name.split(/\s+/).filter(Boolean).slice(0, 2).map((word) => [...word][0]).join("").toUpperCase();
  const circle = el("span", { className: "avatar", ariaHidden: "true" }, letters || "?");
  let hue = 0;
  for (const letter of id) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  circle.style.setProperty("--hue", hue);
  return circle;
}

const hidden = (text) => el("span", { className: "visually-hidden" }, text);
const isAtNewest = () => $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight < 60;
const toNewest = () => { $("scroll").scrollTop = $("scroll").scrollHeight; };

function problem(reason) {
  $("problem").textContent = reason ? PROBLEMS[reason] ?? "That did not work. Trying again…" : "";
}

// ---- writing

/** Private to one person, or (null) to the room. */
function writeTo(person) {
  recipient = person;
  $("to").hidden = !person;
  $("to").firstElementChild.textContent = person ? `Only ${person.name} will see this` : "";
  $("composer").classList.toggle("is-private", Boolean(person));
  $("text").placeholder = person ? "Private message" : `Message #${current.name}`;
}

async function send() {
  const [room, to, text] = [current, recipient, $("text").value.trim()];
  if (!text || $("send").disabled) return;
  $("text").value = "";
  fitText();
  problem(null);
  typed = 0;
  try {
    await room.channel.push(to ? "private" : "msg", to ? { to: to.id, text } : { text });
  } catch ({ reason }) {
    // Back into the field, unless something else is there by now.
    if (room !== current) room.draft ||= text;
    else if (!$("text").value) $("text").value = text;
    fitText();
    problem(reason);
  }
}

let typed = 0;
function tellTyping() {
  if (recipient || !$("text").value.trim() || Date.now() - typed < TYPING_SENT_EVERY_MS) return;
  typed = Date.now();
  current.channel.push("typing", {}).catch(() => {});
}

function fitText() {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

// ---- the person

function askName() {
  $("name").value = me.name;
  $("hello").showModal();
  $("name").select();
}

function rename(name) {
  me.name = name;
  stored.write("localStorage", "name", me.name);
  if (rooms.size === 0) return start();
  for (const { channel } of rooms.values()) channel.push("name", { name: me.name }).catch(() => {});
  showRooms();
}

// ---- drawers and themes

/** Drawers are columns where there is room for them. */
const narrow = { rooms: matchMedia("(max-width: 720px)"), people: matchMedia("(max-width: 1020px)") };

function placeDrawers() {
  for (const [id, query] of Object.entries(narrow)) $(id).classList.toggle("over", query.matches);
  closeDrawers();
}

function openDrawer(id) {
  $(id).classList.add("open");
  $("shade").hidden = false;
  $(`show-${id}`).setAttribute("aria-expanded", "true");
  $(id).querySelector("[data-close]").focus();
}

function closeDrawers() {
  for (const id of Object.keys(narrow)) {
    if ($(id).classList.contains("open") && $(id).contains(document.activeElement)) $(`show-${id}`).focus();
    $(id).classList.remove("open");
    $(`show-${id}`).setAttribute("aria-expanded", "false");
  }
  $("shade").hidden = true;
}

const THEMES = { auto: ["light", "◐"], light: ["dark", "☀"], dark: ["auto", "☾"] };

function showTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const [next, sign] = THEMES[theme];
  const label = `Colours: ${theme === "auto" ? "as the system" : theme}. Change to ${next === "auto" ? "the system's" : next}`;
  $("theme").replaceChildren(el("span", { ariaHidden: "true" }, sign), hidden(label));
  $("theme").title = label;
  $("theme").onclick = () => { stored.write("localStorage", "theme", next); showTheme(next); };
}

// ---- everything together

function start() {
  for (const name of visit.rooms) rooms.set(name, new Room(name));
  open(roomOfHash());
  wire.retry();
}

wire.onState = (_, at) => { retryAt = at; if (current) showAll(); };
setInterval(() => { if (current && wire.state === "waiting") showConnection(); }, 500);
document.querySelector(".skip").onclick = (event) => { event.preventDefault(); $("text").focus(); };
addEventListener("hashchange", () => open(roomOfHash()));
addEventListener("keydown", ({ key }) => { if (key === "Escape") { closeDrawers(); if (recipient) writeTo(null); } });
document.addEventListener("visibilitychange", () => { if (!document.hidden && current) { current.unread = 0; showRooms(); } });
for (const query of Object.values(narrow)) query.addEventListener("change", placeDrawers);
for (const id of Object.keys(narrow)) $(`show-${id}`).onclick = () => openDrawer(id);
for (const close of document.querySelectorAll("[data-close]")) close.addEventListener("click", closeDrawers);
$("scroll").addEventListener("scroll", () => { if (isAtNewest()) $("newest").hidden = true; }, { passive: true });
$("newest").onclick = toNewest;
$("retry").onclick = () => wire.retry();
$("to").querySelector("button").onclick = () => { writeTo(null); $("text").focus(); };
$("me").onclick = askName;
// Without a name there is nothing to go back to.
$("hello").addEventListener("close", () => { if (!me.name) askName(); });
$("hello").querySelector("form").onsubmit = (event) => {
  const name = short($("name").value, 32);
  if (name) return rename(name);
  event.preventDefault();
};
$("new-room").onsubmit = (event) => {
  event.preventDefault();
  const name = roomName($("room-name").value);
  $("room-name").value = "";
  if (name) location.hash = encodeURIComponent(name);
};
$("composer").onsubmit = (event) => { event.preventDefault(); send(); };
$("text").addEventListener("input", () => { fitText(); problem(null); tellTyping(); });
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
$("copy").onclick = async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    $("copy").title = "Copied";
  } catch {
    prompt("A link to this room:", location.href);
  }
};

showTheme(Object.hasOwn(THEMES, stored.read("localStorage", "theme") ?? "") ? stored.read("localStorage", "theme") : "auto");
placeDrawers();
if (me.name) start();
else askName();
