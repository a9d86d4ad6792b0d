"""The connection between the processes of a run: exchanges of values through rank 0, and sums of tensors through torch.

Values go through sockets, on which a rank can wait for another one for any time, e.g. while people answer there. Sums go
through torch.distributed, directly after an exchange, so that no rank ever waits inside it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pickle
import secrets
import select
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from hookline.errors import HooklineError, PluginError, ServiceError, cause
from hookline.world.exits import at_once
from hookline.world.place import Place
from hookline.world.watch import AGAIN, Watch, line

__all__ = ["LAUNCHER", "Link"]

JOIN = 300.0
"""Seconds within which all processes must have started."""
LATER = 0.5
"""Seconds by which the other ranks wait longer than rank 0, which knows best who is missing."""
BLOCK = 1 << 24
"""Entries of tensors that are summed in one message."""
_opened = [0]
"""How many links this process has opened."""
LAUNCHER = "HOOKLINE_LAUNCHER"
"""The environment's name for the pipe that closes when the launcher has ended."""


class Link:
    """This process among those of the run. Opens the connections; `close` or `fail` ends them."""

    def __init__(self, place: Place, timeout: float) -> None:
        """timeout: seconds that ranks wait for one another. Raises ServiceError if not all ranks come."""
        self.rank, self.size, self.local, self.timeout = place.rank, place.size, place.local, timeout
        self._count, self._summing = 0, False
        self.stepping = False
        """Whether the ranks take steps; while they begin or end a phase, one may work alone for longer than in a step."""
        join = min(JOIN, timeout)
        try:
            os.environ.update(place.environment())  # SLURM's names become torch's
            store, _, _ = next(rendezvous("env://", timeout=datetime.timedelta(seconds=join)))
            self._store = PrefixStore(_place_of_store(), store)
            token = self._shared("token", secrets.token_hex(16))
            if self.rank == 0:
                self._channels, watched = self._accept(place, token, join)
            else:
                port = int(self._shared("port", ""))
                self._channels, watched = ({0: _connect(place, port, token, use)} for use in ("exchange", "watch"))
        except (RuntimeError, OSError, ValueError) as err:
            raise ServiceError(
                f"rank {place.rank} of {place.size} did not meet the others at {place.host}:{place.port}: {_first_line(err)}",
                "check MASTER_ADDR and MASTER_PORT, whether the port is free, and whether every process was started",
            ) from None
        launcher = os.environ.get(LAUNCHER, "")
        self.watch = Watch(self.rank, watched, int(launcher) if launcher else None)

    def _shared(self, key: str, mine: str) -> str:
        """The text that rank 0 gives."""
        if self.rank == 0:
            self._store.set(key, mine)
            return mine
        return str(self._store.get(key).decode())

    def _accept(
        self, place: Place, token: str, seconds: float
    ) -> tuple[dict[int, socket.socket], dict[int, socket.socket]]:
        """The two connections of every other rank."""
        here = place.host in ("127.0.0.1", "localhost")
        both = not here and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        found: dict[str, dict[int, socket.socket]] = {"exchange": {}, "watch": {}}
        with socket.create_server(("127.0.0.1" if here else "", 0), family=family, dualstack_ipv6=both) as listening:
            listening.settimeout(seconds)
            self._shared("port", str(listening.getsockname()[1]))
            while sum(map(len, found.values())) < 2 * (self.size - 1):
                peer, _ = listening.accept()
                hello = _hello(peer)
                if hello.get("token") == token:
                    found[hello["use"]][int(hello["rank"])] = peer
        return found["exchange"], found["watch"]

    # -- values

    def exchange(self, value: Any, what: str) -> list[Any]:
        """The values of all ranks, by rank. `what` names the exchange; each rank raises PluginError if these differ."""
        if cause := self.watch.cause():
            raise cause
        self._count += 1
        self.watch.at(self._count, what)
        mine = pickle.dumps((what, value), pickle.HIGHEST_PROTOCOL)
        try:
            if self.rank == 0:
                parts = {0: mine, **self._receive(self._channels, what)}
                every = [parts[rank] for rank in range(self.size)]
                reply = pickle.dumps(every, pickle.HIGHEST_PROTOCOL)
                for channel in self._channels.values():
                    _send(channel, reply)
            else:
                _send(self._channels[0], mine)
                every = pickle.loads(self._receive(self._channels, what)[0])
        except OSError as err:
            raise self.watch.cause(2.0) or ServiceError(
                f"the connection between the ranks was lost: {err}", AGAIN
            ) from None
        found = [pickle.loads(part) for part in every]
        if any(place != what for place, _ in found):
            told = "; ".join(f"rank {rank} is in {place}" for rank, (place, _) in enumerate(found))
            parted = PluginError(
                f"the ranks made different exchanges at the same time: {told}",
                "call ctx.sum, ctx.mean, ctx.max and ctx.main on every rank, in the same order and under no condition on rows",
            )
            parted.everywhere = True
            raise parted
        return [value for _, value in found]

    def _receive(self, channels: Mapping[int, socket.socket], what: str) -> dict[int, bytes]:
        """One message from each rank; waits for those who are with people, and for others `timeout` seconds."""
        missing, got = dict(channels), {rank: bytearray() for rank in channels}
        asked = time.monotonic()
        while missing:
            for channel in select.select(list(missing.values()), [], [], 0.25)[0]:
                rank = next(rank for rank, own in missing.items() if own is channel)
                chunk = channel.recv(1 << 20)
                if not chunk:
                    raise ConnectionError(f"rank {rank} ended")
                got[rank] += chunk
                if len(got[rank]) >= 8 and len(got[rank]) == 8 + struct.unpack("<Q", got[rank][:8])[0]:
                    del missing[rank]
            now = time.monotonic()
            if cause := self.watch.cause():
                raise cause
            if self.watch.waits(missing):
                asked = now
            elif missing and now - asked > self._limit + (LATER if self.rank else 0):
                raise self._missing(missing, what)
        return {rank: bytes(message[8:]) for rank, message in got.items()}

    @property
    def _limit(self) -> float:
        """Seconds that ranks wait for one another now."""
        return self.timeout if self.stepping else max(self.timeout, JOIN)

    def _missing(self, ranks: Iterable[int], what: str) -> ServiceError:
        """The sentence about an exchange to which not every rank came."""
        told = "; ".join(f"rank {rank} did not come and was last seen in {self.watch.where(rank)}" for rank in ranks)
        err = ServiceError(
            f"the ranks waited {self._limit:g} s for {what}: {told}",
            "if that may take longer, raise --timeout; otherwise run the same command again",
        )
        err.teller = self.rank  # rank 0 may be the one that hangs
        return err

    # -- tensors

    def reduce(self, tensors: Sequence[Tensor], what: str) -> None:
        """Sum tensors over ranks, in place, in float32 where they are shorter. All ranks are here: call `exchange` first."""
        self._begin_summing(tensors)
        self.watch.at(self._count, what)
        for some in _blocks(tensors):
            wide = torch.float32 if some[0].dtype.itemsize < 4 else some[0].dtype
            flat = torch.cat([tensor.reshape(-1).to(wide) for tensor in some])
            try:
                dist.all_reduce(flat)
            except RuntimeError as err:
                lost = ServiceError(f"the connection between the ranks was lost in {what}: {_first_line(err)}", AGAIN)
                raise self.watch.cause(2.0) or lost from None
            at = 0
            for tensor in some:
                tensor.copy_(flat[at : at + tensor.numel()].view_as(tensor))
                at += tensor.numel()

    def _begin_summing(self, tensors: Sequence[Tensor]) -> None:
        if self._summing or not tensors:
            return
        if not dist.is_initialized():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if tensors[0].is_cuda else "gloo",
                store=PrefixStore("sums", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=datetime.timedelta(seconds=self.timeout),
            )
        self._summing = True

    # -- the end

    def fail(self, err: BaseException, known: bool = False) -> None:
        """Tell the other ranks why this one ends, so that they end with the same sentence. known: they raise it too."""
        told = err if isinstance(err, HooklineError) else HooklineError(cause(err))
        self.watch.fail(None if known else told)
        at_once[0] = True

    def close(self) -> None:
        """Leave, after every rank has come this far."""
        self.exchange(None, "the end of the run")
        self.watch.close()
        for channel in self._channels.values():
            channel.close()
        if self._summing:
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()


