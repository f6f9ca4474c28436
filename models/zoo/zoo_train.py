"""Weights of the zoo: training with jax for the digit models, a seeded initialisation for `attention`.

Every draw is seeded and every step runs on one core, so that a second run on the same machine gives the same bits.
Loading this module therefore pins the process to one core.
"""

import os

# Work split over cores changes the order of additions, and with it the last bits of the trained weights. One core for
# the whole process, chosen before jax counts them, makes the result independent of how many the machine has.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.environ["JAX_PLATFORMS"] = "cpu"

from dataclasses import dataclass
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from zoo_data import SEED
from zoo_graphs import BLOCKS, EMBEDDING, Weights

Forward = Callable[[dict, jax.Array, jax.Array | None], jax.Array]


@dataclass(frozen=True)
class Recipe:
    """How one model is trained: AdamW on the squared error, cosine decay to zero, no look at held-out images."""

    epochs: int
    learning_rate: float
    weight_decay: float
    batch: int = 64


def dense(weights: dict, layer: int, x: jax.Array) -> jax.Array:
    return x @ weights[f"fc{layer}.weight"].T + weights[f"fc{layer}.bias"]


def mlp(weights: dict, x: jax.Array, _key: jax.Array | None) -> jax.Array:
    x = x.reshape(len(x), -1)
    for layer in range(1, 6):
        x = jax.nn.relu(dense(weights, layer, x))
    return dense(weights, 6, x)[:, 0]


