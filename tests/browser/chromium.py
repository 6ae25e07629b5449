"""Headless Chromium, as the Debian package `chromium` brings it; one fresh profile a call, and no way out.

    page = Page.of(Path("report.html"));  page.dom, page.said, page.picture(1240, 1600)

Other tests use it for their own pages: `render` takes any address that this machine serves.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr", "--v=0",
    "--force-device-scale-factor=1", "--proxy-server=http://127.0.0.1:9", "--proxy-bypass-list=<-loopback>;127.0.0.1",
)  # fmt: skip
"""The proxy that nobody serves makes every outside request fail at once; addresses of this machine go without."""


def chromium() -> str:
    """The browser's path; skips the test, saying what to install, where there is none.

    FAILOVER_BROWSER=required makes that a failure; .ci/run sets it.
    """
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        message = "no Chromium on this machine: apt-get install chromium"
        if os.environ.get("FAILOVER_BROWSER") == "required":
            pytest.fail(message)
        pytest.skip(message)
    return found


def render(address: str, *flags: str, seconds: float = 90) -> tuple[str, str]:
    """Open an address; give what it printed and what it logged. Everything it started ends with it."""
    with tempfile.TemporaryDirectory(prefix="browser-") as home:
        command = [chromium(), *FLAGS, f"--user-data-dir={home}/profile", *flags, address]
        environment = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
        process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            printed, logged = process.communicate(timeout=seconds)
        finally:
            _end(process)
        assert process.returncode == 0, logged
        return printed, logged


def _end(process: subprocess.Popen[str]) -> None:
    """End what is left of its process group: renderers may outlive a browser that hangs."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(10)


@dataclass(frozen=True)
class Page:
    """A rendered file: its DOM as the browser understood it, and everything the page said on the console."""

    path: Path
    dom: str
    said: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, *flags: str) -> Page:
        dom, log = render(path.as_uri(), "--dump-dom", *flags)
        return cls(path, dom, tuple(line for line in log.splitlines() if "CONSOLE" in line))


def picture(page: Path, target: Path, width: int, height: int, *flags: str) -> Path:
    """Photograph a page."""
    render(page.as_uri(), f"--screenshot={target}", f"--window-size={width},{height}", *flags)
    return target


def paper(page: Path, target: Path) -> Path:
    """Print a page as PDF."""
    render(page.as_uri(), f"--print-to-pdf={target}", "--no-pdf-header-footer")
    return target


def keep(taken: Path, name: str) -> None:
    """Put a picture into the folder FAILOVER_PICTURES, when it is set, with a palette: a third of the size."""
    if folder := os.environ.get("FAILOVER_PICTURES"):
        with Image.open(taken) as image:
            image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(Path(folder) / name, optimize=True)