def _place_of_store() -> str:
    """Where the run keeps its keys, in a store that outlives runs: a process may make several, and torchrun restarts them."""
    _opened[0] += 1
    return f"hookline/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{_opened[0]}"


def _blocks(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors in the parts that are summed together: of one type, and not too many entries."""
    blocks: list[list[Tensor]] = []
    entries = 0
    for tensor in sorted(tensors, key=lambda tensor: str(tensor.dtype)):
        if not blocks or blocks[-1][0].dtype != tensor.dtype or entries + tensor.numel() > BLOCK:
            blocks.append([])
            entries = 0
        blocks[-1].append(tensor)
        entries += tensor.numel()
    return blocks


def _connect(place: Place, port: int, token: str, use: str) -> socket.socket:
    peer = socket.create_connection((place.host, port), timeout=60)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.sendall(line({"token": token, "rank": place.rank, "use": use}))
    peer.settimeout(None)
    return peer


def _hello(peer: socket.socket) -> dict[str, Any]:
    """The first line that a process sends, read byte by byte, since more may follow; empty if it is not one of ours."""
    with contextlib.suppress(OSError, ValueError):
        peer.settimeout(5)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        text = b""
        while not text.endswith(b"\n") and len(text) < 4096 and (byte := peer.recv(1)):
            text += byte
        peer.settimeout(None)
        message = json.loads(text)
        return message if isinstance(message, dict) and {"token", "rank", "use"} <= message.keys() else {}
    return {}


def _send(channel: socket.socket, message: bytes) -> None:
    channel.sendall(struct.pack("<Q", len(message)) + message)


def _first_line(err: BaseException) -> str:
    text = str(err).strip().splitlines()
    return text[0] if text else type(err).__name__
