"""Calibrated probabilities: logits divided by one temperature that is fitted on held-out cases."""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

COLDEST, HOTTEST = 0.1, 10.0


def probabilities_of(logits: Tensor, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the (N, K) softmax of ``logits`` divided by ``temperature``."""
    return (logits.double() / temperature).softmax(dim=1).cpu().numpy()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature in [0.1, 10] that gives (N,) ``labels`` the least mean -log p (Guo et al. 2017, 4.2).

    The loss is convex in the inverse temperature, so the search over its logarithm finds the only minimum. Where every
    label has the largest logit there is none, and a value near the lower bound is returned; the bounds are ours.
    """
    exact, truth = logits.double().cpu(), labels.cpu()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(exact / math.exp(log_temperature), truth))

    found = minimize_scalar(
        loss, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded", options={"xatol": 1e-6}
    )
    return math.exp(found.x)
