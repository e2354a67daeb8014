"""Ray: two nodes on this machine, one of them lost on the way; the table is that of local workers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, command, grid_file, invoke, table, tinydrop

from harness.store import records
from harness.store.folder import Store

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason='needs Ray: pip install "tinydrop[ray]"'),
    pytest.mark.xdist_group("ray"),
]
ARGUMENTS = ("--executor", "ray", "--device", "cpu")


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield nodes
    finally:
        nodes.shutdown()


def test_a_node_is_lost_and_the_table_is_that_of_local_workers(tmp_path: Path, cluster: Any) -> None:
    grid = grid_file(tmp_path, seeds=[0, 1, 2])
    assert invoke("run", grid, "--out", tmp_path / "local", "--jobs", 0).exit_code == 0
    lost = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    words = command("run", grid, "--out", tmp_path / "ray", *ARGUMENTS, "--address", cluster.address)
    driver = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE)
    store = Store(tmp_path / "ray")
    _wait_for(lambda: len(records.load_all(store)) >= 2)
    cluster.remove_node(lost, allow_graceful=False)
    assert len(records.load_all(store)) < 18, "the node must be lost while there is work"
    _, said = driver.communicate(timeout=300)
    assert driver.returncode == 0, said.decode()
    assert table(tmp_path / "ray").equals(table(tmp_path / "local"))
    assert len(list((tmp_path / "ray" / "records").iterdir())) == 18, "a cell was recorded twice"
    assert invoke("verify", tmp_path / "ray").exit_code == 0


def test_a_cell_that_kills_its_worker_costs_one_record(tmp_path: Path) -> None:
    plugin = tmp_path / "deadly.py"
    plugin.write_text(
        "import os, signal\n"
        "from defenses.base import Case, Defense\n"
        "from tasks.plugin import options\n"
        "from tasks.deployed import Model\n"
        "@options\n"
        "class Deadly(Defense):\n"
        '    """Ends its worker."""\n'
        "    def defend(self, case: Case) -> Model:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "        raise AssertionError\n"
    )
    grid = grid_file(tmp_path, doses=[4], defenses=["none", "deadly", "oracle"], seeds=[0])
    done = tinydrop("run", grid, "--out", tmp_path / "run", *ARGUMENTS, "--jobs", 1, "--plugin", plugin)
    assert done.returncode == 1, done.stderr
    ended = {r.label.split("/", 1)[1]: r for r in records.load_all(Store(tmp_path / "run")).values()}
    assert {label.split("/")[2]: r.status for label, r in ended.items()} == {
        "none": "done", "deadly": "failed", "oracle": "done",
    }  # fmt: skip
    assert len(ended) == 3
    assert all("worker process died" in r.reason for r in ended.values() if r.status == "failed")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--address", "127.0.0.1:1"), "--address 127.0.0.1:1: is for --executor ray"),
        (("--executor", "ray", "--address", "127.0.0.1:1"), "--address '127.0.0.1:1': no Ray answers"),
    ],
)
def test_what_cannot_be_reached_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = tinydrop("run", grid_file(tmp_path), "--out", tmp_path / "run", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def _wait_for(ready: Any) -> None:
    end = time.monotonic() + 300  # Ray starts slowly where the processors have other work
    while not ready():
        assert time.monotonic() < end, "nothing was recorded in five minutes"
        time.sleep(0.05)
