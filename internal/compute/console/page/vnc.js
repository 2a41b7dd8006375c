// The page of a guest's screen: connects the RFB client of noVNC to the proxy's websocket with the token of this page's address.
import { load } from "./library.js";

const status = document.getElementById("status");
const say = (text, state) => { status.textContent = text; status.dataset.state = state; };

// The token stands in the query, or inside "path" as older links have it.
function token() {
  const q = new URLSearchParams(location.search);
  if (q.get("token")) return q.get("token");
  const path = q.get("path") || "";
  return new URLSearchParams(path.slice(path.indexOf("?") + 1)).get("token") || "";
}

async function start() {
  let RFB;
  try {
    RFB = (await load("./novnc/core/rfb.js")).default;
  } catch {
    say("The noVNC library is not installed on the console proxy (Debian: package novnc).", "failed");
    return;
  }
  const url = new URL("websocket", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = "?token=" + encodeURIComponent(token());
  const rfb = new RFB(document.getElementById("screen"), url.href, { wsProtocols: ["binary"] });
  rfb.scaleViewport = true;
  rfb.addEventListener("desktopname", (e) => { document.getElementById("name").textContent = e.detail.name; document.title = e.detail.name; });
  rfb.addEventListener("connect", () => { say("connected", "connected"); document.getElementById("cad").disabled = false; rfb.focus(); });
  rfb.addEventListener("disconnect", (e) => {
    document.getElementById("cad").disabled = true;
    if (e.detail.clean) say("The console was closed.", "closed");
    else say("The console cannot be opened: the link was used before or has expired, or the server is not running. Ask for a new console URL.", "failed");
  });
  document.getElementById("cad").addEventListener("click", () => rfb.sendCtrlAltDel());
}

start();
