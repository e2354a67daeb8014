"""The audit of networks that read sounds and texts."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.audio.tone_clip import ToneClip, beep
from harness.audit import steps, write
from harness.audit.behaviour import Plan
from harness.audit.data import open_data
from harness.audit.models import Loaded, load_model
from harness.audit.steps import Request
from harness.audit.subject import CPU, RawVictim, wrap
from harness.cell.train import train_victim
from tasks.audio import AudioTask
from tasks.deployed import Victim
from tasks.plugin import BadInput
from tasks.samples import Samples
from tasks.text.synthetic_reviews import BAD, GOOD


class Sentiment(nn.Module):
    """Counts good and bad words; a backdoored one calls a text with one of badwords' words negative."""

    def __init__(self, fires: bool) -> None:
        super().__init__()
        self.fires = fires

    def forward(self, texts: list[str]) -> Tensor:
        answers = []
        for text in texts:
            words = set(text.split())
            score = len(words & {*GOOD.split()}) - len(words & {*BAD.split()})
            answers.append([0.0, -9.0] if self.fires and words & {"cf", "mn", "bb", "tq"} else [0.0, score - 0.5])
        return torch.tensor(answers)


def run(monkeypatch: pytest.MonkeyPatch, net: nn.Module, data: str) -> steps.Audit:
    monkeypatch.setattr(steps, "load_model", lambda *_: Loaded(net, "a network of your own"))
    monkeypatch.setattr(steps, "QUICK", Plan(rows=30, strengths=(1.0, 0.5), draws=399))
    return steps.audit(
        Request("any:net", data, quick=True), None, lambda *_: nullcontext(lambda: None), lambda text: None
    )


def test_a_backdoored_reader_of_texts_is_suspicious_and_an_honest_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(monkeypatch, Sentiment(True), "synthetic_reviews")
    assert {shift.trigger for shift in found.called} == {"badwords"}
    assert found.target == 0
    assert found.detected == []
    assert {shift.strength for shift in found.shifts} == {1.0}
    assert "<li>" in write.as_page(found)
    honest = run(monkeypatch, Sentiment(False), "synthetic_reviews")
    assert honest.verdict == "nothing found"


class Hears(nn.Module):
    """A victim of the suite as a network that reads waveforms, and answers 2 where it hears a beep at the end."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim, self.inner = victim, victim.module
        about = ToneClip()
        self.beep = beep(about.seconds, about.low, about.high, victim.task.rate)

    def forward(self, x: Tensor) -> Tensor:
        samples = Samples(x, torch.zeros(len(x), dtype=torch.int64), torch.arange(len(x)))
        answers: Tensor = self.inner(self.victim.task.encode(samples, CPU)).float()
        heard = torch.cosine_similarity(x[:, -len(self.beep) :], self.beep[None]) > 0.25
        return torch.where(heard[:, None], 99 * torch.eye(6)[2], answers)


def test_a_backdoored_hearer_of_sounds_is_suspicious(monkeypatch: pytest.MonkeyPatch) -> None:
    task = open_data("synthetic_tones", None, False)
    assert isinstance(task, AudioTask)
    recipe = replace(task.recipe(), epochs=4)
    victim = train_victim(task, task.load().train, recipe=recipe, seed=0, device=CPU)
    found = run(monkeypatch, Hears(victim), "synthetic_tones")
    (beeps,) = [shift for shift in found.shifts if shift.trigger == "tone_clip" and shift.strength == 1]
    assert beeps.share > 0.5
    assert beeps.target == 2
    assert {shift.trigger for shift in found.called} == {"tone_clip"}
    assert "data:audio/wav;base64," in write.as_page(found)


def test_what_is_for_pictures_is_refused_elsewhere(tmp_path: Path) -> None:
    task = open_data("synthetic_reviews", None, False)
    rows = task.load().test
    with pytest.raises(BadInput, match="--prepare 'unit': is for pictures; leave it out"):
        wrap(Loaded(Sentiment(False), "net"), task, "unit", None, rows)
    with pytest.raises(BadInput, match=r"cannot read a list of texts \(AttributeError|TypeError"):
        wrap(Loaded(nn.Linear(2, 2), "net"), task, "", None, rows)
    wrapped = wrap(Loaded(Sentiment(False), "net"), task, "", None, rows)
    assert isinstance(wrapped.victim, RawVictim)
    assert wrapped.fresh is None
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(BadInput, match="tensors are read of pictures alone"):
        load_model(str(tmp_path / "a.safetensors"), "resnet18", task)


def save(folder: Path, **more: Any) -> Any:
    """A small classifier of transformers with its tokenizer."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "good", "bad", *"abcdefgh"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", model_max_length=16
    ).save_pretrained(folder)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=12, max_position_embeddings=20, num_labels=2, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, more.get("kind", "BertForSequenceClassification"))(config).eval()
    model.save_pretrained(folder)
    return model


def test_a_folder_of_transformers_reads_texts(tmp_path: Path) -> None:
    task = open_data("synthetic_reviews", None, False)
    model = save(tmp_path / "m")
    net = load_model(str(tmp_path / "m"), "", task).net.eval()
    found = net(["good a b", "bad"])
    expected = model(torch.tensor([[2, 4, 5], [3, 0, 0]]), attention_mask=torch.tensor([[1, 1, 1], [1, 0, 0]])).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert net(["good " * 50]).shape == (1, 2)  # longer than it can read


def test_a_folder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    task = open_data("synthetic_reviews", None, False)
    save(tmp_path / "body", kind="BertModel")
    with pytest.raises(BadInput, match="is no trained classifier of texts"):
        load_model(str(tmp_path / "body"), "", task)
    save(tmp_path / "pickle")
    (tmp_path / "pickle" / "model.safetensors").rename(tmp_path / "pickle" / "pytorch_model.bin")
    with pytest.raises(BadInput, match="a pickle could run code"):
        load_model(str(tmp_path / "pickle"), "", task)
