"""Under which address browsers reach a page that is behind a proxy, and for whom a proxy asks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from hookline import ExperimentError

__all__ = ["Address", "Proxies", "address_of", "proxies_of"]

PORTS = {"http": 80, "https": 443}
EXAMPLE = "write e.g. https://label.example.org/team"


@dataclass(frozen=True)
class Address:
    """`https://label.example.org/team`, in its parts."""

    scheme: str
    host: str
    """What browsers send as `Host`: with the port where it is not the scheme's own."""
    prefix: str
    """`/team`, or nothing."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"


def address_of(text: str) -> Address:
    """The address that a user gave. Raises ExperimentError for what a browser could not open, or would open as another."""
    try:
        parts = urlsplit(text)
        port, name = parts.port, (parts.hostname or "").encode("idna").decode()
    except ValueError as err:
        raise ExperimentError(f"--public {text} is not an address: {err}", EXAMPLE) from None
    if parts.scheme not in PORTS or not re.fullmatch(r"[a-z0-9.:-]+", name):
        raise ExperimentError(f"--public {text} is not an address of a page", EXAMPLE)
    if parts.query or parts.fragment or parts.username is not None:
        raise ExperimentError(f"--public {text} has more than a name, a port and a path", EXAMPLE)
    prefix = parts.path.rstrip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", prefix):
        raise ExperimentError(
            f"--public {text}: the path {prefix} cannot be used", "use letters, digits, - and _ between single slashes"
        )
    host = f"[{name}]" if ":" in name else name
    return Address(parts.scheme, host if port in (None, PORTS[parts.scheme]) else f"{host}:{port}", prefix)


@dataclass(frozen=True)
class Proxies:
    """The proxies that are believed when they say for whom they ask: those of this machine, and those of `networks`."""

    networks: Collection[IPv4Network | IPv6Network] = ()

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """Whose request it is: the last address of `X-Forwarded-For` (its values in `forwarded`) that is not of `networks`.

        Each proxy adds at the end by whom it was asked, so whatever precedes a stranger's address was written by the stranger.
        A connection from this machine is a proxy's; an address of this machine in the list may be anybody's who works here.
        """
        chain = [one.strip() for value in forwarded for one in value.split(",")]
        ip = _ip(peer)
        proxy = ip is not None and (ip.is_loopback or self._has(ip))
        while proxy and chain and (before := _ip(chain.pop())):
            ip, proxy = before, self._has(before)
        return str(ip or peer)

    def _has(self, ip: IPv4Address | IPv6Address) -> bool:
        return any(ip in network for network in self.networks)


def proxies_of(names: Iterable[str]) -> Proxies:
    """Proxies by their addresses, `10.0.0.2`, and networks, `10.0.0.0/8`."""
    networks = []
    for name in names:
        try:
            networks.append(ip_network(name))
        except ValueError as err:
            raise ExperimentError(f"--proxies {name}: {err}", "write e.g. 10.0.0.2 or 172.16.0.0/12") from None
    return Proxies(tuple(networks))


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    """An address of `X-Forwarded-For`, to which some proxies add the port."""
    found = re.fullmatch(r"\[(.*)\](?::\d+)?|([\d.]+):\d+", text)
    try:
        ip = ip_address((found[1] or found[2]) if found else text)
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip
