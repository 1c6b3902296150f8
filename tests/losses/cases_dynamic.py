"""Proxy-NCA with dynamic assignment."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.losses.case import SIZE, Case, proxies
from tests.oracles import dynamic as oracles
from univert.losses.dynamic_proxy_nca_loss import DynamicProxyNCALoss, Form, Negatives

COUNT = 7


def _case(form: Form, negatives: Negatives) -> Case:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        module = DynamicProxyNCALoss(COUNT, SIZE, form=form, negatives=negatives)
        with torch.no_grad():
            module.bank.proxies.copy_(proxies(COUNT))
        return module(x, y)

    def oracle(x: Tensor, y: Tensor) -> Tensor:
        return oracles.by_labels(x, proxies(COUNT), y, 9.0, form, negatives)

    return Case(DynamicProxyNCALoss, loss, oracle)


CASES = {
    "dynamic-proxy-nca": _case("softmax", "batch"),
    "dynamic-proxy-nca-paper": _case("paper", "batch"),
    "dynamic-proxy-nca-all": _case("softmax", "all"),
    "dynamic-proxy-nca-all-paper": _case("paper", "all"),
}
