"""Where to compute."""

from __future__ import annotations

import torch

from univert.core.errors import BadInputError


def choose_device(name: str) -> torch.device:
    """A device that works.

    Args:
        name: as torch names it, or `auto`: CUDA where there is one, else the CPU.

    Raises:
        BadInputError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInputError(f"device {name!r} cannot be used: {reason}; try auto or cpu") from None
    return device
