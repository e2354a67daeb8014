"""Checkpoints from transformers: what cannot be a victim is refused, by folder and in one line, before training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny

from harness.keys import content
from harness.store.folder import Store
from tasks._models.causal import load_causal
from tasks._models.checkpoint import tokenizer
from tasks.data import make_samples
from tasks.language._base import tokenize
from tasks.plugin import BadInput

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", "cf", "good", "bad"]
TEXTS = ["a good", "b c d e f g h bad", "c", "good"]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Any:
    tokenizer.cache_clear()
    yield
    tokenizer.cache_clear()


def save_words(folder: Path, words: list[str] = WORDS, **more: Any) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    named = {"tokenizer_object": inner, "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", **more}
    transformers.PreTrainedTokenizerFast(model_max_length=32, pad_token="[PAD]", **named).save_pretrained(folder)


def save_model(folder: Path, kind: str = "bert", head: str = "SequenceClassification", **more: Any) -> None:
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "max_position_embeddings": 40}
    if kind != "gpt2":
        sizes["intermediate_size"] = 16
    config = transformers.AutoConfig.for_model(kind, vocab_size=15, initializer_range=0.2, **sizes, **more)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        getattr(transformers, f"AutoModelFor{head}").from_config(config).save_pretrained(folder)


def pickle_weights(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def bring_code(folder: Path) -> None:
    """A model whose code comes with it, and says if it runs."""
    (folder / "own.py").write_text(
        f"open({str(folder / 'RAN')!r}, 'w')\nfrom transformers import BertConfig as Config, BertModel as Model\n"
    )
    edit_config(folder, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"})


def cut_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def change_weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor], only: str = "") -> None:
    """Every tensor with `only` in its name becomes what `change` makes of it."""
    from safetensors.torch import load_file, save_file

    held = load_file(folder / "model.safetensors")
    made = {name: change(tensor) if only in name else tensor for name, tensor in held.items()}
    save_file(made, folder / "model.safetensors", {"format": "pt"})


def with_number(number: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.flatten().index_fill(0, torch.tensor(3), number).view_as(tensor)


def use(folder: Path | str, length: int = 16) -> Any:
    """The network of a task with this victim, once its texts are encoded."""
    task = replace(tiny("synthetic_reviews"), victim=str(folder), max_length=length)  # type: ignore[type-var]
    task.encode(make_samples(TEXTS, torch.zeros(4).long()), CPU)
    return task.model()


BROKEN: dict[str, Callable[[Path], None]] = {
    "no tokenizer": lambda f: save_model(f),
    "no tokenizer, decoder": lambda f: save_model(f, "gpt2"),
    "empty tokenizer": lambda f: (save_model(f), save_words(f, WORDS[:4])),  # type: ignore[func-returns-value]
    "one word": lambda f: (save_model(f), save_words(f, WORDS[:5])),  # type: ignore[func-returns-value]
    "large tokenizer": lambda f: (save_model(f), save_words(f, [*WORDS, "more"])),  # type: ignore[func-returns-value]
    "tokenizer alone": lambda f: save_words(f),
    "pickle": lambda f: (save_model(f), save_words(f), pickle_weights(f)),  # type: ignore[func-returns-value]
    "no weights": lambda f: (save_model(f), save_words(f), (f / "model.safetensors").unlink()),  # type: ignore[func-returns-value]
    "half the weights": lambda f: (save_model(f), save_words(f), cut_weights(f)),  # type: ignore[func-returns-value]
    "wider config": lambda f: (save_model(f), save_words(f), edit_config(f, hidden_size=32)),  # type: ignore[func-returns-value]
    "deeper config": lambda f: (save_model(f), save_words(f), edit_config(f, num_hidden_layers=3)),  # type: ignore[func-returns-value]
    "another model": lambda f: (save_model(f), save_words(f), edit_config(f, model_type="distilbert")),  # type: ignore[func-returns-value]
    "a model for pictures": lambda f: (save_model(f), save_words(f), edit_config(f, model_type="vit")),  # type: ignore[func-returns-value]
    "code of its own": lambda f: (save_model(f), save_words(f), bring_code(f)),  # type: ignore[func-returns-value]
    "empty folder": lambda f: None,
}


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("no tokenizer", "its tokenizer knows 0 words beside special tokens, so all texts look alike; the tokenizer's"),
        ("no tokenizer, decoder", "its tokenizer knows 0 words|cannot be loaded"),
        ("empty tokenizer", "its tokenizer knows 0 words"),
        ("one word", "its tokenizer knows 1 words"),
        (
            "large tokenizer",
            r"gives ids up to 15, its embedding has 15 rows; .*resize_token_embeddings\(16\)",
        ),
        ("tokenizer alone", "the folder has no config.json"),
        ("pickle", "the folder holds only pytorch_model.bin, a pickle, which can run code"),
        ("no weights", "weights are read from model.safetensors, and the folder holds none"),
        ("half the weights", "cannot be loaded"),
        ("wider config", "its config.json is for other weights than it holds: .*tensors of the body, such as bert"),
        ("deeper config", "such as bert.encoder.layer.2"),
        ("another model", "such as distilbert"),
        ("a model for pictures", "cannot be loaded"),
        ("code of its own", "cannot be loaded"),
        ("empty folder", "cannot be loaded|no config.json"),
    ],
)
def test_a_folder_that_holds_no_victim_is_refused(how: str, complaint: str, tmp_path: Path) -> None:
    BROKEN[how](tmp_path)
    with pytest.raises(BadInput, match=rf"^victim=[^\n]*{tmp_path.name}[^\n]*({complaint})[^\n]*$"):
        use(tmp_path)
    assert not (tmp_path / "RAN").exists()


def test_code_that_comes_with_a_known_model_is_not_run(tmp_path: Path) -> None:
    save_model(tmp_path)
    save_words(tmp_path)
    bring_code(tmp_path)
    edit_config(tmp_path, model_type="bert")
    use(tmp_path)
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("head", ["SequenceClassification", "MaskedLM", "TokenClassification"])
def test_a_body_may_come_with_another_head(head: str, tmp_path: Path) -> None:
    save_model(tmp_path, head=head)
    save_words(tmp_path)
    assert use(tmp_path).head.out_features == 2


@pytest.mark.parametrize(("kind", "more"), [("gpt2", {}), ("gpt2", {"pad_token_id": 0}), ("llama", {})])
def test_a_decoder_is_read_at_the_last_token_of_each_text(kind: str, more: dict[str, int], tmp_path: Path) -> None:
    save_model(tmp_path, kind, **more)
    save_words(tmp_path)
    net = use(tmp_path).eval()
    task = replace(tiny("synthetic_reviews"), victim=str(tmp_path), max_length=16)  # type: ignore[type-var]
    x = task.encode(make_samples(TEXTS, torch.zeros(4).long()), CPU)
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        together = net(x)
        for row, text in enumerate(x):
            ids = (text[text > 0] - 1)[None]
            torch.testing.assert_close(together[row], reference(input_ids=ids).logits[0], rtol=1e-4, atol=1e-5)


def test_a_model_that_reads_no_embeddings_is_refused(tmp_path: Path) -> None:
    config = transformers.T5Config(
        d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=15, decoder_start_token_id=0
    )
    transformers.T5ForSequenceClassification(config).save_pretrained(tmp_path)
    save_words(tmp_path)
    with pytest.raises(BadInput, match=r"^victim=.* cannot read 16 embedded tokens \(NotImplementedError: "):
        use(tmp_path)


def test_positions_that_run_out_are_found_before_training(tmp_path: Path) -> None:
    save_model(tmp_path, "roberta", pad_token_id=1)  # 40 positions, of which two are not for tokens
    save_words(tmp_path)
    edit = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**edit, "model_max_length": 10**6}))
    use(tmp_path, 38)
    with pytest.raises(BadInput, match=r"cannot read 40 embedded tokens .* lower max_length"):
        use(tmp_path, 40)


def test_texts_that_a_tokenizer_does_not_know_are_named(tmp_path: Path) -> None:
    save_model(tmp_path)
    save_words(tmp_path)
    task = replace(tiny("synthetic_reviews"), victim=str(tmp_path), max_length=16)  # type: ignore[type-var]
    foreign = make_samples([chr(0x4E00 + i) for i in range(30)], torch.zeros(30).long())
    with pytest.raises(BadInput, match=r"victim=.*the same tokens of 30 different texts, such as '一'"):
        task.encode(foreign, CPU)
    same = make_samples(["one"] * 30, torch.zeros(30).long())
    assert len(task.encode(same, CPU)) == 30


def test_a_language_model_must_not_read_ahead(tmp_path: Path) -> None:
    for kind, head in (("gpt2", "CausalLM"), ("bert", "MaskedLM")):
        save_model(tmp_path / kind, kind, head)
        save_words(tmp_path / kind, eos_token="[SEP]")
    load_causal(str(tmp_path / "gpt2"))
    with pytest.raises(BadInput, match=r"bert' is no decoder: what it says of a token depends on the tokens after it"):
        load_causal(str(tmp_path / "bert"))
    save_words(tmp_path / "gpt2", [*WORDS, "more"])
    tokenizer.cache_clear()
    with pytest.raises(BadInput, match="ids up to 15, its embedding has 15 rows"):
        load_causal(str(tmp_path / "gpt2"))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_named(number: float, tmp_path: Path) -> None:
    line = r"^victim=.*: 1 of its tensors, such as {}, hold infinite numbers or NaN; use .*$"
    for kind, head, name in (
        ("bert", "SequenceClassification", "encoder.layer.1.output.dense.weight"),
        ("gpt2", "CausalLM", "h.1.mlp.c_fc.weight"),
    ):
        save_model(tmp_path / kind, kind, head)
        save_words(tmp_path / kind, eos_token="[SEP]")
        change_weights(tmp_path / kind, with_number(number), name)
    with pytest.raises(BadInput, match=line.format(r"bert\.encoder\.layer\.1\.output\.dense\.weight")):
        use(tmp_path / "bert")
    with pytest.raises(BadInput, match=line.format(r"transformer\.h\.1\.mlp\.c_fc\.weight")):
        load_causal(str(tmp_path / "gpt2"))


def test_weights_that_are_too_large_are_said_to_be(tmp_path: Path) -> None:
    for kind, head in (("bert", "SequenceClassification"), ("gpt2", "CausalLM")):
        save_model(tmp_path / kind, kind, head)
        save_words(tmp_path / kind, eos_token="[SEP]")
        change_weights(tmp_path / kind, lambda tensor: tensor * 1e30)
    line = r"^victim=.* answers with infinite numbers or NaN, as its weights are too large for float32; use .*$"
    with pytest.raises(BadInput, match=line):
        use(tmp_path / "bert")
    with pytest.raises(BadInput, match=line):
        load_causal(str(tmp_path / "gpt2"))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_read_in_full(precision: torch.dtype, kind: str, tmp_path: Path) -> None:
    save_model(tmp_path, kind)
    save_words(tmp_path)
    change_weights(tmp_path, lambda tensor: tensor.to(precision))
    edit_config(tmp_path, dtype=str(precision).removeprefix("torch."))
    net = use(tmp_path)
    assert {tensor.dtype for tensor in net.parameters()} == {torch.float32}
    assert torch.equal(net.head.weight, net.head.weight.to(precision).float())


def test_a_language_model_reads_as_many_tokens_as_it_has_positions(tmp_path: Path) -> None:
    save_model(tmp_path, "gpt2", "CausalLM")  # 40 positions
    save_words(tmp_path, eos_token="[SEP]")

    def task(**changes: int) -> Any:
        return replace(tiny("synthetic_stories"), victim=str(tmp_path), **changes)  # type: ignore[type-var]

    with pytest.raises(BadInput, match=r"^block=128, max_length=512: victim=.* reads at most 40 tokens; lower"):
        task(block=128, max_length=512).model()
    with pytest.raises(BadInput, match=r"^block=41: victim=.* reads at most 40 tokens; lower"):
        task(block=41, max_length=40).model()
    fits = task(block=40, max_length=40, temperature=0.0)
    victim = fits.deploy(fits.model().eval(), CPU)
    words = "a b c d e f g h " * 9

    def ask(text: str, more: int) -> Any:
        return victim.continue_texts(make_samples([text], torch.tensor([more])))

    assert victim.read(make_samples([words], torch.zeros(1).long()))[0, 1] == 39
    assert ask(words, 30) == ask(words[-20:], 30), "of a request as many tokens are read as leave room for the rest"
    assert ask(words, 30) != ask(words[:-2], 30)
    with pytest.raises(BadInput, match=r"^more=40: victim=.* lower it"):
        ask(words, 40)


def test_a_tied_language_model_comes_back_from_the_store_as_it_was(tmp_path: Path, store: Store) -> None:
    for kind in ("gpt2", "opt"):
        more = {"ffn_dim": 16, "word_embed_proj_dim": 16} if kind == "opt" else {}
        save_model(tmp_path / kind, kind, "CausalLM", **more)
        save_words(tmp_path / kind, eos_token="[SEP]")
        first, second = load_causal(str(tmp_path / kind)), load_causal(str(tmp_path / kind))
        with torch.no_grad():
            first.head.weight.mul_(1.5)
        key = content.digest(kind)
        store.save_tensors(key, first.state_dict())
        found = store.load_tensors(key)
        assert found is not None
        second.load_state_dict(found)
        x = torch.arange(1, 9)[None]
        assert torch.equal(first(x), second(x))
        assert second.head.weight.data_ptr() == second.lm.get_input_embeddings().weight.data_ptr(), "and is tied still"  # type: ignore[operator]


def test_the_end_of_a_long_text_is_cut_whatever_the_tokenizer_says(tmp_path: Path) -> None:
    save_model(tmp_path)
    save_words(tmp_path, truncation_side="left")
    task = replace(tiny("synthetic_reviews"), victim=str(tmp_path), max_length=4)  # type: ignore[type-var]
    x = task.encode(make_samples(["a b c d e f g h"], torch.zeros(1).long()), CPU)
    assert (x - 1).tolist() == [[4, 5, 6, 7]]


def test_long_texts_are_counted_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_words(tmp_path, eos_token="[SEP]")
    edit = {"model_type": "gpt2", "vocab_size": 15}
    (tmp_path / "config.json").write_text(json.dumps(edit))
    transformers.utils.logging.enable_propagation()
    task = replace(tiny("synthetic_stories"), victim=str(tmp_path))  # type: ignore[type-var]
    assert len(tokenize(task, ["a " * 99])[0]) == 99, "its model_max_length is 32"
    assert not caplog.records
    transformers.utils.logging.disable_propagation()


def test_a_victim_without_a_name_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^victim='' names no model; leave it out for the small one, or give a Hub"):
        use("")
