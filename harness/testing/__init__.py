"""The contract kit: does a plug-in keep what its base class promises? Seconds on a CPU; a breach says what to change.

from harness.testing import check_defense
def test_my_defense() -> None:
    check_defense(MyDefense(share=0.1))
"""

from harness.errors import Broken
from harness.testing.checks import CPU, check_attack, check_defense, check_registered, check_task, small_task

__all__ = ["CPU", "Broken", "check_attack", "check_defense", "check_registered", "check_task", "small_task"]
