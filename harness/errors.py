"""Every error that a user or a plug-in author sees. Each has one line: what, where, which value, and the way out.

Refused                    the command line prints the line and ends with 2
├── BadGrid                a grid, or an option of a command, that cannot be run
├── UnknownName            a name that is not in the registry
├── BadPlugin              a plug-in that cannot be used
├── DamagedPlan            a run's plan.json
├── NewerSchema            a store of a newer version
├── BrokenLedger           a chain of hashes that does not hold
├── NoRay                  no Ray, or no cluster
├── BadSubmission          an archive or a published table
├── NotASite               a folder that holds something else
├── MissingExtra           a library that is not installed
└── Unreachable            a storage that does not answer (an OSError, too)
Broken                     what `tinydrop check` found: a plug-in breaks its contract
BrokenAttack               an attack breaks its contract while a grid runs: its cell is recorded as failed
BrokenDefense              the same of a defense
BrokenTask                 the same of a task: its judge, its measure or its victim
Diverged                   a training whose loss or victim gives no number: its cell is recorded as failed

What a task, attack or defense raises itself is `tasks.plugin.BadInput` or `NotApplicable`.
"""

from __future__ import annotations


class Refused(Exception):
    """Something that cannot be done as asked."""


class BadGrid(Refused, ValueError):
    """A grid that cannot be run: the field, the value and what is valid."""


class UnknownName(Refused, ValueError):
    """A plug-in name that is not in the registry, with the nearest one that is."""


class BadPlugin(Refused, ValueError):
    """A plug-in that cannot be used: where it is from and the reason."""


class DamagedPlan(Refused, ValueError):
    """plan.json is there and cannot be read."""


class NewerSchema(Refused, RuntimeError):
    """The store was written by a newer tinydrop."""


class BrokenLedger(Refused, ValueError):
    """The chain of hashes does not hold: the line at which it breaks, and how."""


class NoRay(Refused, RuntimeError):
    """Ray is not installed, or no cluster answers at the address."""


class BadSubmission(Refused, ValueError):
    """An archive, or a published table, that is refused: its name and the first reason."""


class BadEvidence(Refused, ValueError):
    """A run, an audit or a vetting that cannot be certified: its name, the field and why."""


class NotASite(Refused, ValueError):
    """The folder to write holds something else."""


class MissingExtra(Refused, ImportError):
    """A library of an extra is not installed; the message names the extra."""


class Unreachable(Refused, OSError):
    """The storage does not answer, or refuses: no fault of the cell. The URL and why."""


class Broken(AssertionError):
    """A plug-in breaks its contract: what is wrong and what to change."""


class BrokenAttack(RuntimeError):
    """An attack returned something its contract forbids."""


class BrokenDefense(RuntimeError):
    """A defense did what its contract forbids."""


class BrokenTask(RuntimeError):
    """A task's judge, measure or victim returned something its contract forbids."""


class Diverged(RuntimeError):
    """The training loss, or what the trained victim answers, became NaN or infinite."""
