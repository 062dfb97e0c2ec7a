"""Take screenshots of a run's TensorBoard pages in headless Chromium: `python docs/screenshots.py RUNS OUT`.

Needs `pip install 'spectral-lightning[docs]'` and Chromium at /usr/bin/chromium, or at the path in $CHROMIUM.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

PAGES = {"custom_scalars": "custom_scalars", "images": "images", "timeseries": "scalars"}


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def main(runs: str, out: str) -> None:
    """Open every page and save a screenshot of it."""
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", runs, "--port", str(port), "--host", "127.0.0.1"]
    server = subprocess.Popen([*command, "--samples_per_plugin", "images=100"], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(url, timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        Path(out).mkdir(parents=True, exist_ok=True)
        with sync_playwright() as play:
            options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
            path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
            browser = play.chromium.launch(executable_path=path, args=options)
            page = browser.new_page(viewport={"width": 1500, "height": 1050})
            for tab, name in PAGES.items():
                page.goto(f"{url}/?darkMode=false#{tab}", wait_until="networkidle")
                page.wait_for_timeout(9000)
                page.screenshot(path=str(Path(out) / f"tensorboard_{name}.png"))
            browser.close()
    finally:
        server.terminate()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
