"""The models of a phase by role: made by components in `setup`; frozen roles are checked for changes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from hookline.contract.context import Heads
from hookline.contract.family import Side
from hookline.errors import PluginError, nearest
from hookline.models.role import Role

__all__ = ["Roles"]


class Roles(Mapping[str, Role]):
    """Role name → model. New roles, heads and targets can be made only during setup."""

    def __init__(
        self,
        policy: Role,
        seed: tuple[object, ...],
        load_phase: Callable[[str, str, Heads], Role],
        load_folder: Callable[[str, str], Role],
    ) -> None:
        """seed: with the role and the head's name, it seeds a new head's weights; load_phase: from a phase's name, the
        role and its heads, it loads the model with which that phase ended; load_folder: from a path and the role's name, that
        of a folder."""
        self._roles = {"policy": policy}
        self._seed, self._load_phase, self._load_folder = seed, load_phase, load_folder
        self.settling = True
        """True during setup."""
        self.makers: dict[tuple[str, str], str] = {}
        """(role, head) → the component that made the head."""
        self.askers: dict[tuple[str, str], str] = {}
        """(role, parameter) → the component that asked for it first."""
        self.derived: list[str] = []
        """Frozen roles that components made: they are rebuilt on resume, and their hashes are compared."""
        self._hashes: dict[str, str] = {}
        self._versions: dict[str, int] = {}

    def __getitem__(self, name: str) -> Role:
        return self._roles[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._roles)

    def __len__(self) -> int:
        return len(self._roles)

    @property
    def kept(self) -> dict[str, Role]:
        """The roles that a checkpoint holds: all but the frozen ones."""
        return {name: role for name, role in self._roles.items() if name not in self.derived}

    def named(self, name: str, who: str) -> Role:
        """The role with that name. Raises a PluginError that names `who` if there is no such role."""
        if name not in self._roles:
            raise PluginError(
                f"'{who}' asks for role '{name}', which does not exist{nearest(name, self._roles)}",
                f"this phase has the roles {', '.join(self._roles)}; make others in setup: ctx.role('{name}', …)",
            )
        return self._roles[name]

    def with_head(self, head: str, who: str) -> str:
        """The name of the first role that has a head."""
        found = [name for name, role in self._roles.items() if head in role.heads]
        if not found:
            raise PluginError(
                f"'{who}' needs a head '{head}' on some role",
                "add a component that makes this head (hookline plugins list)",
            )
        return found[0]

    # -- while the phase settles

    def make(
        self, name: str, who: str, of: str, phase: str | None, path: str | None, frozen: bool, heads: Heads | None
    ) -> Role:
        """Make a copy of a role, or load the end of an earlier phase or a folder; an existing role of that name is returned."""
        if name in self._roles:
            return self._roles[name]
        self._only_in_setup(f"role '{name}'", who)
        if path is not None:
            if phase is not None or heads:
                raise PluginError(
                    f"'{who}' makes role '{name}' from a folder, which goes with no phase and no heads",
                    "give ctx.role either path or phase; make further heads with ctx.head",
                )
            made = self._load_folder(path, name)
        elif phase is not None:
            made = self._load_phase(phase, name, heads or {})
        elif frozen and self.named(of, who).adapter_fresh:
            made = self.named(of, who).without_adapter(name)
        else:
            made = self.named(of, who).copy(name)
        if frozen:
            if not made.adapter_off:
                made.freeze()
            self.derived.append(name)
        self._roles[name] = made
        return made

    def add_head(self, name: str, who: str, make: Callable[[int], nn.Module], role: str, reads: Side) -> None:
        self._only_in_setup(f"head '{name}'", who)
        if name not in self.named(role, who).heads:
            self.makers[role, name] = who
        self.named(role, who).add_head(name, make, reads, (*self._seed, role))

    def add_parameter(self, name: str, who: str, start: Tensor, role: str, lr: float | None) -> nn.Parameter:
        self._only_in_setup(f"parameter '{name}'", who)
        owner = self.named(role, who)
        if name not in owner.own:
            own = start.detach().float().to(owner.device).clone(memory_format=torch.contiguous_format)
            owner.own[name] = nn.Parameter(own)
            self.askers[role, name] = who
            if lr is not None:
                owner.rates[name] = lr
        first, shape = self.askers.get((role, name), who), list(owner.own[name].shape)
        if first != who or shape != list(start.shape):
            raise PluginError(
                f"'{who}' asks for a parameter '{name}' of shape {list(start.shape)}, but '{first}' has one of shape {shape}",
                "give it another name in ctx.parameter",
            )
        return owner.own[name]

    def add_target(self, name: str, who: str, of: str, role: str) -> None:
        """A frozen copy of a head."""
        self._only_in_setup(f"target '{name}'", who)
        owner = self.named(role, who)
        if name not in owner.heads:
            copied = copy.deepcopy(owner.heads[of])
            for parameter in copied.parameters():
                parameter.requires_grad_(False)
            owner.heads[name] = copied

    @torch.no_grad()
    def polyak(self, name: str, who: str, of: str, share: float, role: str) -> None:
        """Move a target by `share` of the way to the head it follows."""
        owner = self.named(role, who)
        for slow, fast in zip(owner.heads[name].parameters(), owner.heads[of].parameters()):
            slow.lerp_(fast, share)

    def _only_in_setup(self, what: str, who: str) -> None:
        if not self.settling:
            raise PluginError(
                f"'{who}' makes {what} after the phase has begun", "make it in setup(ctx), before states are loaded"
            )

    # -- frozen roles

    def watch_frozen(self) -> dict[str, str]:
        """Hash the frozen roles, which are checked from now on. Returns role → hash."""
        self._hashes = {name: self._roles[name].hash() for name in self.derived}
        self._versions = {name: self._version(name) for name in self.derived}
        return dict(self._hashes)

    def check_frozen(self, phase: str, whole: bool) -> None:
        """Check that frozen roles have not changed since the phase began.

        whole: hash every role again. Otherwise a role is hashed only if torch counted a write into one of its tensors
        (`tensor._version`). That check is free but misses writes that torch does not count: through `tensor.data`, a
        NumPy view or a pointer. The hash at the phase's end finds these.
        """
        for name, expected in self._hashes.items():
            version = self._version(name)
            if not whole and version == self._versions[name]:
                continue
            if self._roles[name].hash() != expected:
                raise PluginError(
                    f"frozen role '{name}' changed during phase '{phase}': a plugin wrote into its weights",
                    "make the role without frozen=True, or do not write into it",
                )
            self._versions[name] = version

    def _version(self, name: str) -> int:
        return sum(tensor._version for tensor in self._roles[name].tensors().values())
