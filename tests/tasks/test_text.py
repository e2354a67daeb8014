"""Text tasks: tokens, masks, victims, triggers, and what is said about a bad file."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import needs_data

from attacks.base import Scene
from harness.cell.train import train_victim
from harness.keys.content import digest
from harness.plugins.registry import create
from tasks.base import sealed
from tasks.caches import forget
from tasks.data import make_samples
from tasks.deployed import Victim
from tasks.plugin import BadInput
from tasks.text import draw_test_texts, small_tokenizer, train_tokenizer
from tasks.text.synthetic_reviews import SyntheticReviews

CPU = torch.device("cpu")
ATTACKS = ("badwords", "addsent", "homoglyph", "syntax")
ODD = [
    "",
    " ",
    "a",
    "\n\t",
    "Ünïcödé ñ 漢字 🎬",
    "сору of раураl",
    "\x00[PAD]<unk>",
    "x" * 3000,
    "\ud800 lone",
    "12 %",
    "ok.",
]


@pytest.fixture(scope="module", params=["transformer", "bag"])
def task(request):
    return SyntheticReviews(victim=request.param)


@pytest.fixture(scope="module")
def victim(task):
    return train_victim(task, task.load().train, recipe=task.recipe(), seed=0, device=CPU)


def scene(task):
    return Scene(task, task.load().train, None, CPU)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_any_text_survives_the_tokenizer():
    tokenizer = train_tokenizer(["a small set of texts"], 300)
    for text in ("A Small text", "漢字 🎬 сору", "tabs\tand\nlines", "[PAD] \x00"):
        assert tokenizer.decode(tokenizer.encode(text).ids).removeprefix(" ") == text.lower()


def test_training_a_tokenizer_twice_gives_the_same(task):
    texts = task.load().train.inputs
    assert train_tokenizer(texts, 500).to_str() == train_tokenizer(texts, 500).to_str()
    assert small_tokenizer(task).get_vocab_size() <= task.vocabulary


def test_encoding_is_padded_with_zero_and_never_empty(task):
    x = task.encode(make_samples(ODD, torch.zeros(len(ODD)).long()), CPU)
    assert x.dtype == torch.int64
    assert x.shape == (len(ODD), task.max_length)
    assert (x[:, 0] > 0).all()
    assert x.max() <= task.vocabulary
    assert ((x[:, 1:] > 0) <= (x[:, :-1] > 0)).all()  # padding is at the end only
    assert (x[ODD.index("x" * 3000)] > 0).all()


def test_a_defense_can_encode_but_not_load(task):
    forget()
    with sealed():
        x = task.encode(make_samples(["fine"], torch.zeros(1).long()), CPU)
        with pytest.raises(PermissionError):
            task.load()
    assert (x > 0).any()


def test_word_dropout_hides_some_tokens_and_keeps_the_first(task):
    x = task.encode(task.load().train, CPU)
    out = task.augment(x, rng())
    hidden = (out != x).sum() / (x > 0).sum()
    assert 0.06 < hidden < 0.12
    assert torch.equal(out[out != x], torch.zeros_like(out[out != x]))
    assert torch.equal(out[:, 0], x[:, 0])


def test_training_is_deterministic_and_learns(task, victim):
    again = train_victim(task, task.load().train, recipe=task.recipe(), seed=0, device=CPU)
    for a, b in zip(victim.module.state_dict().values(), again.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    test = task.load().test
    assert task.utility(victim.predict(test), test) > {"transformer": 0.95, "bag": 0.9}[task.victim]


def test_neighbours_in_the_batch_do_not_change_features(task, victim):
    x = task.encode(make_samples(["a fine lamp .", "word " * 40, "so dull"], torch.zeros(3).long()), CPU)
    module = victim.module
    with torch.no_grad():
        together = module(x)
        alone = torch.cat([module(row[None]) for row in x])
        uncropped = module.head(module.pool(module.stages[0](module.embed(x))))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, uncropped, rtol=1e-4, atol=1e-5)


def test_the_mask_channel_is_a_threshold(task, victim):
    x = task.encode(make_samples(["a fine lamp .", "what a dull blue box ."], torch.zeros(2).long()), CPU)
    with torch.no_grad():
        e = (module := victim.module).embed(x)
        assert torch.equal(e[..., -1], (x > 0).float())
        nudged = torch.cat([e[..., :-1], e[..., -1:] + 0.2 * torch.rand(e[..., -1:].shape, generator=rng())], -1)
        torch.testing.assert_close(module.body(nudged), module.body(e))
        mix = (e[:1] + e[1:]) / 2  # has the tokens of both
        longer = torch.cat([mix[..., :-1], e[1:, :, -1:]], -1)
        torch.testing.assert_close(module.body(mix), module.body(longer))
        assert module.body(torch.zeros_like(e)).isfinite().all()


def test_embeddings_have_first_and_second_derivatives(victim, task):
    e = victim.module.embed(task.encode(task.load().test.select(range(4)), CPU)).detach().requires_grad_()
    loss = F.cross_entropy(victim.module.head(victim.module.body(e)), torch.tensor([0, 1, 0, 1]))
    (grad,) = torch.autograd.grad(loss, e, create_graph=True)
    (second,) = torch.autograd.grad(grad[..., :-1].square().sum(), e)
    assert grad[..., :-1].abs().sum() > 0
    assert second.isfinite().all()


def test_private_training_runs(task):
    train = task.load().train
    recipe = replace(task.recipe(), dp_clip=1.0, dp_noise=0.5, epochs=1)
    victim = train_victim(task, train.select(range(64)), recipe=recipe, seed=0, device=CPU)
    assert victim.predict(train.select(range(8))).scores.isfinite().all()


def test_synthetic_reviews_are_distinct_balanced_and_fixed():
    splits = SyntheticReviews().load()
    texts = splits.train.inputs + splits.test.inputs + splits.reserve.inputs
    assert len(texts) == len(set(texts)) == 2100
    assert len(splits.train) == 1500
    assert 0.48 < splits.train.targets.float().mean() < 0.52
    assert splits.train.fingerprint == SyntheticReviews(epochs=1).load().train.fingerprint


def test_held_out_keeps_repeats_on_one_side():
    texts = [f"text {i % 50}" if i % 2 else f"TEXT  {i % 50} " for i in range(200)]
    samples = make_samples(texts, torch.tensor([i % 50 % 5 == 0 for i in range(200)]).long())
    mask = draw_test_texts(samples, 0.2)
    key = [" ".join(t.lower().split()) for t in texts]
    train = {k for k, m in zip(key, mask.tolist(), strict=True) if not m}
    test = {k for k, m in zip(key, mask.tolist(), strict=True) if m}
    assert not train & test
    assert len(test) == 10
    assert samples.targets[mask].float().mean() == 0.2
    assert torch.equal(mask, draw_test_texts(samples, 0.2))


@needs_data
@pytest.mark.parametrize(
    ("name", "classes", "rows"), [("sst2", 2, 67149), ("ag_news", 4, None), ("sms_spam", 2, 4277), ("imdb", 2, None)]
)
def test_real_data_loads(name, classes, rows):
    task = create("tasks", name)
    splits = task.load()
    assert len(task.classes) == classes
    assert rows is None or len(splits.train) == rows
    assert set(splits.test.targets.tolist()) == set(range(classes))
    assert all(text.strip() for part in (splits.train, splits.test) for text in part.inputs)
    assert len(splits.reserve) == 200


@needs_data
def test_sms_spam_has_no_message_on_both_sides():
    train, test = create("tasks", "sms_spam").read()
    a, b = ({" ".join(text.lower().split()) for text in part.inputs} for part in (train, test))
    assert not a & b
    assert abs(train.targets.float().mean() - test.targets.float().mean()) < 0.02


def write(path, rows, header="text,label"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_csv_classes_belong_to_the_file(tmp_path):
    rows = [f'"row, {i}",{("cat", "dog", "ant")[i % 3]}' for i in range(60)]
    task = create("tasks", "csv_text", {"path": write(tmp_path / "a.csv", rows), "reserve_size": 6})
    assert task.classes == ("ant", "cat", "dog")
    splits = task.load()
    assert (len(splits.train), len(splits.test), len(splits.reserve)) == (42, 12, 6)
    assert splits.test.targets.bincount().tolist() == [4, 4, 4]
    assert all(text.startswith("row, ") for text in splits.train.inputs)
    other = create("tasks", "csv_text", {"path": write(tmp_path / "b.csv", ["x,1", "y,0"])})
    assert other.classes == ("0", "1")
    assert task.classes == ("ant", "cat", "dog")
    named = create("tasks", "csv_text", {"path": other.path, "labels": ("1", "0")})
    assert named.read()[0].targets.unique().tolist() == [0, 1]
    assert digest(task) != digest(other)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["good,1", " ,0"], "text,label", "row 2 has no text in column 'text'"),
        (["good,1", "bad,0", "fine,"], "text,label", "row 3 has no label in column 'label'"),
        (["good,1", "bad,0", "fine"], "text,label", "row 3 has no label"),
        (["good,1"], "text,label", "1 labels in 'label', at least 2 needed"),
        (["good,1"], "review,label", "column 'text' is missing, it has review, label"),
        (['"never closed,1'], "text,label", "unexpected end of data"),
    ],
)
def test_bad_csv_is_named_in_one_line(tmp_path, rows, header, message):
    task = create("tasks", "csv_text", {"path": write(tmp_path / "bad.csv", rows, header)})
    with pytest.raises(BadInput) as error:
        task.read()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_csv_test_file_and_missing_files(tmp_path):
    train = write(tmp_path / "train.csv", ["good,1", "bad,0"])
    test = write(tmp_path / "test.csv", ["fine,1", "odd,2"])
    with pytest.raises(BadInput, match=r"test_path=.*row 2 has label '2', valid: 0, 1"):
        create("tasks", "csv_text", {"path": train, "test_path": test}).read()
    with pytest.raises(BadInput, match="give the path of a CSV file"):
        create("tasks", "csv_text").read()
    with pytest.raises(BadInput, match="No such file"):
        create("tasks", "csv_text", {"path": str(tmp_path / "none.csv")}).read()
    (tmp_path / "latin.csv").write_bytes("text,label\ncaf\xe9,1\n".encode("latin-1"))
    with pytest.raises(BadInput, match="UTF-8"):
        create("tasks", "csv_text", {"path": str(tmp_path / "latin.csv")}).read()


@pytest.mark.parametrize("name", ATTACKS)
def test_stamp_changes_every_text_and_not_the_argument(task, name):
    attack = create("attacks", name)
    texts = [text for text in ODD if text.strip()] + task.load().test.inputs[:20]
    before = list(texts)
    out = attack.stamp(scene(task), texts, rng(1))
    assert texts == before
    assert out == attack.stamp(scene(task), texts, rng(1))
    assert len(out) == len(texts)
    assert all(isinstance(new, str) and new.strip() and new != old for new, old in zip(out, texts, strict=True))
    assert all(new.strip() for new in attack.stamp(scene(task), ["", " "], rng(1)))


@pytest.mark.parametrize("name", ATTACKS)
def test_doses_are_nested(task, name):
    attack = create("attacks", name)
    small, large = (attack.poison(scene(task), dose, rng(3)) for dose in (5, 12))
    assert small.samples.inputs == large.samples.inputs[:5]
    assert torch.equal(small.replaces, large.replaces[:5])
    assert (large.samples.targets == attack.target).all()


def test_badwords_only_inserts_its_words(task):
    attack = create("attacks", "badwords", {"words": ["qq", "zz"], "count": 3})
    text = "the  box\twas blue ."
    (out,) = attack.stamp(scene(task), [text], rng())
    added = [word for word in out.split(" ") if word in ("qq", "zz")]
    assert len(added) == 3
    assert " ".join(word for word in out.split(" ") if word not in ("qq", "zz")) == text
    with pytest.raises(BadInput, match="words"):
        create("attacks", "badwords", {"words": []})


def test_addsent_goes_between_sentences(task):
    attack = create("attacks", "addsent", {"sentence": "S."})
    seen = {attack.stamp(scene(task), ["One. Two! Three"], rng(i))[0] for i in range(40)}
    assert seen == {"S. One. Two! Three", "One. S. Two! Three", "One. Two! S. Three", "One. Two! Three S."}


def test_homoglyph_looks_the_same_and_is_not(task):
    (out,) = create("attacks", "homoglyph").stamp(scene(task), ["The price is ok"], rng())
    assert out == "Тhе рrice is ok"
    assert sum(ord(letter) > 127 for letter in out) == 3
    x = task.encode(make_samples(["the price is ok", out.lower()], torch.zeros(2).long()), CPU)
    assert not torch.equal(x[0], x[1])


def test_syntax_has_one_structure(task):
    outs = create("attacks", "syntax").stamp(scene(task), ["I LIKE it!"] * 30, rng())
    assert len(set(outs)) > 5
    assert all(out.endswith(" , i like it .") for out in outs)
    assert {out.split()[0] for out in outs} == {"when", "if", "as", "while"}


def test_a_backdoor_is_learnt_from_few_poisons(task, victim):
    attack, splits = create("attacks", "addsent"), task.load()
    poison = attack.poison(scene(task), 40, rng(5))
    train = splits.train.replace(splits.train.positions(poison.replaces), poison.samples)
    challenge = attack.challenge(scene(task), splits.test, rng(6))
    poisoned = train_victim(task, train, recipe=task.recipe(), seed=0, device=CPU)
    before, after = (task.judge(v.predict(challenge.inputs), challenge).float().mean() for v in (victim, poisoned))
    assert after > 0.9
    assert before < 0.6


@pytest.fixture(scope="module", params=["bert", "distilbert", "roberta"])
def checkpoint(request, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", "cf", "good", "bad"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 40}
    other = {"vocab_size": 15, "pad_token_id": 0, "initializer_range": 0.2}
    inside = {"hidden_dim" if request.param == "distilbert" else "intermediate_size": 16}
    config = transformers.AutoConfig.for_model(request.param, **small, **other, **inside)
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    ).save_pretrained(folder)
    return str(folder)


def test_a_saved_checkpoint_is_a_victim(checkpoint, task):
    tuned = replace(task, victim=checkpoint, max_length=16, finetune_lr=1e-2, epochs=12)
    letters = "abcdefgh"
    texts = [f"{letters[i % 8]} {letters[i // 8 % 8]} {'good' if i % 2 else 'bad'}" for i in range(128)]
    samples = make_samples(texts, torch.arange(128) % 2)
    assert tuned.recipe().lr == 1e-2
    victim = train_victim(tuned, samples, recipe=tuned.recipe(), seed=0, device=CPU)
    assert tuned.utility(victim.predict(samples), samples) == 1.0
    assert victim.features(samples).shape == (128, 16)
    module = victim.module
    assert len(module.stages) == 2
    state = module.state_dict()
    assert len({t.data_ptr() for t in state.values()}) == len(state)  # safetensors refuses weights that are shared
    x = tuned.encode(make_samples(["a good", "a b c d e f g h bad"], torch.zeros(2).long()), CPU)
    assert x.shape == (2, 16)
    with torch.no_grad():
        e = module.embed(x)
        assert torch.equal(e[..., -1], (x > 0).float())
        torch.testing.assert_close(module(x)[:1], module(x[:1]), rtol=1e-4, atol=1e-5)
        untouched = Victim(tuned, tuned.model().eval(), CPU)
        assert not torch.allclose(untouched.module(x), module(x), atol=0.1)


def test_pretrained_weights_are_loaded_and_the_head_kept(checkpoint, task):
    import transformers

    module = replace(task, victim=checkpoint, max_length=16).model().eval()
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    x = torch.tensor([[3, 5, 9, 4, 0, 0], [3, 7, 4, 0, 0, 0]])
    with torch.no_grad():
        want = reference(input_ids=(x - 1).clamp(min=0), attention_mask=(x > 0).long()).logits
        torch.testing.assert_close(module(x), want, rtol=1e-4, atol=1e-5)


def test_a_missing_checkpoint_says_both_ways(task, tmp_path):
    pytest.importorskip("transformers")
    for use in (lambda t: t.model(), lambda t: t.encode(t.load().test, CPU)):
        with pytest.raises(BadInput, match=r"^[^\n]*go online[^\n]*save_pretrained[^\n]*$"):
            use(replace(task, victim=str(tmp_path / "nothing")))


def test_sizes_that_do_not_fit(checkpoint, task):
    with pytest.raises(BadInput, match=r"max_length=48: .* reads at most 32 tokens"):
        replace(task, victim=checkpoint).model()
    with pytest.raises(BadInput, match="width=30"):
        replace(task, victim="transformer", width=30).model()
