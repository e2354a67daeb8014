"""Filters of the training set, and ONION at test time: what they find, what they must leave alone, what they cost."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from attacks.image.badnets import Badnets
from defenses.filtering import activation_clustering, frequency, onion, outlier, spectral_signatures
from defenses.screening.onion_input import purify
from harness.cell import steps
from harness.cell.case import Fitter
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.data import make_samples
from tasks.fluency import CHARACTERS, END, START, CausalLM, Spelling, WordBigrams
from tasks.plugin import BadInput
from tasks.samples import Samples


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_groups(many: int, few: int, distance: float = 12.0) -> Tensor:
    """(many + few, 16) features: noise, the last `few` shifted along one direction."""
    x = torch.randn(many + few, 16, generator=rng())
    x[many:, 3] += distance
    return x


# Activation clustering


@pytest.mark.parametrize("reduction", ["ica", "pca"])
def test_clustering_flags_a_small_group_and_spares_an_even_split(reduction: str) -> None:
    small = activation_clustering.reduce(two_groups(90, 10), 10, reduction)
    found = activation_clustering.outside_share(small, 0)
    assert small.shape == (100, 10)
    assert torch.equal(found > 0.65, torch.arange(100) >= 90)
    even = activation_clustering.reduce(two_groups(50, 50), 10, reduction)
    assert not (activation_clustering.outside_share(even, 0) > 0.65).any()


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("constant", [True, False])
def test_clustering_and_spectra_of_tiny_and_constant_classes(n: int, constant: bool) -> None:
    x = torch.ones(n, 16) if constant else torch.randn(n, 16, generator=rng())
    share = activation_clustering.outside_share(activation_clustering.reduce(x, 10), 0)
    assert share.shape == (n,)
    assert torch.isfinite(share).all()
    assert torch.isfinite(spectral_signatures.outlier_scores(x)).all()


def test_whitening_gives_k_means_the_distances_and_so_the_clusters_of_fast_ica(store: Store) -> None:
    task = create("tasks", "digits", {"train_size": 400, "epochs": 2})
    train = task.load().train  # type: ignore[attr-defined]
    features = Fitter(task, store, CPU, 0)(train).features(train)  # type: ignore[arg-type]
    sizes = set()
    for c in range(10):
        rows = features[train.targets == c]
        white = activation_clustering.reduce(rows, 10)
        # Stopped after a few steps: also before it has converged, what it finds is only turned.
        ica = FastICA(10, whiten="unit-variance", max_iter=5, random_state=c)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            independent = torch.from_numpy(ica.fit_transform(rows.double().numpy())).float()
        assert not torch.allclose(white.abs(), independent.abs(), atol=0.1), "other axes"
        apart, expected = (torch.cdist(x.double(), x.double()) for x in (white, independent))
        torch.testing.assert_close(apart, expected, atol=1e-5, rtol=0)
        share = activation_clustering.outside_share(white, c)
        assert torch.equal(share, activation_clustering.outside_share(independent, c))
        sizes.add(round(share.max().item(), 3))
    assert len(sizes) > 1, "clusters of several sizes"


def test_components_beyond_the_rank_are_left_out() -> None:
    x = two_groups(5, 0)
    assert activation_clustering.reduce(x, 10).shape == (5, 4), "the mean takes one dimension"
    x = two_groups(90, 10)
    x[:, 4:] = x[:, :1]
    white = activation_clustering.reduce(x, 10)
    assert white.shape == (100, 4)
    torch.testing.assert_close(white.T.cov(correction=0), torch.eye(4))


# Spectral signatures


def test_spectral_scores_single_out_the_shifted_rows() -> None:
    x = two_groups(90, 10)
    before = x.clone()
    assert set(spectral_signatures.outlier_scores(x).topk(10).indices.tolist()) == set(range(90, 100))
    assert torch.equal(x, before)


@pytest.mark.parametrize(("rate", "dropped"), [(0.0, 0), (0.05, 3), (0.1, 6), (1.0, 39)])
def test_spectral_signatures_drop_the_guess_in_every_class(rate: float, dropped: int, store: Store) -> None:
    task = create("tasks", "digits", {"train_size": 400, "epochs": 1})
    defense = create("defenses", "spectral_signatures", {"expected_rate": rate})
    result = steps.run_steps(task, create("attacks", "none"), 0, defense, 0, store, CPU)  # type: ignore[arg-type]
    flagged, targets = result.findings.flagged, task.load().train.targets  # type: ignore[attr-defined]
    assert flagged is not None
    assert targets[flagged].bincount(minlength=10).tolist() == [dropped] * 10


# Outliers


def planted(kind: str) -> Samples:
    """300 ordinary rows of two classes, and one odd row at position 7."""
    g = rng()
    targets = torch.arange(300) % 2
    if kind == "image":
        inputs: Any = torch.randint(60, 120, (300, 3, 12, 12), generator=g).to(torch.uint8)
        inputs[7] = Badnets(size=6).stamp(None, inputs[7:8], g)[0]  # type: ignore[arg-type]
    elif kind == "audio":
        inputs = 0.1 * torch.randn(300, 2000, generator=g)
        inputs[7, 500:800] += 0.5 * torch.sin(torch.arange(300) * 0.9)
    elif kind == "tabular":
        inputs = torch.cat([torch.rand(300, 5, generator=g), torch.zeros(300, 2)], 1)
        inputs[7, 5:] = 1  # columns that no other row uses
    else:
        words = ["a", "film", "with", "some", "good", "and", "bad", "parts", "that", "people", "like", "to", "see"]
        draws = torch.randint(len(words), (300, 8), generator=g).tolist()
        inputs = [" ".join(words[i] for i in row) for row in draws]
        inputs[7] = inputs[7].replace("a", "\u0430").replace("o", "\u043e")
    return make_samples(inputs, targets)


@pytest.mark.parametrize("method", ["robust_z", "isolation_forest", "mahalanobis"])
@pytest.mark.parametrize("kind", ["image", "text", "audio", "tabular"])
def test_outlier_finds_the_odd_row(kind: str, method: str) -> None:
    samples = planted(kind)
    before = samples.fingerprint
    found = outlier.suspicion(samples, kind, method)
    assert found.argmax() == 7
    assert torch.equal(found, outlier.suspicion(samples, kind, method))
    assert Samples(samples.inputs, samples.targets, samples.ids).fingerprint == before


@pytest.mark.parametrize("method", ["robust_z", "isolation_forest", "mahalanobis"])
def test_outlier_statistics_stay_finite(method: str) -> None:
    inputs = {
        "text": ["", " ", "word", "\ud800"], "image": torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
        "audio": torch.zeros(4, 100), "tabular": torch.zeros(4, 6),
    }  # fmt: skip
    for kind, raw in inputs.items():
        samples = make_samples(raw, torch.zeros(4, dtype=torch.long))
        assert torch.isfinite(outlier.suspicion(samples, kind, method)).all()


def test_robust_z_is_the_modified_z_score() -> None:
    z = outlier.robust_z(torch.tensor([[1.0], [2.0], [3.0], [4.0], [100.0]]))  # median 3, MAD 1
    assert torch.allclose(z[:, 0], torch.tensor([-2, -1, 0, 1, 97]) / 1.4826)


# Frequency artefacts


def test_spectrum_keeps_energy_and_puts_a_flat_image_in_one_coefficient() -> None:
    x = torch.randint(256, (3, 2, 9, 8), generator=rng()).to(torch.uint8)
    assert torch.allclose(frequency.spectrum(x).square().sum(), x.float().square().sum(), rtol=1e-4)
    flat = frequency.spectrum(torch.full((1, 1, 8, 8), 10, dtype=torch.uint8))[0, 0]
    assert flat[0, 0] == pytest.approx(80, rel=1e-4)
    assert flat.flatten()[1:].abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (40, 1, 28, 28), (40, 3, 32, 32)])
def test_manipulated_images_differ_and_keep_type_and_shape(shape: tuple[int, ...]) -> None:
    x = torch.randint(30, 200, shape, generator=rng()).to(torch.uint8)
    before = x.clone()
    out = frequency.add_artefacts(x, rng(1))
    assert out.dtype == torch.uint8
    assert out.shape == x.shape
    assert torch.equal(x, before)
    assert ((out != x).flatten(1).any(1)).all()
    assert torch.equal(out, frequency.add_artefacts(x, rng(1)))
    block = frequency.with_block(x.float(), False, rng(2)) == 255
    sides = torch.stack([block[:, 0].any(2).sum(1), block[:, 0].any(1).sum(1)])
    assert sides.min() >= 2
    assert sides.max() <= min(7, shape[-1] // 2)


def test_frequency_tells_stamped_from_clean_and_leaves_the_global_seed_alone() -> None:
    task = create("tasks", "digits")
    splits = task.load()  # type: ignore[attr-defined]
    stamped = Badnets().stamp(None, splits.test.inputs[:100], rng())  # type: ignore[arg-type]
    state = torch.get_rng_state()
    suspects = torch.cat([splits.test.inputs[100:200], stamped])
    p = frequency.artefact_probability(splits.reserve.inputs, suspects, 8, 3e-3, rng(), CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert (p[:100] > 0.5).float().mean() < 0.3
    assert (p[100:] > 0.5).float().mean() > 0.7


# ONION and its language models

TEXTS = [
    "the film is good",
    "the film is bad",
    "a good film",
    "a very bad film",
    "the story is good",
    "the cast is bad",
]


def test_spelling_and_bigrams_are_distributions() -> None:
    spelling = Spelling(["film", "fin", "good"])
    seen = spelling.counts[""]
    for context in ("", START, START + "fi", "o", "never"):
        unseen = (CHARACTERS - len(seen)) * spelling._p(context, "\u0436")
        assert sum(spelling._p(context, c) for c in seen) + unseen == pytest.approx(1)
    lm = WordBigrams(TEXTS)
    words = {word for text in TEXTS for word in text.split()}
    spelt = sum(math.exp(-lm.spelling.surprise(word)) for word in words)
    for before in ("film", START):
        # What is left over goes to words never seen, which are spelt out.
        listed = sum(math.exp(-lm._pair(before, word)) for word in [*words, END])
        d, after, kinds = lm.discount, lm.pairs[before], lm.continuations
        left = d * len(after) / lm.totals[before] * d * len(kinds) / lm.kinds * (1 - spelt)
        assert listed + left == pytest.approx(1)


def test_leaving_a_word_out_is_reading_the_shorter_text() -> None:
    lm = WordBigrams(TEXTS)
    words = ["the", "film", "cf", "is", "GOOD"]
    whole, rest = lm.leave_one_out(words)
    for i, reading in enumerate(rest):
        again, _ = lm.leave_one_out(words[:i] + words[i + 1 :])
        assert reading.nats == pytest.approx(again.nats)
        assert reading.size == again.size
    assert whole.size == len(" ".join(words)) + 2
    assert lm.leave_one_out([])[1] == []


@pytest.mark.parametrize("measure", ["surprise", "perplexity"])
def test_the_trigger_is_the_most_suspicious_word_and_no_text_is_emptied(measure: str) -> None:
    lm = WordBigrams(TEXTS)
    row = onion.suspicions(lm, "the film xq is good", measure)
    assert row.index(max(row)) == 2
    assert onion.remove_words("the film  xq is good", row, sorted(row)[-2]) == "the film is good"
    assert onion.remove_words("the  film", [0.0, 0.0], 1.0) == "the  film", "what needs no cleaning stays as it is"
    inputs = make_samples(["", "xq", "xq zq", "the film is good"], torch.zeros(4, dtype=torch.long))
    assert all(a == b for a, b in zip(purify(lm, measure, -1e9, inputs).inputs, inputs.inputs))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the layout of GPT-2's, random weights and a dozen words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ["<s>", "<unk>", *sorted({word for text in TEXTS for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path_factory.mktemp("gpt2")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>").save_pretrained(folder)
    size = {"vocab_size": len(words), "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    return folder


def test_a_causal_lm_reads_as_transformers_says(gpt2: Path) -> None:
    lm = CausalLM(str(gpt2), CPU, batch=2)
    words = ["the", "film", "is", "good"]
    whole, rest = lm.leave_one_out(words)
    for reading, text in [(whole, words), (rest[0], words[1:]), (rest[3], words[:3])]:
        ids = torch.tensor([[0, *lm.tokenizer(" ".join(text))["input_ids"]]])
        assert reading.rate == pytest.approx(lm.model(input_ids=ids, labels=ids).loss.item(), rel=1e-4)
    assert lm.leave_one_out(["film"] * 40)[0].size == 15, "longer texts are cut where the positions end"


@pytest.mark.parametrize("name", ["onion", "onion_input"])
def test_onion_with_a_causal_lm_end_to_end(name: str, gpt2: Path, store: Store) -> None:
    task = create("tasks", "synthetic_reviews", {"train_size": 40, "test_size": 20, "reserve_size": 20, "epochs": 1})
    defense = create("defenses", name, {"lm": str(gpt2), "clean_rows": 20, "measure": "perplexity"})
    result = steps.run_steps(task, create("attacks", "badwords"), 4, defense, 0, store, CPU)  # type: ignore[arg-type]
    assert result.metrics["asr"].n == 10
    unknown = create("defenses", name, {"lm": "no/such-model", "clean_rows": 20})
    with pytest.raises(BadInput, match="onion: lm='no/such-model'"):
        steps.run_steps(task, create("attacks", "badwords"), 4, unknown, 0, store, CPU)  # type: ignore[arg-type]


# Against an attack


def metrics(task: Any, attack: str, dose: int, defense: str, store: Store, **options: Any) -> dict[str, float]:
    plugs = create("attacks", attack), create("defenses", defense, options)
    result = steps.run_steps(task, plugs[0], dose, plugs[1], 0, store, CPU)  # type: ignore[arg-type]
    return {name: metric.value for name, metric in result.metrics.items()}


def test_raw_data_filters_stop_badnets_on_digits(store: Store) -> None:
    task = create("tasks", "digits", {"train_size": 600, "epochs": 12})
    undefended = metrics(task, "badnets", 15, "none", store)
    assert undefended["asr"] > 0.8
    for name, options in (("outlier", {}), ("frequency", {"epochs": 8})):
        found = metrics(task, "badnets", 15, name, store, **options)
        assert found["asr"] < 0.3, name
        assert found["train_auroc"] > 0.9, name
        assert found["utility"] > undefended["utility"] - 0.05, name


def test_onion_stops_rare_words_in_training_and_at_test_time(store: Store) -> None:
    task = create("tasks", "synthetic_reviews")
    assert metrics(task, "badwords", 100, "none", store)["asr"] > 0.8
    found = metrics(task, "badwords", 100, "onion", store)
    assert found["asr"] < 0.3
    assert found["train_tpr"] > 0.9
    assert found["train_fpr"] < 0.25
    assert metrics(task, "badwords", 100, "onion_input", store)["asr"] < 0.3


def test_onion_cleans_the_texts_it_would_drop(store: Store) -> None:
    task = create("tasks", "synthetic_reviews", {"train_size": 400, "epochs": 1})
    dropped, cleaned = (metrics(task, "badwords", 20, "onion", store, action=a) for a in ("drop", "clean"))
    assert dropped["train_tpr"] == cleaned["train_tpr"] > 0.9
    assert dropped["utility"] != cleaned["utility"], "another training set"
