// The page of a guest's serial console: a terminal over the proxy's websocket, with the token of this page's address.
import { Terminal } from "./terminal.js";

const status = document.getElementById("status"), screen = document.getElementById("screen");
const say = (text, state) => { status.textContent = text; status.dataset.state = state; };

const url = new URL("websocket", location.href);
url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
url.search = "?token=" + encodeURIComponent(new URLSearchParams(location.search).get("token") || "");

const ws = new WebSocket(url.href, ["binary"]);
ws.binaryType = "arraybuffer";
const encoder = new TextEncoder(), decoder = new TextDecoder();
const send = (text) => { if (ws.readyState === WebSocket.OPEN) ws.send(encoder.encode(text)); };
const terminal = new Terminal(80, 24, send);
let opened = false, due = false;

ws.addEventListener("open", () => { opened = true; say("connected", "connected"); screen.focus(); draw(); });
ws.addEventListener("message", (e) => { terminal.write(decoder.decode(e.data, { stream: true })); draw(); });
ws.addEventListener("close", () => {
  if (opened) say("The console was closed.", "closed");
  else say("The console cannot be opened: the link was used before or has expired, or the server is not running. Ask for a new console URL.", "failed");
});

// draw shows the terminal, at most once for each frame.
function draw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    const low = screen.parentElement.scrollTop + screen.parentElement.clientHeight >= screen.parentElement.scrollHeight - 40;
    const out = document.createDocumentFragment();
    terminal.past.forEach((line) => row(out, line, -1));
    terminal.lines.forEach((line, y) => row(out, line, terminal.shown && y === terminal.y ? terminal.x : -1));
    screen.replaceChildren(out);
    if (low) screen.parentElement.scrollTop = screen.parentElement.scrollHeight;
    if (terminal.title) document.title = terminal.title;
  });
}

// row adds a line: a span for each stretch of one look. cursor is its place in the line, -1 none.
function row(out, line, cursor) {
  let end = line.length;
  while (end > cursor + 1 && line[end - 1].c === " " && line[end - 1].look === "") end--;
  for (let x = 0; x < end;) {
    const look = x === cursor ? "cursor" : line[x].look;
    let text = "";
    do text += line[x++].c; while (look !== "cursor" && x < end && x !== cursor && line[x].look === look);
    if (look === "") { out.append(text); continue; }
    const span = document.createElement("span");
    span.className = look;
    span.textContent = text;
    out.append(span);
  }
  out.append("\n");
}

const arrows = { ArrowUp: "A", ArrowDown: "B", ArrowRight: "C", ArrowLeft: "D", Home: "H", End: "F" };
const keys = { Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b", Insert: "\x1b[2~", Delete: "\x1b[3~", PageUp: "\x1b[5~", PageDown: "\x1b[6~",
  F1: "\x1bOP", F2: "\x1bOQ", F3: "\x1bOR", F4: "\x1bOS", F5: "\x1b[15~", F6: "\x1b[17~", F7: "\x1b[18~", F8: "\x1b[19~", F9: "\x1b[20~", F10: "\x1b[21~" };

screen.addEventListener("keydown", (e) => {
  let text = keys[e.key];
  if (arrows[e.key]) text = (terminal.keypad ? "\x1bO" : "\x1b[") + arrows[e.key];
  else if (e.key.length === 1 && e.ctrlKey && !e.altKey && !e.metaKey) {
    const c = e.key.toUpperCase().charCodeAt(0);
    if (e.shiftKey && (e.key === "C" || e.key === "V")) return; // the browser's copy and paste
    text = c >= 64 && c < 96 ? String.fromCharCode(c & 31) : e.key === " " ? "\0" : undefined;
  } else if (e.key.length === 1 && !e.ctrlKey && !e.metaKey) text = (e.altKey ? "\x1b" : "") + e.key;
  if (text === undefined) return;
  e.preventDefault();
  send(text);
});
screen.addEventListener("paste", (e) => { e.preventDefault(); send(e.clipboardData.getData("text").replace(/\r?\n/g, "\r")); });
