"""The contract kit: checks that a plug-in keeps what its base class promises, in seconds on a CPU.

from harness.testing import check_defense
def test_my_defense() -> None:
    check_defense(MyDefense(share=0.1))
"""

from harness.errors import Broken
from harness.testing.checks import CPU, check_attack, check_defense, check_registered, check_task, small_task

__all__ = ["CPU", "Broken", "check_attack", "check_defense", "check_registered", "check_task", "small_task"]
