// The page of a guest's SPICE screen: connects the client of spice-html5 to the proxy's websocket with the token of this page's address. SPICE has a
// connection for each of its channels, so the token is used several times.
import { load } from "./library.js";

const status = document.getElementById("status"), screen = document.getElementById("spice-screen"), cad = document.getElementById("cad");
const say = (text, state) => { status.textContent = text; status.dataset.state = state; };

async function start() {
  let client;
  try {
    client = await load("./spice/main.js");
  } catch {
    say("The spice-html5 library is not installed on the console proxy (Debian: package spice-html5).", "failed");
    return;
  }
  const url = new URL("websocket", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = "?token=" + encodeURIComponent(new URLSearchParams(location.search).get("token") || "");
  let connected = false;
  const main = new client.SpiceMainConn({
    uri: url.href, screen_id: "spice-screen", message_id: "message-div", password: "",
    onerror: () => {
      cad.disabled = true;
      if (connected) say("The console was closed.", "closed");
      else say("The console cannot be opened: the link has expired, or the server is not running. Ask for a new console URL.", "failed");
    },
    onsuccess: () => { connected = true; say("connected", "connected"); cad.disabled = false; },
  });
  // The picture is there when the client has put its canvas onto the page.
  new MutationObserver(() => { if (!connected && screen.querySelector("canvas")) { connected = true; say("connected", "connected"); cad.disabled = false; } }).observe(screen, { childList: true, subtree: true });
  cad.addEventListener("click", () => client.sendCtrlAltDel(main));
}

start();
