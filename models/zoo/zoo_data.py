"""Real data for the zoo: scikit-learn's bundled handwritten digits, resampled to what each model takes.

All images are float32 in [0, 1]. The task is the same for every trained model: "is the digit odd?", as a regression
target of +1 (odd) or -1 (even), so that the sign of the model's one output is the decision.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits

SEED = 20240607
HELD_OUT = 360
"""Images that no training step, scaling factor or principal component ever sees (one fifth of 1797)."""


@dataclass(frozen=True)
class Digits:
    """The digits, shuffled once and split; images are float64 [count, 8, 8] in [0, 1], classes int64 [count]."""

    train_images: np.ndarray
    train_classes: np.ndarray
    held_out_images: np.ndarray
    held_out_classes: np.ndarray


def digits() -> Digits:
    """Loads the bundled digits and splits them with the zoo's seed."""
    bundle = load_digits()
    images = bundle.images / 16.0
    classes = bundle.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(images))
    held_out, train = order[:HELD_OUT], order[HELD_OUT:]
    return Digits(images[train], classes[train], images[held_out], classes[held_out])


def parity(classes: np.ndarray) -> np.ndarray:
    """+1.0 for odd digits, -1.0 for even ones; float32 [count]."""
    return np.where(classes % 2 == 1, 1.0, -1.0).astype(np.float32)


def area_average_matrix(source: int, target: int) -> np.ndarray:
    """[target, source]: each output cell is the mean of the source interval it covers, fractions included."""
    edges = np.linspace(0.0, source, target + 1)
    cells = np.arange(source)
    overlap = np.minimum(edges[1:, None], cells + 1.0) - np.maximum(edges[:-1, None], cells)
    return np.clip(overlap, 0.0, None) * (target / source)


def bilinear_matrix(source: int, target: int) -> np.ndarray:
    """[target, source]: linear interpolation between pixel centres, clamped at the borders."""
    centres = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0.0, source - 1.0)
    return np.clip(1.0 - np.abs(centres[:, None] - np.arange(source)), 0.0, None)


def resample(images: np.ndarray, resampling: np.ndarray) -> np.ndarray:
    """Applies a [target, source] matrix to rows and columns; returns float32 [count, 1, target, target]."""
    resampled = np.einsum("ti,nij,uj->ntu", resampling, images, resampling)
    return resampled[:, None].astype(np.float32)


def digits_5x5(images: np.ndarray) -> np.ndarray:
    """Area average of 8x8 images; float32 [count, 1, 5, 5]."""
    return resample(images, area_average_matrix(8, 5))


def digits_28x28(images: np.ndarray) -> np.ndarray:
    """Bilinear enlargement of 8x8 images; float32 [count, 1, 28, 28]."""
    return resample(images, bilinear_matrix(8, 28))


def principal_components(train_images: np.ndarray, images: np.ndarray, count: int = 10) -> np.ndarray:
    """The first `count` principal components of the training images, each scaled to unit variance; float32 [n, count]."""
    flat = train_images.reshape(len(train_images), -1)
    mean = flat.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(flat - mean, rowvar=False))
    variances, directions = variances[::-1][:count], directions[:, ::-1][:, :count]
    # An eigenvector's sign is arbitrary: fix it so that its largest entry is positive.
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(count)]
    directions = directions * np.sign(largest)
    projected = (images.reshape(len(images), -1) - mean) @ directions
    return (projected / np.sqrt(variances)).astype(np.float32)


def embedded_sequences(data: Digits, count: int) -> np.ndarray:
    """Sequences of digit images for `attention`; float32 [count, 10, 32, 128].

    Every token is one 8x8 image: its centred 64 pixels, projected to 128 numbers by a seeded random matrix and scaled
    to unit variance over the training images. The images are held-out ones first, then training ones.
    """
    images = np.concatenate([data.held_out_images, data.train_images])[: count * 10 * 32]
    projection = np.random.default_rng(SEED + 1).standard_normal((64, 128))
    flat_train = data.train_images.reshape(-1, 64)
    mean = flat_train.mean(axis=0)
    scale = ((flat_train - mean) @ projection).std()
    embedded = (images.reshape(-1, 64) - mean) @ projection / scale
    return embedded.reshape(count, 10, 32, 128).astype(np.float32)


def first_of_each_class(classes: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first image of each of the digits 0, 1, ... count-1: varied, and chosen without looking at a model."""
    return np.array([np.flatnonzero(classes == digit)[0] for digit in range(count)])
