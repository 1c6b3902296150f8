"""Optimisers: one for dense parameters and, where proxies have sparse gradients, one that touches only their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Integer
from torch import Tensor, nn

from univert.proxies.bank import ProxyBank
from univert.proxies.dynamic import forget_rows
from univert.training.label_config import LabelLoopConfig, OptimiserName

RMSPROP_SMOOTHING = 0.9


class Optimisers:
    """Several optimisers as one, over named parameter groups.

    Args:
        groups: parameter groups with `name`, `params` and `weight_decay`; learning rates are set before each step.
        name: `adamw` or `rmsprop`, for dense parameters.
        sparse: parameters that get sparse gradients; lazy Adam updates the rows that have one, and their momentum
            alone.
    """

    def __init__(self, groups: list[dict[str, Any]], name: OptimiserName, sparse: list[nn.Parameter]) -> None:
        lazy = {id(parameter) for parameter in sparse}
        dense = [{**group, "params": [p for p in group["params"] if id(p) not in lazy]} for group in groups]
        dense = [group for group in dense if group["params"]]
        rows = [{**group, "params": [p for p in group["params"] if id(p) in lazy]} for group in groups]
        rows = [{k: v for k, v in group.items() if k != "weight_decay"} for group in rows if group["params"]]
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if dense:
            self._parts["dense"] = (
                torch.optim.AdamW(dense, fused=True)
                if name == "adamw"
                else torch.optim.RMSprop(dense, alpha=RMSPROP_SMOOTHING)
            )
        if rows:
            self._parts["sparse"] = torch.optim.SparseAdam(rows)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all of them."""
        return [group for part in self._parts.values() for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move the parameters."""
        for part in self._parts.values():
            part.step()

    def forget_rows(self, parameter: nn.Parameter, rows: Integer[Tensor, "K"]) -> None:
        """Clear the momentum of rows that were put elsewhere; see `univert.proxies.dynamic.forget_rows`."""
        for part in self._parts.values():
            if parameter in part.state:
                forget_rows(part, parameter, rows)

    def state_dict(self) -> dict[str, Any]:
        """The state of each."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring back what `state_dict` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def parameter_groups(
    model: Mapping[str, Sequence[nn.Parameter]], proxies: Sequence[nn.Parameter], config: LabelLoopConfig
) -> list[dict[str, Any]]:
    """Parameter groups for `Optimisers`: own rates for head, base network and proxies; decay on matrices alone.

    Each has `params`, `name`, `peak` (the learning rate at its highest) and `weight_decay`; none is empty.
    """
    rates = {"head": config.learning_rate, "base network": config.base_network_learning_rate}
    groups: list[dict[str, Any]] = []
    for name, parameters in model.items():
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        others = [parameter for parameter in parameters if parameter.ndim <= 1]
        for chosen, decay in ((matrices, config.weight_decay), (others, 0.0)):
            groups.append({"params": chosen, "name": name, "peak": rates[name], "weight_decay": decay})
    groups.append({"params": list(proxies), "name": "proxies", "peak": config.proxy_learning_rate, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def sparse_parameters(loss: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of a loss that get sparse gradients: those of proxy banks made so."""
    for module in loss.modules():
        if isinstance(module, ProxyBank) and module.sparse:
            yield module.proxies