def cnn(weights: dict, x: jax.Array, _key: jax.Array | None) -> jax.Array:
    for layer in (1, 2):
        x = jax.lax.conv_general_dilated(x, weights[f"conv{layer}.weight"], (1, 1), [(2, 2), (2, 2)])
        x = jax.nn.relu(x + weights[f"conv{layer}.bias"][:, None, None])
        count, channels, height, width = x.shape
        x = x.reshape(count, channels, height // 2, 2, width // 2, 2).max(axis=(3, 5))
    x = x.reshape(len(x), -1)
    x = jax.nn.relu(dense(weights, 1, x))
    x = jax.nn.relu(dense(weights, 2, x))
    return dense(weights, 3, x)[:, 0]


def mlp2(weights: dict, x: jax.Array, key: jax.Array | None) -> jax.Array:
    """Drops a fifth of the second hidden layer while training (`key` given), nothing at inference."""
    x = x.reshape(len(x), -1)
    x = jax.nn.sigmoid(dense(weights, 1, x))
    x = jax.nn.sigmoid(dense(weights, 2, x))
    if key is not None:
        x = jnp.where(jax.random.bernoulli(key, 0.8, x.shape), x / 0.8, 0.0)
    x = jax.nn.relu(dense(weights, 3, x))
    x = jax.nn.relu(dense(weights, 4, x))
    return dense(weights, 6, dense(weights, 5, x))[:, 0]


def testing(weights: dict, x: jax.Array, _key: jax.Array | None) -> jax.Array:
    for layer in range(1, 13):
        x = dense(weights, layer, x)
    return x[:, 0]


def dense_init(rng: np.random.Generator, widths: list[int], gain: float) -> Weights:
    """Normal weights of variance gain / fan-in, zero biases, for the layers `fc1`, `fc2`, ..."""
    weights = {}
    for layer, (fan_in, fan_out) in enumerate(zip(widths, widths[1:]), start=1):
        weights[f"fc{layer}.weight"] = rng.standard_normal((fan_out, fan_in)) * np.sqrt(gain / fan_in)
        weights[f"fc{layer}.bias"] = np.zeros(fan_out)
    return as_float32(weights)


def cnn_init(rng: np.random.Generator) -> Weights:
    convolutions = {}
    for layer, (channels_in, channels_out) in enumerate([(1, 5), (5, 10)], start=1):
        deviation = np.sqrt(2.0 / (channels_in * 25))
        convolutions[f"conv{layer}.weight"] = rng.standard_normal((channels_out, channels_in, 5, 5)) * deviation
        convolutions[f"conv{layer}.bias"] = np.zeros(channels_out)
    return as_float32(convolutions) | dense_init(rng, [490, 50, 10, 1], gain=2.0)


def orthogonal_init(rng: np.random.Generator, widths: list[int]) -> Weights:
    """Orthonormal rows or columns: twelve linear layers in a row neither blow a signal up nor lose it."""
    weights = {}
    for layer, (fan_in, fan_out) in enumerate(zip(widths, widths[1:]), start=1):
        square = max(fan_in, fan_out)
        basis, _ = np.linalg.qr(rng.standard_normal((square, square)))
        weights[f"fc{layer}.weight"] = basis[:fan_out, :fan_in]
        weights[f"fc{layer}.bias"] = np.zeros(fan_out)
    return as_float32(weights)


def attention_init(rng: np.random.Generator) -> Weights:
    """Random weights, untrained: uniform Xavier matrices, small biases, layer norms near the identity.

    Matrices are stored [in, out], ready for MatMul: the transpose of what PyTorch's MultiheadAttention holds.
    """
    def matrix(fan_in: int, fan_out: int) -> np.ndarray:
        bound = np.sqrt(6.0 / (fan_in + fan_out))
        return rng.uniform(-bound, bound, (fan_in, fan_out))

    def bias(width: int) -> np.ndarray:
        return rng.uniform(-0.05, 0.05, width)

    weights, width = {}, EMBEDDING
    for block in range(BLOCKS):
        weights |= {
            f"layers.{block}.self_attn.in_proj_weight": matrix(width, 3 * width),
            f"layers.{block}.self_attn.in_proj_bias": bias(3 * width),
            f"layers.{block}.self_attn.out_proj.weight": matrix(width, width),
            f"layers.{block}.self_attn.out_proj.bias": bias(width),
            f"layers.{block}.norm1.weight": 1.0 + rng.uniform(-0.1, 0.1, width),
            f"layers.{block}.norm1.bias": bias(width),
            f"layers.{block}.linear1.weight": matrix(width, width),
            f"layers.{block}.linear1.bias": bias(width),
            f"layers.{block}.linear2.weight": matrix(width, width),
            f"layers.{block}.linear2.bias": bias(width),
        }
    return as_float32(weights)


def as_float32(weights: Weights) -> Weights:
    return {name: value.astype(np.float32) for name, value in weights.items()}


def train(forward: Forward, start: Weights, inputs: np.ndarray, targets: np.ndarray, recipe: Recipe) -> Weights:
    """Fits `forward` to `targets` (float32 [count]) and returns the trained weights as float32 arrays."""
    batches_per_epoch = len(inputs) // recipe.batch
    steps = recipe.epochs * batches_per_epoch

    def loss(weights, x, y, key):
        return jnp.mean((forward(weights, x, key) - y) ** 2)

    @jax.jit
    def step(weights, first, second, number, x, y, key):
        gradients = jax.grad(loss)(weights, x, y, key)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
        rate = recipe.learning_rate * 0.5 * (1.0 + jnp.cos(jnp.pi * number / steps))

        def moved(weight, m, v):
            direction = (m / (1 - 0.9 ** (number + 1))) / (jnp.sqrt(v / (1 - 0.999 ** (number + 1))) + 1e-8)
            return weight - rate * (direction + recipe.weight_decay * weight)

        return jax.tree.map(moved, weights, first, second), first, second

    rng = np.random.default_rng(SEED + 3)
    key = jax.random.key(SEED)
    weights = jax.tree.map(jnp.asarray, start)
    first = jax.tree.map(jnp.zeros_like, weights)
    second = jax.tree.map(jnp.zeros_like, weights)
    number = 0
    for _ in range(recipe.epochs):
        order = rng.permutation(len(inputs))
        for batch in range(batches_per_epoch):
            picked = order[batch * recipe.batch : (batch + 1) * recipe.batch]
            weights, first, second = step(
                weights, first, second, jnp.float32(number), inputs[picked], targets[picked], jax.random.fold_in(key, number)
            )
            number += 1
    return {name: np.asarray(weights[name]) for name in start}
