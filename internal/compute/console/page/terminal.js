// A terminal as serial lines expect one: what VT100 and its successors do with text, as far as login prompts, shells, pagers and editors use it
// (ECMA-48; https://vt100.net/docs/vt100-ug/). It knows nothing of pages: it is fed text, keeps a grid of cells, and answers through reply.
export class Terminal {
  constructor(columns, rows, reply) {
    Object.assign(this, { columns, rows, reply, past: [], title: "" });
    this.reset();
  }

  reset() {
    Object.assign(this, { x: 0, y: 0, look: "", wrap: true, pending: false, shown: true, keypad: false, top: 0, bottom: this.rows - 1, saved: null, other: null, state: "text", params: "" });
    this.lines = Array.from({ length: this.rows }, () => this.blank());
  }

  blank() { return Array.from({ length: this.columns }, () => ({ c: " ", look: "" })); }

  write(text) { for (const c of text) this[this.state](c); }

  // The states of the parser: each takes one character.
  text(c) {
    const does = { "\r": () => this.go(0, this.y), "\n": () => this.feed(), "\v": () => this.feed(), "\f": () => this.feed(), "\b": () => this.go(this.x - 1, this.y),
      "\t": () => this.go(Math.min(this.columns - 1, (this.x >> 3) + 1 << 3), this.y), "\x1b": () => { this.state = "escape"; } };
    if (does[c]) does[c]();
    else if (c >= " " && c !== "\x7f") this.put(c);
  }

  escape(c) {
    this.state = "text";
    switch (c) {
      case "[": this.state = "control"; this.params = ""; break;
      case "]": case "P": case "^": case "_": this.state = "string"; this.params = ""; break;
      case "(": case ")": case "*": case "+": case "#": case " ": this.state = "skip"; break;
      case "7": this.saved = { x: this.x, y: this.y, look: this.look }; break;
      case "8": this.restore(); break;
      case "D": this.feed(); break;
      case "E": this.feed(); this.x = 0; break;
      case "M": this.y === this.top ? this.scroll(this.top, -1) : this.go(this.x, this.y - 1); break;
      case "c": this.reset(); break;
    }
  }

  skip() { this.state = "text"; }

  string(c) { // ends with BEL or ESC \
    if (c === "\x07" || c === "\\" && this.params.endsWith("\x1b")) {
      this.state = "text";
      const m = /^[02];([^\x1b]*)/.exec(this.params);
      if (m) this.title = m[1];
    } else if (this.params.length < 4096) this.params += c;
  }

  control(c) {
    if (c < "@" && c >= " ") { if (this.params.length < 64) this.params += c; return; }
    if (c < " ") { this.text(c); return; }
    this.state = "text";
    const mark = /^[?>=]/.test(this.params) ? this.params[0] : "";
    const p = this.params.slice(mark.length).split(";").map((n) => parseInt(n, 10) || 0);
    const n = Math.max(1, p[0]);
    const line = this.lines[this.y];
    const does = {
      A: () => this.go(this.x, Math.max(this.y - n, this.y >= this.top ? this.top : 0)), B: () => this.go(this.x, Math.min(this.y + n, this.y <= this.bottom ? this.bottom : this.rows)),
      C: () => this.go(this.x + n, this.y), D: () => this.go(this.x - n, this.y), E: () => this.go(0, this.y + n), F: () => this.go(0, this.y - n),
      G: () => this.go(n - 1, this.y), d: () => this.go(this.x, n - 1), H: () => this.go(Math.max(1, p[1] || 1) - 1, n - 1), f: () => this.go(Math.max(1, p[1] || 1) - 1, n - 1),
      J: () => this.eraseScreen(p[0]), K: () => this.erase(this.y, p[0] === 0 ? this.x : 0, p[0] === 1 ? this.x + 1 : this.columns),
      X: () => this.erase(this.y, this.x, this.x + n),
      P: () => { line.splice(this.x, n); while (line.length < this.columns) line.push({ c: " ", look: "" }); },
      "@": () => { for (let i = 0; i < n && i < this.columns; i++) line.splice(this.x, 0, { c: " ", look: "" }); line.length = this.columns; },
      L: () => { if (this.y >= this.top && this.y <= this.bottom) this.scroll(this.y, -n); }, M: () => { if (this.y >= this.top && this.y <= this.bottom) this.scroll(this.y, n); },
      S: () => this.scroll(this.top, n), T: () => this.scroll(this.top, -n),
      m: () => this.style(p), r: () => this.region(p), n: () => { if (p[0] === 6) this.reply(`\x1b[${this.y + 1};${this.x + 1}R`); if (p[0] === 5) this.reply("\x1b[0n"); },
      c: () => { if (p[0] === 0 && mark === "") this.reply("\x1b[?1;2c"); },
      s: () => { this.saved = { x: this.x, y: this.y, look: this.look }; }, u: () => this.restore(),
      h: () => { if (mark === "?") p.forEach((m) => this.mode(m, true)); }, l: () => { if (mark === "?") p.forEach((m) => this.mode(m, false)); },
    };
    if (does[c]) does[c]();
  }

