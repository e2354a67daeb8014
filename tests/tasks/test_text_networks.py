"""The networks of small text victims: gradients per row, and what a bag of tokens and pairs reads."""

import pytest
import torch
import torch.nn.functional as F

from tasks._models.bag import PAIRS, Bag, pair_rows
from tasks._models.transformer import Transformer


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("build", [lambda: Transformer(50, max_length=8, classes=2, width=8), lambda: Bag(50, 2, 8)])
def test_per_sample_gradients_equal_a_loop(build):
    opacus = pytest.importorskip("opacus")
    torch.manual_seed(0)
    module = build()
    x = torch.tensor([[3, 9, 4, 0, 0, 0, 0, 0], [5, 6, 7, 8, 9, 1, 2, 3], [50, 0, 0, 0, 0, 0, 0, 0]])
    y = torch.tensor([0, 1, 1])
    loop = []
    for i in range(3):
        module.zero_grad()
        F.cross_entropy(module(x[i : i + 1]), y[i : i + 1]).backward()
        loop.append({n: p.grad.clone() for n, p in module.named_parameters()})
    module.zero_grad()
    private = opacus.GradSampleModule(module)
    F.cross_entropy(private(x), y).backward()
    for name, p in module.named_parameters():
        want = torch.stack([g[name] for g in loop]) / 3  # the batch's loss is a mean
        torch.testing.assert_close(p.grad_sample / 3, want, rtol=1e-4, atol=1e-6, msg=name)


def test_a_bag_reads_tokens_and_pairs_that_are_there():
    bag = Bag(vocabulary=9, classes=2, width=4)
    x = torch.tensor([[3, 5, 7, 0], [3, 0, 7, 0], [5, 3, 7, 0]])
    with torch.no_grad():
        whole, hidden, swapped = bag.embed(x)[..., :-1]
        table = bag.tokens.weight
    torch.testing.assert_close(hidden[0], table[3])  # a hidden neighbour takes the pair with it
    torch.testing.assert_close(whole[2], table[7])  # the last token has no pair
    assert not torch.allclose(whole[0], table[3])
    assert not torch.allclose(whole.sum(0), swapped.sum(0)), "the order of two tokens counts"


def test_pairs_share_rows_no_more_than_by_chance():
    draw = torch.randint(1, 2001, (20_000, 2), generator=torch.Generator().manual_seed(0)).unique(dim=0)
    used = len(pair_rows(draw[:, 0], draw[:, 1]).unique())
    expected = PAIRS * (1 - (1 - 1 / PAIRS) ** len(draw))
    assert used > 0.99 * expected
