"""A reverse proxy, as nginx and Caddy are one: it passes path and `Host` as they came, and adds who asked."""

from __future__ import annotations

import asyncio
import ssl
import threading
from pathlib import Path
from subprocess import run


class Proxy:
    """Serves `target` (host:port) on a port of its own, with TLS if there is a certificate."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.target, self.tls = "", None
        if certificate is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certificate)
        self.begun = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.thread.start()
        self.begun.wait(10)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._asked, "127.0.0.1", 0, ssl=self.tls)
        self.host = f"localhost:{server.sockets[0].getsockname()[1]}"
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        self.begun.set()
        await self.ended.wait()
        server.close()
        ours = asyncio.current_task()
        asked = [task for task in asyncio.all_tasks() if task is not ours]
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.sleep(0.01)  # connections close

    async def _asked(self, browser: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            head = (await browser.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n").split(b"\r\n")
            length = next((line.split(b":")[1] for line in head if line.lower().startswith(b"content-length:")), b"0")
            body = await browser.readexactly(int(length))
            host, _, port = self.target.partition(":")
            page, ahead = await asyncio.open_connection(host, int(port))
            kept = [line for line in head if not line.lower().startswith((b"connection:", b"x-forwarded-for:"))]
            before = [line.split(b":", 1)[1].strip() for line in head if line.lower().startswith(b"x-forwarded-for:")]
            chain = b", ".join([*before, back.get_extra_info("peername")[0].encode()])
            ahead.write(b"\r\n".join([*kept, b"Connection: close", b"X-Forwarded-For: " + chain, b"", body]))
            back.write(await page.read())
            await back.drain()
            ahead.close()
        except (OSError, EOFError):
            pass  # a browser went away
        finally:
            back.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.ended.set)
        self.thread.join(10)


def certificate_in(folder: Path) -> Path:
    """A certificate for localhost that nobody signed, with its key."""
    made = folder / "both.pem"
    run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    made.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return made
