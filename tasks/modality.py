"""What the project needs to know of a modality, said once, by the base class of its tasks."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor


class Modality:
    """The facts about one kind of data. The base class of a folder under tasks/ states them for all its tasks.

    The defaults suit data of which nothing is known, so a task of a new modality needs only a name for it.
    """

    modality: ClassVar[str] = ""  # its name, which attacks and defenses list in `modalities`
    medium: ClassVar[str] = ""  # what a row is: "image", "audio", "text", "tabular", or "" for anything else
    raw_format: ClassVar[str] = "inputs of any kind"  # raw inputs in words, for error messages
    example: ClassVar[str] = ""  # an embedded task on which plug-ins are checked; "" checks them on none
    plain_attack: ClassVar[str] = ""  # an attack under which defenses are checked; "" checks them under none
    hue: ClassVar[str] = "#000000"  # its colour in figures

    def is_raw(self, inputs: Tensor | list[str]) -> bool:
        """Whether inputs have the raw format."""
        return True

    def quantise(self, inputs: Tensor) -> Tensor:
        """Raw inputs rounded to the values that clean data takes, where these are coarser than the type can hold."""
        return inputs

    def show(self, inputs: Tensor | list[str]) -> Tensor | list[str] | None:
        """Inputs as images uint8 (N, C, H, W), sounds float32 (N, T) or texts, for people; None shows nothing."""
        return None

    def fidelity(
        self, clean: Tensor | list[str], poison: Tensor | list[str], reference: Tensor | list[str]
    ) -> dict[str, Tensor]:
        """(N,) per metric: how far each poisoned input is from the clean one that it replaced.

        reference: other clean inputs. A cell records the mean of a metric, and under `x` the geometric mean of what
        is called `log_x`.
        """
        return {}
