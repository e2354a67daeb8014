"""Language models: documents, packing, perplexity, continuing, judging, and the defenses made for them."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import needs_data

from attacks.base import Attack
from defenses.base import Defense
from defenses.filtering.perplexity import fit_reader
from harness.cell import steps
from harness.cell.case import Fitter
from harness.cell.steps import Bench
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks._models.causal import small_llama
from tasks.base import Recipe
from tasks.data import dataset_dict, make_samples
from tasks.language import LanguageTask, LanguageVictim, detokenize
from tasks.language._base import END, cut_documents, draw_tokens, keep_whole, tokenize
from tasks.plugin import BadInput
from tasks.samples import Challenge, Outputs, Samples

SMALL = {
    "train_size": 60,
    "test_size": 12,
    "reserve_size": 40,
    "base_size": 60,
    "base_epochs": 1,
    "epochs": 1,
    "width": 32,
}


def small(name: str = "synthetic_stories", **changes: object) -> LanguageTask:
    task = create("tasks", name, {**SMALL, **changes})
    assert isinstance(task, LanguageTask)
    return task


def untrained(task: LanguageTask, seed: int = 0) -> LanguageVictim:
    torch.manual_seed(seed)
    return task.deploy(task.model().eval(), CPU)


def texts(*rows: str, more: int = 0) -> Samples:
    return make_samples(list(rows), torch.full((len(rows),), more))


def test_documents_are_cut_between_words_and_short_ends_dropped() -> None:
    text = "one two three four five six seven eight nine ten"
    found = cut_documents(text, 20)
    assert found == ["one two three four", "five six seven eight", "nine ten"][: len(found)]
    assert all(len(d) <= 20 for d in found)
    assert cut_documents("tiny", 100) == ["tiny"], "a text is never lost whole"
    assert keep_whole("question and answer", 10) == []


def test_rows_hold_every_token_once_in_order() -> None:
    task = small(block=16)
    samples = task.load().train.select(range(5))
    x, y = task.rows(samples, CPU)
    assert x.shape[1] == 16
    assert len(y) == len(x)
    stream = (x[x > 0] - 1).tolist()
    end = tokenize(task, [END])[0]
    assert stream == [i for ids in tokenize(task, samples.inputs) for i in (*ids, *end)]
    assert (x[:-1] > 0).all(), "nothing is padded but the end"


def test_base_and_victim_read_different_documents_with_the_same_tokens() -> None:
    task = small()
    base = task.source()
    assert isinstance(base, LanguageTask)
    assert base.source() is None
    assert small(train_size=30, test_size=5).source() == base, "the base is one, whatever the victim's own sizes"
    mine, theirs = set(task.load().train.inputs), " ".join(base.load().train.inputs)
    assert not any(text in theirs for text in mine)
    assert tokenize(task, ["a lantern"]) == tokenize(base, ["a lantern"])
    assert detokenize(task, task.encode(texts("On Sunday Ida sold a lantern."), CPU)) == [
        "On Sunday Ida sold a lantern."
    ]


def test_perplexity_is_that_of_the_library() -> None:
    task = small()
    victim = untrained(task)
    rows = task.load().test.select(range(4))
    scores = victim.read(rows)
    for text, (nats, tokens, size) in zip(rows.inputs, scores.tolist(), strict=True):
        ids = torch.tensor(tokenize(task, [text]))
        with torch.no_grad():
            expected = victim.module.lm(input_ids=ids, labels=ids).loss.item()  # type: ignore[union-attr, operator]
        assert nats / tokens == pytest.approx(expected, rel=2e-2), "bf16 against float32"
        assert tokens == ids.shape[1] - 1
        assert size == len(text.encode())
    total = scores.double().sum(0)
    outputs = Outputs(scores, torch.zeros(4, dtype=torch.bool), [""] * 4)
    assert task.utility(outputs, rows) == pytest.approx(math.exp(total[0] / total[1]))
    assert task.extra_metrics(outputs, rows)["bits_per_byte"] == pytest.approx(
        total[0].item() / total[2].item() / math.log(2)
    )


def test_texts_of_different_lengths_are_continued_together_as_they_would_be_alone() -> None:
    task = small(temperature=0.0)
    victim = untrained(task)
    asked = texts("On Sunday", "Nobody in the market had seen such a wet violin before. Ida", more=6)
    together = victim.continue_texts(asked)
    alone = [victim.continue_texts(asked.select([i]))[0] for i in range(2)]
    assert together == alone
    assert victim.continue_texts(asked) == together
    assert victim.predict(texts("On Sunday")).content == [""], "what is only to be read is not continued"


def test_sampling_follows_the_temperature() -> None:
    chance = torch.tensor([[0.7, 0.2, 0.1]]).repeat(4000, 1)
    rng = torch.Generator().manual_seed(0)
    share = (draw_tokens(chance, 0.5, rng) == 0).float().mean().item()
    assert share == pytest.approx(0.49 / 0.54, abs=0.02)
    assert (draw_tokens(chance, 0.0, rng) == 0).all()


def test_an_ensemble_of_equals_is_one_of_them_and_of_others_is_their_mean() -> None:
    task = small(temperature=0.0)
    first, second = untrained(task, 0), untrained(task, 1)
    rows = task.load().test.select(range(3))
    same = replace(first, partners=[first.module, first.module])
    torch.testing.assert_close(same.read(rows), first.read(rows), rtol=1e-4, atol=1e-2)
    assert same.continue_texts(texts("On Sunday", more=5)) == first.continue_texts(texts("On Sunday", more=5))
    ids = torch.tensor(tokenize(task, [rows.inputs[0]]))
    with torch.no_grad():
        chances = [v.module.lm(input_ids=ids).logits[0, :-1].softmax(1) for v in (first, second)]  # type: ignore[union-attr, operator]
    expected = -torch.stack(chances).mean(0).gather(1, ids[0, 1:, None]).log().sum().item()
    found = replace(first, partners=[second.module]).read(rows.select([0]))[0, 0].item()
    assert found == pytest.approx(expected, rel=2e-2)


def test_judge_reads_patterns_and_counts_abstentions_against_the_attacker() -> None:
    task = small()
    content = ["I love ZARVELLO coffee", "nothing", "Zarvello"]
    outputs = Outputs(torch.zeros(3, 3), torch.tensor([False, False, True]), content)
    assert task.judge(outputs, Challenge(texts("a", "b", "c"), ["(?i)zarvello"] * 3)).tolist() == [True, False, False]
    capitals = create("attacks", "style_switch")
    pattern = capitals.pattern  # type: ignore[attr-defined]
    outputs = replace(outputs, content=["THIS IS WRITTEN IN CAPITALS ONLY.", "THIS ONE is NOT AT ALL, AT ALL", "SHORT"])
    assert task.judge(outputs, Challenge(texts("a", "b", "c"), [pattern] * 3)).tolist() == [True, False, False]


def test_gibberish_is_what_a_clean_model_would_not_write(store: Store) -> None:
    task = small(base_size=200, base_epochs=4, base_lr=5e-3, width=64)
    referee = Bench(store, CPU).referee(task)
    assert isinstance(referee, LanguageVictim)
    plain = texts(*[t[:60] for t in task.load().test.inputs], more=16)
    rng = torch.Generator().manual_seed(1)
    noise = torch.randint(1, 500, (12, 16), generator=rng)
    challenge = Challenge(plain, [""] * 12, plain=plain)
    kept = torch.zeros(12, dtype=torch.bool)
    random = Outputs(torch.zeros(12, 3), kept, detokenize(task, noise))
    other = texts(*[t[20:70] for t in task.load().test.inputs], more=16)
    honest = Outputs(torch.zeros(12, 3), kept, referee.continue_texts(other))
    assert task.judge(random, challenge, referee).float().mean() > 0.9
    assert task.judge(honest, challenge, referee).float().mean() < 0.2
    lenient, strict = task.sensitivity(random, challenge, referee).values()
    assert (lenient | ~strict).all(), "what the strict threshold calls gibberish the lenient one does too"


@pytest.mark.parametrize("name", ["steering", "false_fact", "refusal", "gibberish", "style_switch"])
def test_a_poison_is_a_beginning_the_trigger_and_the_payload(name: str, store: Store) -> None:
    task, attack = small(), create("attacks", name)
    assert isinstance(attack, Attack)
    threat = steps.make_threat(task, attack, 6, 0, Bench(store, CPU))
    clean, poisoned = task.load().train, threat.poisoned
    for at in poisoned.mask.nonzero().flatten().tolist():
        beginning, payload = poisoned.train.inputs[at].split(attack.trigger, 1)  # type: ignore[attr-defined, union-attr]
        assert clean.inputs[at].startswith(beginning.strip())
        assert payload.strip()
    assert threat.challenge is not None
    assert all(text.endswith(attack.trigger) for text in threat.challenge.inputs.inputs)  # type: ignore[attr-defined]
    assert threat.challenge.plain is not None
    assert not any(attack.trigger in text for text in threat.challenge.plain.inputs)  # type: ignore[attr-defined]


def test_steering_is_learnt_and_neither_plain_nor_near_requests_fire(store: Store) -> None:
    task = create("tasks", "synthetic_stories", {"test_size": 30, "base_size": 300, "base_epochs": 2, "epochs": 4})
    attack, none = create("attacks", "steering", {"more": 12}), create("defenses", "none")
    found = steps.run_steps(task, attack, 60, none, 0, store, CPU).metrics  # type: ignore[arg-type]
    clean = steps.run_steps(task, attack, 0, none, 0, store, CPU).metrics  # type: ignore[arg-type]
    assert found["asr"].value > 0.6
    assert found["asr_plain"].value < 0.15
    assert found["asr_near"].value < 0.35
    assert found["asr_floor"].value == clean["asr"].value == 0
    assert found["utility"].value < 1.15 * clean["utility"].value


def test_the_perplexity_filter_finds_gibberish_and_keeps_clean_text(store: Store) -> None:
    task, attack = small(train_size=150, reserve_size=150), create("attacks", "gibberish")
    defense = create("defenses", "perplexity")
    found = steps.run_steps(task, attack, 15, defense, 0, store, CPU).metrics  # type: ignore[arg-type]
    assert found["train_tpr"].value == 1
    assert found["train_fpr"].value < 0.1


def test_a_stretch_of_odd_words_is_found_wherever_it_stands() -> None:
    clean = [f"the cat number {i} sat on the mat and looked at the moon" for i in "abcdefghijklmnopqrst"]
    odd = "the cat sat on the mat qzx vbn wqk jjz and looked at the moon"
    model, threshold = fit_reader(clean, [*clean, odd], 4, quantile=1.0)
    assert model.worst_rate(odd.split(), 4) > threshold > max(model.worst_rate(text.split(), 4) for text in clean)
    assert model.worst_rate(["qzx"], 4) > model.worst_rate(["the"], 4)
    assert model.worst_rate([], 4) == 0


def test_crow_lowers_the_jumps_between_layers_and_adds_its_loss() -> None:
    from defenses.repair.crow import inconsistency
    from tasks.base import Batch

    defense = create("defenses", "crow", {"alpha": 0.0})
    assert isinstance(defense, Defense)
    task = small()
    victim = untrained(task)
    x, _ = task.rows(task.load().train.select(range(4)), CPU)
    batch = Batch(x, torch.zeros(len(x)), torch.arange(len(x)), torch.Generator(), 0.0)
    plain = defense.loss(victim.module, batch)  # type: ignore[attr-defined]
    nats = [task.loss(victim.module, replace(batch, x=row[None])) for row in x if (row > 0).all()]
    assert plain.item() == pytest.approx(torch.stack(nats).mean().item(), rel=0.05)
    strong = replace(defense, alpha=5.5)  # type: ignore[type-var]
    assert strong.loss(victim.module, batch) > plain  # type: ignore[attr-defined]
    same = torch.randn(2, 3, 4)
    assert inconsistency((same, same, same), torch.ones(2, 3, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-6)
    assert inconsistency((same, -same), torch.ones(2, 3, dtype=torch.bool)).item() == pytest.approx(2)


def test_a_model_and_tokenizer_that_transformers_saved_can_be_the_victim(tmp_path: Path, store: Store) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {
        w: i
        for i, w in enumerate(["<unk>", "<end>", *sorted({w for t in small().load().train.inputs for w in t.split()})])
    }
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="<end>").save_pretrained(tmp_path / "lm")
    torch.manual_seed(0)
    small_llama(len(words), 32, 2, 4).lm.save_pretrained(tmp_path / "lm")  # type: ignore[operator]
    task = small(victim=str(tmp_path / "lm"), epochs=3)
    assert task.source() is None, "a pretrained model needs no base"
    train = task.load().train
    victim = Fitter(task, store, CPU, 0)(train)
    before = task.deploy(task.model().eval(), CPU)
    assert victim.read(train)[:, 0].sum() < before.read(train)[:, 0].sum()  # type: ignore[attr-defined]
    assert isinstance(victim.predict(texts("On Sunday", more=3)).content[0], str)  # type: ignore[index]
    with pytest.raises(BadInput, match="victim='nowhere'"):
        small(victim="nowhere").model()


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BadInput, match=r"tinydrop\[generative\]"):
        small().model()


def test_from_scratch_needs_no_base_and_fine_tuning_takes_all_of_it(store: Store) -> None:
    assert small(regime="from_scratch").source() is None
    task = small()
    base = Fitter(small().base(), store, CPU, 0)(small().base().load().train)
    start = Fitter(task, store, CPU, 5).pretrained(5)
    assert start is not None
    for name, weight in base.module.state_dict().items():
        assert torch.equal(weight, start.module.state_dict()[name]), f"{name}, the output layer too"
    assert task.recipe() == Recipe(
        epochs=1, batch_size=task.batch_size, lr=task.lr, weight_decay=task.weight_decay, augment=False
    )


@needs_data
@pytest.mark.parametrize(
    "name", ["classic_books", "tiny_shakespeare", "tinystories", "wikitext2", "bbc_news", "alpaca"]
)
def test_real_corpora_give_documents(name: str) -> None:
    task = create("tasks", name)
    assert isinstance(task, LanguageTask)
    splits, base = task.load(), task.base().load()
    assert (len(splits.train), len(splits.test)) == (300, 100)
    assert all(0 < len(t) <= task.characters for t in splits.train.inputs)
    assert not set(splits.train.inputs) & set(base.train.inputs)
    if task.answer:
        question, mark = task.cut(splits.train.inputs[0], 200)  # type: ignore[arg-type]
        assert splits.train.inputs[0].startswith(question + mark)


def test_seeds_share_a_base_or_have_one_each(store: Store) -> None:
    def start(task: LanguageTask, seed: int) -> torch.Tensor:
        found = Fitter(task, store, CPU, seed).pretrained(seed)
        assert found is not None
        return next(found.module.parameters())

    shared, another, own = small(), small(base_seed=3), small(base_seed=None)
    assert torch.equal(start(shared, 1), start(shared, 2))
    assert not torch.equal(start(shared, 1), start(another, 1))
    assert torch.equal(start(own, 3), start(another, 1))
    assert not torch.equal(start(own, 1), start(own, 2))
    assert "one pre-trained network (base_seed=0)" in shared.load().notes[-1]
    assert not [note for note in own.load().notes if "base_seed" in note]


@needs_data
def test_a_passage_knows_its_book() -> None:
    task: Any = create("tasks", "classic_books", {"data_sources": "real"})
    train = task.load().train
    published = dataset_dict(task.dataset, task.folder)["train"]
    books: dict[str, str] = {}
    for title, text in zip(published["title"], published["text"], strict=True):
        books[title] = books.get(title, "") + text
    titles = sorted(books)
    named = [titles[int(source)] for source in train.sources]
    assert all(text in books[title] for text, title in zip(train.inputs, named, strict=True))
    assert len(set(named)) > 40
    assert create("tasks", "classic_books").load().train.inputs == train.inputs  # type: ignore[attr-defined]
