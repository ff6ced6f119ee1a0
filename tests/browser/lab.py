"""A real JupyterLab on loopback, and Chromium to look at it with."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A closed network is asked for nothing; root cannot use the sandbox.
QUIET = ("--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking")
QUIET += ("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-sandbox")
START_SECONDS = 60
WINDOW = (1280, 1600)
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab.

    Attributes:
        url: its address, without a slash at the end.
        token: what it asks a browser for.
    """

    url: str
    token: str

    def address(self, notebook: str) -> str:
        """Return where a notebook is opened."""
        return f"{self.url}/lab/tree/{notebook}?token={self.token}&reset"


def browser_program() -> str | None:
    """Return the browser of this machine, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def jupyterlab(root: Path, home: Path, **variables: str) -> Iterator[Lab]:
    """Start JupyterLab on a folder of notebooks; it and its kernels end with the block.

    Args:
        root: the folder; what the browser saves is written there.
        home: an empty folder for settings.
        variables: what kernels find in their environment.

    Raises:
        TimeoutError: it did not answer in time; with its last lines.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16))
    log = home / "jupyterlab.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            command(root, home, port, lab.token),
            env=os.environ | variables | {"JUPYTER_CONFIG_DIR": str(home)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for(f"{lab.url}/api?token={lab.token}", log)
            yield lab
        finally:
            process.terminate()
            process.wait(30)


def command(root: Path, home: Path, port: int, token: str) -> list[str]:
    """Return the call. Cells outside the window are drawn too, so that all can be looked at."""
    settings = home / "settings" / "@jupyterlab"
    for name, value in SETTINGS.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.root_dir": root,
        "IdentityProvider.token": token,
        "LabApp.expose_app_in_browser": True,
        "LabApp.user_settings_dir": home / "settings",
        "LabApp.workspaces_dir": home / "workspaces",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *flags]


def wait_for(url: str, log: Path) -> None:
    """Return when an address answers."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            urlopen(url, timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(f"JupyterLab did not start: {log.read_text()[-1000:]}")


@contextmanager
def chromium(home: Path) -> Iterator[Chrome]:
    """Open a browser without a window, and with nothing from another run."""
    options = ChromeOptions()
    options.binary_location = browser_program()
    for flag in (*QUIET, f"--user-data-dir={home}", "--window-size={},{}".format(*WINDOW)):
        options.add_argument(flag)
    driver = Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
