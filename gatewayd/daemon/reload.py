"""A reload: what changed, whether it may change while running, and all of it or nothing.

A new configuration that is bad leaves the old one in force. So does a good one that changes a single key which needs a
restart: it is refused whole, with the name of that key, because a daemon that runs half of a file is worse than one
that runs an old file. When applying fails in the middle, the old configuration is applied again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gatewayd.daemon.config import Applies, Config, Setting, settings
from gatewayd.errors import ConfigError, ConfigProblem, GatewaydError


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose value differs."""

    setting: Setting
    before: object
    after: object

    def __str__(self) -> str:
        return f"{self.setting.path}: {self._shown(self.before)} becomes {self._shown(self.after)}"

    def _shown(self, value: object) -> str:
        return "unset" if value is None else self.setting.kind.show(value)


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """What a reload did: the changes in force now, or the problems that kept the old configuration."""

    applied: tuple[Change, ...] = ()
    problems: tuple[ConfigProblem, ...] = ()

    @property
    def succeeded(self) -> bool:
        return not self.problems


class Reloader:
    """Holds the configuration in force."""

    __slots__ = ("_apply", "_load", "config")

    def __init__(
        self, config: Config, load: Callable[[], Config], apply: Callable[[Config, tuple[Change, ...]], None]
    ) -> None:
        """`load` reads and checks the file anew (ConfigError when it is bad). `apply` puts changes in force."""
        self.config = config
        self._load = load
        self._apply = apply

    def reload(self) -> ReloadOutcome:
        """Read the file anew and put in force what may change. Never raises for what the operator wrote."""
        try:
            new = self._load()
            applied = tuning_changes(self.config, new)
        except ConfigError as error:
            return ReloadOutcome(problems=error.problems)
        if not applied:
            return ReloadOutcome()
        try:
            self._apply(new, applied)
        except (GatewaydError, OSError, ValueError) as error:
            self._apply(self.config, tuple(Change(one.setting, one.after, one.before) for one in applied))
            return ReloadOutcome(problems=(ConfigProblem("reload", f"could not be applied: {error}"),))
        self.config = new
        return ReloadOutcome(applied=applied)


def tuning_changes(old: Config, new: Config) -> tuple[Change, ...]:
    """What a reload from `old` to `new` changes; ConfigError naming each key that needs a restart."""
    changes = changes_between(old, new)
    refused = [change for change in changes if change.setting.applies is Applies.RESTART]
    if refused:
        raise ConfigError(
            tuple(
                ConfigProblem(
                    change.setting.path, f"needs a restart ({change}); nothing of this reload is applied"
                )
                for change in refused
            )
        )
    return changes


def changes_between(old: Config, new: Config) -> tuple[Change, ...]:
    """Every key whose value differs, in the order of the file."""
    pairs = ((setting, setting.value_in(old), setting.value_in(new)) for setting in settings())
    return tuple(Change(setting, before, after) for setting, before, after in pairs if before != after)