  mode(m, on) {
    if (m === 1) this.keypad = on;
    else if (m === 7) this.wrap = on;
    else if (m === 25) this.shown = on;
    else if ((m === 47 || m === 1047 || m === 1049) && on !== (this.other !== null)) {
      if (on) {
        this.other = { lines: this.lines, x: this.x, y: this.y };
        this.lines = Array.from({ length: this.rows }, () => this.blank());
      } else {
        const was = this.other;
        this.other = null;
        this.lines = was.lines;
        this.go(was.x, was.y);
      }
    }
  }

  go(x, y) {
    this.x = Math.max(0, Math.min(this.columns - 1, x));
    this.y = Math.max(0, Math.min(this.rows - 1, y));
    this.pending = false;
  }

  restore() { if (this.saved) { this.look = this.saved.look; this.go(this.saved.x, this.saved.y); } else this.go(0, 0); }

  region(p) {
    const top = Math.max(1, p[0]) - 1, bottom = (p[1] || this.rows) - 1;
    if (top < bottom && bottom < this.rows) { this.top = top; this.bottom = bottom; this.go(0, 0); }
  }

  put(c) {
    if (this.pending) { this.x = 0; this.feed(); }
    this.lines[this.y][this.x] = { c, look: this.look };
    if (this.x < this.columns - 1) this.x++;
    else this.pending = this.wrap; // the next character begins the next line, if one comes
  }

  feed() {
    this.pending = false;
    if (this.y === this.bottom) this.scroll(this.top, 1);
    else if (this.y < this.rows - 1) this.y++;
  }

  // scroll moves the lines from a line to the end of the region up by n, or down when n is negative.
  scroll(from, n) {
    for (let i = Math.min(Math.abs(n), this.rows); i > 0; i--) {
      if (n > 0) {
        const gone = this.lines.splice(from, 1)[0];
        this.lines.splice(this.bottom, 0, this.blank());
        if (from === 0 && this.top === 0 && !this.other) { this.past.push(gone); if (this.past.length > 2000) this.past.shift(); }
      } else {
        this.lines.splice(this.bottom, 1);
        this.lines.splice(from, 0, this.blank());
      }
    }
  }

  erase(y, from, to) { for (let x = from; x < Math.min(to, this.columns); x++) this.lines[y][x] = { c: " ", look: "" }; }

  eraseScreen(how) {
    for (let y = 0; y < this.rows; y++) {
      if (y < this.y ? how !== 0 : y > this.y ? how !== 1 : how >= 2) this.erase(y, 0, this.columns);
    }
    if (how === 0) this.erase(this.y, this.x, this.columns);
    if (how === 1) this.erase(this.y, 0, this.x + 1);
  }

  // style keeps the names of the classes that the text has: b(old), u(nderlined), i(nverse), c1 … c6.
  style(p) {
    let on = new Set(this.look.split(" ").filter(Boolean));
    const colour = (name) => { on = new Set([...on].filter((s) => s[0] !== "c")); if (name) on.add(name); };
    for (let k = 0; k < p.length; k++) {
      const n = p[k];
      if (n === 0) on.clear();
      else if (n === 1) on.add("b");
      else if (n === 22) on.delete("b");
      else if (n === 4) on.add("u");
      else if (n === 24) on.delete("u");
      else if (n === 7) on.add("i");
      else if (n === 27) on.delete("i");
      else if (n === 38 || n === 48) k += p[k + 1] === 2 ? 4 : 2; // colours beyond the six are not shown
      else if (n === 39) colour("");
      else if (n % 10 >= 1 && n % 10 <= 6 && (n >= 31 && n <= 36 || n >= 91 && n <= 96)) colour("c" + n % 10);
    }
    this.look = [...on].join(" ");
  }
}
