"""Repair, inspection and screening of victims: fine-pruning, attention distillation, Neural Cleanse, STRIP."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from columns import Column
from helpers import needs_data

from defenses.inspection.neural_cleanse import NeuralCleanse, anomaly
from defenses.repair.fine_pruning import FinePruning, choose_features, dormant_first, prune
from defenses.repair.fine_tuning import FineTuning
from defenses.repair.nad import Nad, attention, run_stages
from defenses.screening.strip import Strip, by_tfidf, replace_words, superimpose
from harness.plugins.registry import create
from tasks.base import Batch
from tasks.image.digits import Digits


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Column:
    """20 poisons of 1237 digits: the backdoor works on nearly everything."""
    column = Column(tmp_path_factory.mktemp("few"), Digits(), dose=20)
    assert column.asr(column.case.fit(column.train)) > 0.9
    return column


@pytest.fixture(scope="module")
def strong(tmp_path_factory):
    """200 poisons and no augmentation, so that the trigger is learnt where it stands; cached by seed."""

    @cache
    def make(seed: int) -> Column:
        return Column(tmp_path_factory.mktemp("strong"), Digits(augmentation="none"), dose=200, seed=seed)

    return make


@pytest.mark.parametrize("defense", [FineTuning(), FinePruning(), Nad()], ids=lambda d: d.name)
def test_repair_lowers_attack_success_and_keeps_most_of_the_accuracy(few, defense):
    victim, repaired = few.case.fit(few.train), defense.defend(few.case)
    assert few.asr(repaired) < 0.5 * few.asr(victim)
    assert few.accuracy(repaired) > few.accuracy(victim) - 0.1


def test_fine_pruning_prunes_dormant_features_first_and_stops_in_time():
    head = torch.nn.Linear(4, 2, bias=False)
    head.weight.data = torch.tensor([[0.0, 0, 0, 2], [0, 0, 2, 0]])  # features 2 and 3 decide, 0 and 1 are idle
    features = torch.tensor([[0.1, 0.0, 1.0, 0.0], [0.1, 0.0, 0.0, 5.0]]).repeat(5, 1)
    targets = torch.tensor([1, 0]).repeat(5)  # without features the head answers 0
    order = dormant_first(features)
    assert order.tolist() == [1, 0, 2, 3]

    def measure(keep: torch.Tensor) -> float:
        return float((head(features * keep).argmax(1) == targets).float().mean())

    assert choose_features(measure, order, tolerance=0.1).tolist() == [0, 0, 1, 1]
    assert choose_features(measure, order, tolerance=0.0).tolist() == [0, 0, 1, 1]
    assert choose_features(measure, order, tolerance=1.0).tolist() == [0, 0, 0, 1], "one is always left"
    assert dormant_first(-features).tolist() == [1, 0, 2, 3], "a strongly negative feature is not dormant"


def test_pruned_features_are_zero_and_stay_so_through_fine_tuning(few):
    case = few.case
    victim, clean = case.fit(few.train), case.clean(200)
    prune(victim, clean, tolerance=0.1)
    gone = victim.module.keep == 0
    assert 0 < gone.sum() < len(gone)
    assert victim.features(few.test)[:, gone].abs().max() == 0
    tuned = FinePruning(epochs=2).defend(case)
    assert torch.equal(tuned.module.keep, victim.module.keep), "the mask survives"
    assert tuned.features(few.test)[:, gone].abs().max() == 0
    assert not torch.equal(tuned.module.head.weight, victim.module.head.weight), "but the weights were trained"
    assert few.case.fit(few.train).module.keep.min() == 1, "the shared victim is untouched"


@pytest.mark.parametrize(("shape", "channels"), [((3, 5, 4, 2), 1), ((3, 7, 5), 2)], ids=["image", "text"])
def test_attention_map_equals_numpy(shape, channels):
    h = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for power in (1.0, 2.0):
        maps = (np.abs(h.numpy()) ** power).mean(channels).reshape(shape[0], -1)
        expected = maps / np.linalg.norm(maps, axis=1, keepdims=True)
        np.testing.assert_allclose(attention(h, power).numpy(), expected, rtol=1e-5)


def test_distillation_loss_is_cross_entropy_where_student_and_teacher_agree(few):
    victim = few.case.fit(few.train)
    other = few.case.fit(few.reserve, init=victim, epochs=1)
    rows = few.test.select(range(16))
    batch = Batch(rows.inputs, rows.targets, torch.arange(16), torch.Generator(), 0.0)
    ce = torch.nn.functional.cross_entropy(victim.module(batch.x), batch.y)
    assert torch.allclose(Nad().loss(victim.module, batch, teacher=victim), ce)
    maps, _ = run_stages(victim.module, batch.x)
    wanted, _ = run_stages(other.module, batch.x)
    apart = sum((attention(a, 2) - attention(b, 2)).square().mean() for a, b in zip(maps, wanted))
    assert torch.allclose(Nad(beta=7).loss(victim.module, batch, teacher=other), ce + 7 * apart)
    assert not victim.module.stages[0]._forward_hooks, "hooks are taken off again"


def test_neural_cleanse_finds_the_patch_and_unlearns_it(strong):
    # Over 8x8 pixels the index varies by victim (1.4 to 2.4; 2 is the paper's threshold), so three are averaged.
    indices = []
    for seed in range(3):
        column = strong(seed)
        case = column.case
        starts = 2 if seed == 0 else 1  # of two searches the smaller trigger counts; one finds this patch as well
        model = NeuralCleanse(outlier=1.0, starts=starts).defend(case)  # mends also where the index says "clean"
        mask = case.findings.saved["mask"][0]
        assert case.findings.target == 0
        patch = mask[3:, 3:].sum()  # it covers rows and columns 4 to 6
        assert patch / 25 > 2 * (mask.sum() - patch) / 39
        assert column.asr(model) < 0.2 < 0.9 < column.asr(case.fit(column.train))
        for picture in case.findings.saved.values():
            assert picture.min() >= 0
            assert picture.max() <= 1
        indices.append(case.findings.model)
    assert np.mean(indices) > 1.5


def test_anomaly_index_equals_numpy():
    norms = np.array([9.0, 11.0, 10.0, 1.5, 10.5, 12.0])
    spread = np.median(np.abs(norms - np.median(norms)))
    index, target = anomaly(torch.from_numpy(norms))
    assert index == pytest.approx((np.median(norms) - 1.5) / (1.4826 * spread))
    assert target == 3
    assert anomaly(torch.tensor([9.0, 11.0, 10.0, 10.5, 12.0, 30.0]))[0] < 2, "a large norm is no backdoor"


def test_strip_tells_stamped_digits_from_clean_ones(strong):
    # Over 8x8 pixels single victims vary (0.77 to 0.96), so three of them are averaged.
    assert np.mean([strong(seed).auroc(Strip().defend(strong(seed).case)) for seed in range(3)]) > 0.8


@needs_data
def test_strip_stops_nearly_everything_on_fashion_mnist(tmp_path):
    task = create("tasks", "fashion_mnist", {"train_size": 1000, "test_size": 300, "epochs": 6})
    column = Column(tmp_path, task, dose=100)
    screened = Strip().defend(column.case)
    assert column.asr(column.case.fit(column.train)) > 0.9
    assert column.auroc(screened) > 0.95
    assert column.asr(screened) < 0.2


def test_strip_answers_the_same_whenever_and_with_whomever_it_is_asked(few):
    model, part = Strip().defend(few.case), few.test.select([5, 3])
    first = model.predict(few.test)
    assert torch.equal(first.suspicion, model.predict(few.test).suspicion)
    torch.testing.assert_close(model.predict(part).suspicion, first.suspicion[[5, 3]], atol=2e-2, rtol=0)  # bfloat16
    again = Strip().defend(few.case)
    assert again.threshold == model.threshold
    assert torch.equal(again.predict(part).suspicion, model.predict(part).suspicion)


def test_strip_refuses_about_the_wanted_share_of_clean_inputs(few):
    refused = Strip(false_rejection=0.2).defend(few.case).predict(few.test).abstained.float().mean()
    assert 0.1 < refused < 0.3


def test_superimpose_clips_instead_of_wrapping_around():
    image, overlay = torch.tensor([[200, 10]], dtype=torch.uint8), torch.tensor([200, 11], dtype=torch.uint8)
    assert superimpose(image, overlay, 0.5).tolist() == [[255, 16]]
    assert superimpose(torch.tensor([[0.9, -0.9]]), torch.tensor([0.5, -0.5]), 1.0).tolist() == [[1.0, -1.0]]


def test_words_are_replaced_at_places_that_the_text_alone_determines():
    text = " ".join(f"word{i}" for i in range(20))
    out = replace_words(text, ["new", "old"], 0.5, "seed")
    assert out == replace_words(text, ["new", "old"], 0.5, "seed") != replace_words(text, ["new", "old"], 0.5, "other")
    assert sum(word in ("new", "old") for word in out.split()) == 10
    assert sum(a == b for a, b in zip(out.split(), text.split())) == 10
    assert replace_words("", ["new"], 0.5, "seed") == ""
    assert replace_words(text, [], 0.5, "seed") == text


def test_tfidf_ranks_words_as_scikit_learn_does():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["the cat the cat sat", "the dog sat", "a bird and the dog dog dog"]
    vectors = TfidfVectorizer(norm=None, token_pattern=r"\S+").fit(texts)
    weights, names = vectors.transform(texts).toarray(), vectors.get_feature_names_out().tolist()
    for row, words in zip(weights, by_tfidf(texts)):
        ranked = [row[names.index(word)] for word in words]
        assert ranked == sorted(ranked, reverse=True)
        assert len(words) == (row > 0).sum()
