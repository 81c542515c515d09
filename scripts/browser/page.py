"""Opens pages of reports and comparisons in a real browser and says what is wrong with them.

    page.py BROWSER OUT PAGE...

Each page is opened at the widths of a phone and of a desk, light and dark: nothing may be
asked of a network or fail on the console, nothing may be wider than the window, no two
labels of a chart may touch. Then it is printed. The page of a report is also used by
keyboard and opened with its script off; that of a comparison has none. Pictures of all of it are left in OUT. The browser is spoken to through a pipe
(Chrome DevTools Protocol), so that Python needs no package.
"""

import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

WIDTHS = (390, 1280)
SCHEMES = ("light", "dark")

# Labels of one chart that overlap, in pixels; half a pixel is rounding.
TOUCHING_LABELS = """[...document.querySelectorAll('svg')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([a, r], i) => boxes.slice(i + 1)
    .filter(([, q]) => r.left < q.right - .5 && q.left < r.right - .5 && r.top < q.bottom - .5 && q.top < r.bottom - .5)
    .map(([b]) => `${a} / ${b}`));
})"""
TOO_WIDE = "document.documentElement.scrollWidth - innerWidth"
# The share of text whose contrast with what is behind it is below WCAG's 4.5.
LOW_CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const f = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const behind = element => { for (; element; element = element.parentElement) { const color = rgb(getComputedStyle(element).backgroundColor); if (color[3] > 250) return color; } return rgb('Canvas'); };
  const found = new Set();
  for (const element of document.querySelectorAll('p, td, th, dt, dd, li, span, small, a, h1, h2, h3, code, button')) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()) || !element.checkVisibility()) continue;
    const [a, b] = [light(rgb(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) found.add(`${element.tagName}.${element.className} ${element.textContent.slice(0, 30)} ${((a + .05) / (b + .05)).toFixed(1)}`);
  }
  return [...found];
})()"""


class Browser:
    """A headless browser with one tab."""

    def __init__(self, binary):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, ours = os.pipe()
        theirs, from_browser = os.pipe()
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={self.profile.name}", "--remote-debugging-pipe", "about:blank",
        ]
        # The protocol's pipes are the file descriptors 3 and 4.
        shell = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$0" "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, binary, *flags],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.ours, self.theirs = ours, theirs
        self.buffer, self.n_sent, self.events, self.session = b"", 0, [], None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def receive(self):
        while b"\0" not in self.buffer:
            more = os.read(self.theirs, 1 << 20)
            if not more:
                sys.exit("page.py: the browser went away")
            self.buffer += more
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def send(self, method, **params):
        self.n_sent += 1
        message = {"id": self.n_sent, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.ours, data):]
        while True:
            answer = self.receive()
            if answer.get("id") == self.n_sent:
                if "error" in answer:
                    sys.exit(f"page.py: {method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def load(self, url):
        self.events.clear()
        self.send("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def open(self, url):
        """Loads a page; returns the milliseconds that took."""
        self.load(url)
        # What a script asks for may come late.
        time.sleep(0.1)
        return self.ask("performance.getEntriesByType('navigation')[0].loadEventEnd")

    def ask(self, expression):
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            sys.exit(f"page.py: {expression[:60]}: {answer['exceptionDetails']['text']}")
        return answer["result"].get("value")

    def key(self, key, text=None):
        typed = {"text": text} if text else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, **typed)
            typed = {}

    def picture(self, path, whole=True):
        image = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(image["data"]))

    def size(self, width, height=1000):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def media(self, scheme, kind=""):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=kind, features=features)

    def complaints(self, url):
        """What was asked of anybody but the page itself, and what the console says."""
        for event in self.events:
            params = event.get("params", {})
            match event.get("method"):
                case "Network.requestWillBeSent" if params["request"]["url"] != url:
                    yield f"asks for {params['request']['url'][:80]}"
                case "Runtime.exceptionThrown":
                    yield f"exception: {params['exceptionDetails']['text']}"
                case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                    yield f"console: {params['args']}"
                case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                    yield f"log: {params['entry']['text']}"

    def close(self):
        self.send("Browser.close")
        self.process.wait(10)


def looks(browser, url, out):
    """Widths and schemes."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            browser.size(width)
            browser.media(scheme)
            browser.open(url)
            yield from browser.complaints(url)
            at = f"at {width} pixels, {scheme}"
            if (too_wide := browser.ask(TOO_WIDE)) > 0:
                yield f"{too_wide} pixels too wide {at}"
            for pair in browser.ask(TOUCHING_LABELS):
                yield f"labels touch {at}: {pair}"
            for text in browser.ask(LOW_CONTRAST)[:5]:
                yield f"low contrast {at}: {text}"
            browser.picture(out / f"{width}-{scheme}.png")


