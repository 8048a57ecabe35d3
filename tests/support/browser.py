"""Somebody before a browser: where they go, what the browser complains of, what a page looks like."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import BrowserContext, Page

from tests.support.service import ROOT

SCREENSHOTS = ROOT / ".cache" / "screenshots"
AXE = Path(sys.prefix) / "javascript" / "node_modules" / "axe-core" / "axe.min.js"
#: What an answer with an error status makes Chromium say by itself.
_ANSWERED = re.compile(r"^Failed to load resource: the server responded with a status of (409|422)")


@dataclass
class Visitor:
    """Somebody before a browser: a page, and all that the browser complained of."""

    context: BrowserContext
    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Keeps what the browser complains of: errors of scripts, and all that the page's policy stops."""
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self._note(message.type, message.text))

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def sign_in(self, key: str) -> None:
        self.go("/sign-in")
        self.page.get_by_label("Key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(self.url + "/")

    def keep(self, name: str) -> None:
        """A screenshot of the whole page, to be looked at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def faults(self) -> list[str]:
        """What axe-core finds serious or critical."""
        # The page's policy forbids scripts from elsewhere: it is told to the browser directly, not put into the page.
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {node['target']} {node.get('failureSummary', '')}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not _ANSWERED.match(text):
            self.complaints.append(f"{kind}: {text}")
