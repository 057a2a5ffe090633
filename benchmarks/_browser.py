"""A headless Chromium that opens a page, does there what it is told, and says what it saw: by the DevTools protocol.

tornado, which `distributed` (group "test") brings, speaks to its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tornado.websocket import websocket_connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0")
PATIENCE = 60.0  # seconds


class Page:
    """A tab: commands, and the events that came meanwhile."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[tuple[float, str, dict[str, Any]]] = []
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while (text := await self._socket.read_message()) is not None:
            message = json.loads(text)
            if "id" in message:
                self._answers.pop(message["id"]).set_result(message)
            else:
                self.events.append((time.perf_counter(), message["method"], message["params"]))

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a command."""
        self._number += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = answer
        await self._socket.write_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        found = await asyncio.wait_for(answer, PATIENCE)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']['message']}")
        result: dict[str, Any] = found["result"]
        return result

    async def value(self, script: str) -> Any:
        """Value of an expression of the page, waited for."""
        found = await self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", "exception"))
        return found["result"].get("value")

    async def opened(self, url: str, mark: str | None = None) -> float:
        """Open a page; seconds until it is loaded, has set its mark if it sets one, and is on the screen."""
        for part in ("Page", "Runtime", "Log", "Network"):
            await self.command(f"{part}.enable")
        start, seen = time.perf_counter(), len(self.events)
        await self.command("Page.navigate", url=url)
        while not any(method == "Page.loadEventFired" for _, method, _ in self.events[seen:]):
            if time.perf_counter() - start > PATIENCE:
                raise TimeoutError(f"{url} was not loaded in {PATIENCE:g} s")
            await asyncio.sleep(0.002)
        while mark and not await self.value(f"performance.getEntriesByName({mark!r}).length"):
            await asyncio.sleep(0.002)
        # the second frame begins when the first one is on the screen
        await self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        return time.perf_counter() - start

    def messages(self) -> list[str]:
        """What stands in the console, errors of scripts included."""
        wanted = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(what)[:300] for _, method, what in self.events if method in wanted]

    def requests(self) -> list[str]:
        """Addresses that were asked for, other than files of this machine and what the page holds itself."""
        asked = [what["request"]["url"] for _, method, what in self.events if method == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]

    async def close(self) -> None:
        """No more commands."""
        self._socket.close()
        with contextlib.suppress(asyncio.CancelledError):
            self._reading.cancel()
            await self._reading


@contextlib.asynccontextmanager
async def browser(width: int = 1280, height: int = 900) -> AsyncIterator[Page]:
    """A fresh browser with one empty page, and a profile of its own that is thrown away."""
    if CHROMIUM is None:
        raise FileNotFoundError("neither chromium nor google-chrome is on the path: install one")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
        running = subprocess.Popen([CHROMIUM, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            page = Page(await _socket_of(Path(profile) / "DevToolsActivePort"))
            yield page
            await page.close()
        finally:
            running.terminate()
            running.wait(PATIENCE)


async def _socket_of(port_file: Path) -> Any:
    """The socket of the first tab."""
    from tornado.httpclient import AsyncHTTPClient

    until = time.perf_counter() + PATIENCE
    while time.perf_counter() < until:
        with contextlib.suppress(OSError, StopIteration, ValueError):
            port = port_file.read_text().split()[0]
            answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json")
            tab = next(tab for tab in json.loads(answer.body) if tab["type"] == "page")
            return await websocket_connect(tab["webSocketDebuggerUrl"], max_message_size=200_000_000)
        await asyncio.sleep(0.01)
    raise TimeoutError(f"the browser did not answer in {PATIENCE:g} s")
