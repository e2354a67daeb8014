"""Screening by how far activations are from clean ones, and by what amplified copies are answered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from columns import Column
from helpers import tiny
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf

from defenses.screening.activation_distance import ActivationDistance, _Layer, read_layers
from defenses.screening.scale_up import ScaleUp, by_class, consistency, scale, suspicion
from harness.testing.checks import CPU
from tasks.deployed import Victim
from tasks.image.digits import Digits
from tasks.samples import Outputs, Samples


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Column:
    """20 poisons of 1237 digits: the backdoor works on nearly everything."""
    return Column(tmp_path_factory.mktemp("few"), Digits(), dose=20)


def test_distance_equals_scipy_with_the_covariance_of_scikit_learn():
    states = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = torch.tensor([5, 7, 9]).repeat(10)  # class 0 has no rows
    means = {c: states[classes == c].mean(0).numpy() for c in (5, 7, 9)}
    covariance, _ = ledoit_wolf(states.numpy() - np.stack([means[int(c)] for c in classes]), assume_centered=True)
    inverse = np.linalg.inv(covariance)
    wanted = [min(mahalanobis(h, m, inverse) ** 2 for m in means.values()) / 4 for h in states.numpy()[:5]]
    np.testing.assert_allclose(_Layer(states, classes).distance(states[:5]).numpy(), wanted)


def test_activation_distance_tells_stamped_digits_from_clean_ones(few):
    model = ActivationDistance().defend(few.case)
    assert few.auroc(model) > 0.9
    assert few.asr(model) < 0.5 < 0.9 < few.asr(few.case.fit(few.train))
    assert model.predict(few.test).abstained.float().mean() < 0.2


def test_activations_of_a_text_are_those_that_it_has_alone():
    task = tiny("synthetic_reviews")
    torch.manual_seed(0)
    victim, rows = Victim(task, task.model(), CPU), task.load().test.select(range(8))
    longest = rows.with_inputs([text + " and then" * 20 if i == 7 else text for i, text in enumerate(rows.inputs)])
    together = read_layers(victim, longest)
    assert len(together) == len(victim.module.stages) + 1
    for layer, alone in zip(together, read_layers(victim, rows.select([0]))):
        torch.testing.assert_close(layer[:1], alone, atol=2e-2, rtol=2e-2)  # bfloat16
    assert not any(stage._forward_hooks for stage in victim.module.stages), "hooks are taken off again"


def test_scaling_clips_pictures_and_sounds():
    assert scale(torch.tensor([[100, 30, 0]], dtype=torch.uint8), 3).tolist() == [[255, 90, 0]]
    assert scale(torch.tensor([[0.5, -0.1]]), 5).tolist() == [[1.0, -0.5]]


class Bright:
    """Answers 1 where a picture's mean is above 100."""

    def predict(self, samples: Samples) -> Outputs:
        bright = samples.inputs.float().mean((1, 2, 3)) > 100
        return Outputs(torch.stack([~bright, bright], 1).float(), torch.zeros(len(samples), dtype=torch.bool))


def pictures(*values: int) -> Samples:
    inputs = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1)
    return Samples(inputs, torch.zeros(len(values), dtype=torch.long), torch.arange(len(values)))


def test_consistency_is_the_share_of_copies_with_the_answer_of_the_input():
    shares, answers = consistency(Bright(), pictures(0, 10, 15, 30, 200), copies=5)
    assert answers.tolist() == [0, 0, 0, 0, 1]
    torch.testing.assert_close(shares, torch.tensor([1.0, 0.8, 0.4, 0.2, 1.0]))  # 10 stays dark up to 9 times


def test_consistency_is_standardised_by_the_class_that_is_answered():
    shares, classes = torch.tensor([0.0, 1.0, 0.2, 0.2, 0.6]), torch.tensor([0, 0, 1, 1, 2])
    means, deviations = by_class(shares, classes, 3, least=0.1)
    torch.testing.assert_close(means, torch.tensor([0.5, 0.2, 0.4]))
    torch.testing.assert_close(deviations, torch.tensor([0.5, 0.1, float(shares.std(correction=0))]))
    found = suspicion(Bright(), pictures(10, 200), means=means, deviations=deviations, copies=5)
    torch.testing.assert_close(found, torch.tensor([(0.8 - 0.5) / 0.5, (1.0 - 0.2) / 0.1]))


def test_scale_up_refuses_about_the_wanted_share_of_clean_inputs(few):
    model = ScaleUp(false_rejection=0.2).defend(few.case)
    assert model.predict(few.test).abstained.float().mean() < 0.35
    assert torch.equal(
        model.predict(few.test).suspicion, ScaleUp(false_rejection=0.2).defend(few.case).screen(few.test)
    )
