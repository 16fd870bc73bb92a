"""Measure built pages in headless Chromium: ``python tools/look.py docs/_build/html``.

Every page, at 1200 and 390 pixels, light and dark: what is wider than the page or its column, and
text that is smaller than 8 pixels or hardly differs from its background. On reports (the folder
that ``dtwpt invariance`` writes), that pointing at a filter changes the numbers shown. Prints one
line for each finding; the exit status is 1 if there is any. Needs Chromium, and no network.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

WIDTHS, THEMES = (1200, 390), ("light", "dark")
TIMEOUT = 900

HARNESS = """<!doctype html><body><script>
const pages = PAGES, widths = WIDTHS, themes = THEMES;
const wait = ms => new Promise(done => setTimeout(done, ms));
function luminance(text) {
  const parts = text.match(/[\\d.]+/g);
  if (!parts || (parts.length > 3 && Number(parts[3]) < 0.5)) return null;
  const [r, g, b] = parts.slice(0, 3).map(v => {
    v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(element, view) {
  for (let e = element; e; e = e.parentElement) {
    const found = luminance(view.getComputedStyle(e).backgroundColor);
    if (found !== null) return found;
  }
  return 1;
}
function measure(doc, view, width) {
  const found = [], root = doc.documentElement, name = e => {
    const text = (e.getAttribute("aria-label") || e.textContent || e.getAttribute("src") || "");
    return e.tagName.toLowerCase() + " " + JSON.stringify(text.trim().slice(0, 60));
  };
  if (root.scrollWidth > width + 1) found.push(`page is ${root.scrollWidth} px wide`);
  const main = doc.querySelector("article") || doc.body;
  const wide = "pre, .table-wrapper, div.math, svg.math, img";
  for (const e of main.querySelectorAll(wide)) {
    if (e.closest(".highlight-text")) continue;  // tables in text scroll
    if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0) {
      found.push(`${e.scrollWidth - e.clientWidth} px beyond its column: ${name(e)}`);
    }
    const box = e.getBoundingClientRect();
    if (e.closest(".frame")) continue;  // pictures of a report scroll in theirs
    if (box.right > width + 1) found.push(`ends at ${Math.round(box.right)} px: ${name(e)}`);
  }
  const dots = doc.querySelectorAll(".explorer circle");
  if (dots.length) {
    const numbers = doc.querySelector(".detail table"), before = numbers.textContent;
    const other = [...dots].find(dot => !dot.classList.contains("on"));
    other.dispatchEvent(new view.PointerEvent("pointerover", {bubbles: true}));
    if (numbers.textContent === before) found.push("pointing at a filter changes nothing");
  }
  const walker = doc.createTreeWalker(main, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walker.nextNode()) {
    const node = walker.currentNode, e = node.parentElement;
    if (!node.data.trim() || seen.has(e) || !e.getClientRects().length) continue;
    if (e.closest(".headerlink, .copybtn, script, style, .sr-only")) continue;
    seen.add(e);
    const style = view.getComputedStyle(e), drawn = e.ownerSVGElement;
    const size = parseFloat(style.fontSize) * (drawn ? e.getScreenCTM().a : 1);
    if (size < 8) found.push(`text of ${size.toFixed(1)} px: ${name(e)}`);
    const text = luminance(style.color), ground = behind(e, view);
    if (text === null) continue;
    const [low, high] = [Math.min(text, ground), Math.max(text, ground)];
    if ((high + 0.05) / (low + 0.05) < 2.5) found.push(`contrast too low: ${name(e)}`);
  }
  return found;
}
async function look() {
  const all = [];
  for (const page of pages) for (const width of widths) for (const theme of themes) {
    const frame = document.createElement("iframe");
    frame.style = `width:${width}px;height:2000px;border:0`;
    const loaded = new Promise(done => { frame.onload = done; });
    frame.src = "/" + page;
    document.body.append(frame);
    await loaded;
    const doc = frame.contentDocument;
    doc.body.dataset.theme = theme;
    doc.documentElement.style.colorScheme = theme;
    await wait(30);
    for (const what of measure(doc, frame.contentWindow, width)) {
      all.push([page, width, theme, what]);
    }
    frame.remove();
  }
  await fetch("/result", {method: "POST", body: JSON.stringify(all)});
}
look();
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the pages and one that measures them, and takes what was measured."""

    harness = b""
    done = threading.Event()
    result: Any = None

    def do_GET(self) -> None:
        """Send a file, or the page that measures."""
        if self.path != "/look":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.harness)

    def do_POST(self) -> None:
        """Take the findings."""
        Handler.result = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        Handler.done.set()

    def log_message(self, *_: Any) -> None:
        """Say nothing about requests."""


def main() -> int:
    """Look at every page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*.html", help="pages (default: %(default)s)")
    options = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("needs chromium on the path")
    pages = sorted(
        path.relative_to(options.folder).as_posix() for path in options.folder.rglob(options.only)
    )
    pages = [page for page in pages if not page.startswith(("_modules", "_static", "genindex"))]
    harness = HARNESS
    for name, value in (("PAGES", pages), ("WIDTHS", WIDTHS), ("THEMES", THEMES)):
        harness = harness.replace(name, json.dumps(value), 1)
    Handler.harness = harness.encode()
    handler = functools.partial(Handler, directory=str(options.folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            command = [
                *(browser, "--headless=new", "--no-sandbox", "--disable-gpu"),
                *(f"--user-data-dir={profile}", "--window-size=1300,2100"),
                f"http://127.0.0.1:{server.server_port}/look",
            ]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            running = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
            finished = Handler.done.wait(TIMEOUT)
            running.terminate()
            running.wait()
        server.shutdown()
    if not finished:
        sys.exit(f"Chromium did not answer within {TIMEOUT} s")
    for page, width, theme, what in Handler.result:
        print(f"{page} at {width} px, {theme}: {what}")
    print(f"{len(pages)} pages, {len(Handler.result)} findings")
    return 1 if Handler.result or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
