"""Models and tokenizers from transformers, by Hub name or folder: loaded without running their code, and checked."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tasks.caches import cached
from tasks.plugin import BadInput, find_model

WORDS = 50  # words of a vocabulary that must not all be encoded alike
NOT_FINITE = "answers with infinite numbers or NaN, as its weights are too large for float32; use another checkpoint"


def load_pretrained(loader: Any, name: str, **kwargs: Any) -> Any:
    """loader.from_pretrained(name), from safetensors alone and without code of its own.

    Raises BadInput, which names both ways to get the model, if it cannot be loaded.
    """
    from transformers.utils import logging

    if not name:
        raise BadInput("victim='' names no model; leave it out for the small one, or give a Hub name or a folder")
    _check_folder(name, weights="Tokenizer" not in loader.__name__)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a new head on an old body is what is asked for, not news
    logging.disable_progress_bar()
    try:
        return loader.from_pretrained(find_model(name), trust_remote_code=False, **kwargs)
    except Exception as error:  # OSError, ValueError, KeyError, ImportError: all mean the same to the user
        raise BadInput(
            f"victim={name!r} cannot be loaded ({type(error).__name__}: {str(error).strip().splitlines()[0][:120]}); "
            f"leave it out for the small one, go online once so that transformers can fetch it from the Hub, "
            f"or give a folder that save_pretrained wrote (model and tokenizer)"
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def load_model(loader: Any, name: str, **kwargs: Any) -> Any:
    """A model whose body comes from the checkpoint, all of it, and can read every token of its tokenizer.

    Its weights are finite; its head may be new. Raises BadInput.
    """
    model, info = load_pretrained(loader, name, use_safetensors=True, output_loading_info=True, **kwargs)
    body = f"{model.base_model_prefix}."
    absent = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    absent = [key for key in absent if key.startswith(body) and "pool" not in key]
    if absent:
        raise BadInput(
            f"victim={name!r}: its config.json is for other weights than it holds: {len(absent)} tensors of the body, "
            f"such as {absent[0]}, are absent or of another shape; save model and config together by save_pretrained"
        )
    poor = [key for key, weight in model.named_parameters() if not weight.isfinite().all()]
    if poor:
        raise BadInput(
            f"victim={name!r}: {len(poor)} of its tensors, such as {poor[0]}, hold infinite numbers or NaN; "
            "use a checkpoint from before its training failed"
        )
    largest, rows = max(tokenizer(name).get_vocab().values()), model.get_input_embeddings().num_embeddings
    if largest >= rows:
        raise BadInput(
            f"victim={name!r}: its tokenizer gives ids up to {largest}, its embedding has {rows} rows; save the "
            f"tokenizer that belongs to the model, or model.resize_token_embeddings({largest + 1}), and save it again"
        )
    return model


@cached(maxsize=4)
def tokenizer(name: str) -> Any:
    """The tokenizer that belongs to a checkpoint. Raises BadInput if it knows no words, as without its files."""
    from transformers import AutoTokenizer

    found = load_pretrained(AutoTokenizer, name, truncation_side="right")  # whose texts lose their end, always
    special = set(found.all_special_tokens)
    words = [found.convert_tokens_to_string([word]) for word in sorted(set(found.get_vocab()) - special)[-WORDS:]]
    if len({tuple(ids) for ids in found(words)["input_ids"]} if words else ()) < 2:
        raise BadInput(
            f"victim={name!r}: its tokenizer knows {len(words)} words beside special tokens, so all texts look alike; "
            f"the tokenizer's files (tokenizer.json, or vocab.txt) are missing: tokenizer.save_pretrained there"
        )
    return found


@cached(maxsize=4)
def longest_text(name: str) -> int:
    """The most tokens that a checkpoint reads."""
    from transformers import AutoConfig

    positions = getattr(load_pretrained(AutoConfig, name), "max_position_embeddings", None)
    return min(int(tokenizer(name).model_max_length), positions or sys.maxsize)


def _check_folder(name: str, weights: bool) -> None:
    """Raises BadInput, which says what is missing, for a folder that holds no model, or one that must be unpickled."""
    folder = Path(find_model(name))
    if not folder.is_dir():
        return
    files = sorted(os.listdir(folder))
    if "config.json" not in files and weights:
        raise BadInput(f"victim={name!r}: the folder has no config.json; save the model there too, by save_pretrained")
    if weights and not any(file.endswith((".safetensors", ".safetensors.index.json")) for file in files):
        pickled = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        held = f"only {pickled[0]}, a pickle, which can run code" if pickled else "none"
        raise BadInput(
            f"victim={name!r}: weights are read from model.safetensors, and the folder holds {held}; "
            "load it where you trust it, and save it with save_pretrained"
        )