def keyboard(browser, url, out):
    """Finds the best example by a word of it, and everything again."""
    browser.size(1280)
    browser.media("light")
    browser.open(url)
    shown = "document.querySelectorAll('#found li').length"
    number = "parseInt(document.querySelector('.count').textContent.replaceAll(',', ''))"
    n_shown, n_all = browser.ask(shown), browser.ask(number)
    if n_shown == 0:
        yield "lists no examples"
    browser.key("/", "/")
    if not browser.ask("document.activeElement.name === 'words'"):
        yield "`/` does not go to the search"
    word = browser.ask("JSON.parse(document.getElementById('listed').textContent)[0].id.slice(0, 12)")
    browser.send("Input.insertText", text=word)
    if browser.ask(shown) != 1 or browser.ask(number) != 1:
        yield f"`{word}` finds {browser.ask(number)} examples instead of one"
    if not browser.ask(f"document.querySelector('#found code').title.startsWith('{word}')"):
        yield f"`{word}` finds another example"
    browser.picture(out / "search.png", whole=False)
    browser.key("Escape")
    if browser.ask(number) != n_all:
        yield "escape does not bring all examples back"
    if browser.ask("document.getElementById('more').hidden") != (n_all <= n_shown):
        yield "more examples are there and not offered, or the other way round"
    yield from browser.complaints(url)


def paper(browser, url, out):
    browser.media("dark", "print")
    browser.open(url)
    printed = browser.send("Page.printToPDF", printBackground=True)
    (out / "printed.pdf").write_bytes(base64.b64decode(printed["data"]))
    browser.size(794)
    browser.picture(out / "printed.png")
    if browser.ask("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)":
        yield "is not printed on white"
    browser.media("light")


def without_script(browser, url):
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    browser.load(url)
    browser.send("Emulation.setScriptExecutionDisabled", value=False)
    if not browser.ask("document.querySelector('#static .rows li')?.checkVisibility()"):
        yield "shows no examples without its script"


def complaints(browser, page, url, out):
    yield from looks(browser, url, out)
    if page.name == "report.html":
        yield from keyboard(browser, url, out)
        yield from without_script(browser, url)
    elif browser.ask("document.scripts.length"):
        yield "has a script"
    yield from paper(browser, url, out)


def main():
    binary, out, *pages = sys.argv[1:]
    failed = False
    browser = Browser(binary)
    for page in map(pathlib.Path, pages):
        page = page.resolve()
        # `report/plain`: where the test left it.
        url, name = page.as_uri(), "/".join(page.parts[-3:-1])
        own = pathlib.Path(out) / name
        own.mkdir(parents=True, exist_ok=True)
        found = list(complaints(browser, page, url, own))
        browser.size(1280)
        # From the start of navigation to the end of the load event. Told, not judged: the
        # machine may be busy with something else.
        loads = sorted(browser.open(url) for _ in range(5))
        size = page.stat().st_size / 1e6
        print(f"{name}: {size:.1f} MB, open after {loads[2]:.0f} ms "
              f"({loads[0]:.0f} to {loads[4]:.0f}), {len(found)} complaints")
        for complaint in found:
            print(f"  {complaint}")
        failed = failed or bool(found)
    browser.close()
    sys.exit(failed)


main()
