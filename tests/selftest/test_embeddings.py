"""The embeddings are those of the model, and the endpoint says the same as the function."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

from testbed.embeddings import EmbeddingsServer, embed
from testbed.minilm import DIMENSIONS, Floats


@pytest.fixture(scope="module")
def endpoint() -> Iterator[EmbeddingsServer]:
    """A running endpoint."""
    with EmbeddingsServer() as server:
        yield server


def _post(endpoint: EmbeddingsServer, **request: object) -> list[object]:
    call = urllib.request.Request(f"{endpoint.url}/embeddings", data=json.dumps(request).encode())
    with urllib.request.urlopen(call, timeout=30) as response:
        return [item["embedding"] for item in json.load(response)["data"]]


def test_similarities_are_those_of_the_model() -> None:
    # Sentence Transformers' documentation shows this table for the model.
    vectors = embed(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    expected = np.array([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-4)


def test_shape_type_and_length() -> None:
    vectors = embed(["a", "a longer text of several words", "", "ü" * 5000])
    assert vectors.shape == (4, DIMENSIONS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    assert embed([]).shape == (0, DIMENSIONS)


def test_a_batch_gives_what_single_texts_give() -> None:
    texts = [f"memory {number} " + "and so on " * (number % 7) for number in range(60)]
    alone: Floats = np.concatenate([embed([text]) for text in texts])
    np.testing.assert_allclose(embed(texts), alone, atol=1e-6)


def test_endpoint_floats_are_exact(endpoint: EmbeddingsServer) -> None:
    text = "Alice prefers tea"
    for given in (text, [text]):
        (answered,) = _post(endpoint, input=given, model="any")
        assert np.array_equal(np.array(answered, dtype=np.float32), embed([text])[0])


def test_endpoint_base64(endpoint: EmbeddingsServer) -> None:
    (answered,) = _post(endpoint, input=["Alice prefers tea"], model="any", encoding_format="base64")
    assert isinstance(answered, str)
    assert np.array_equal(np.frombuffer(base64.b64decode(answered), "<f4"), embed(["Alice prefers tea"])[0])


@pytest.mark.parametrize("request_body", [{}, {"input": []}, {"input": [1]}, {"input": "x", "dimensions": 5}])
def test_bad_requests_are_refused(endpoint: EmbeddingsServer, request_body: dict[str, object]) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        _post(endpoint, **request_body)
    with raised.value as error:
        assert error.code == 400
