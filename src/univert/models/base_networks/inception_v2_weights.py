"""The published ImageNet weights of `inception_v2`: where they lie, and how they become ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from univert.core.errors import BadInputError

WEIGHTS_VARIABLE = "UNIVERT_INCEPTION_V2_WEIGHTS"
"""The environment variable that names a safetensors file with ImageNet weights."""

# The published weights were trained on BGR pixels from 0 to 255 with these means subtracted, undivided. Here
# pixels are RGB from 0 to 1 and divided by the usual deviations, for the sake of training from scratch;
# conversion moves the difference into the first convolution.
MEAN_RGB = (128 / 255, 117 / 255, 104 / 255)
STD_RGB = (0.229, 0.224, 0.225)

_STEM = {"conv1": "conv1_7x7_s2", "conv2_reduce": "conv2_3x3_reduce", "conv2": "conv2_3x3"}
_BRANCHES = {
    "one": "1x1",
    "three.0": "3x3_reduce",
    "three.1": "3x3",
    "double_three.0": "double_3x3_reduce",
    "double_three.1": "double_3x3_1",
    "double_three.2": "double_3x3_2",
    "projection": "pool_proj",
}


def weights_file() -> Path:
    """The file that the environment names.

    Raises:
        BadInputError: it names none, or none that holds weights.
    """
    path = os.environ.get(WEIGHTS_VARIABLE)
    if not path:
        raise BadInputError(
            "pretrained: inception_v2 comes without weights; set pretrained = false, or name a safetensors file "
            f"of bn_inception's ImageNet weights in the environment variable {WEIGHTS_VARIABLE}"
        )
    return checked_file(Path(path))


def checked_file(path: Path) -> Path:
    """The file, if it is a safetensors file.

    Raises:
        BadInputError: it is not.
    """
    fix = (
        "the weights of inception_v2 must be one. Convert bn_inception's with "
        "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'bn_inception.safetensors')"
    )
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; {fix}")
    try:
        with safetensors.safe_open(path, framework="pt"):
            pass
    except Exception as error:
        raise BadInputError(f"{path}: not a safetensors file ({error}); {fix}") from error
    if path.suffix != ".safetensors":  # timm would take it for a pickle
        raise BadInputError(f"{path}: the name of a safetensors file must end in .safetensors; rename it")
    return path


def to_our_names(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors as ours; ours stay as they are.

    Args:
        stored: the tensors of a file.
        expected: a network's own, for their names and shapes.

    Raises:
        BadInputError: one is missing, or of another shape. The classifier may be missing.
    """
    fix = "give the weights of bn_inception"
    try:
        ours = dict(stored) if "conv1.conv.weight" in stored else dict(_converted(stored, expected))
    except KeyError as error:
        raise BadInputError(f"weights of inception_v2: there is no tensor {error}; {fix}") from None
    for name, value in expected.items():
        found = ours.get(name)
        if found is None and not name.startswith("head."):
            raise BadInputError(f"weights of inception_v2: there is no tensor {name!r}; {fix}")
        if found is not None and found.shape != value.shape:
            raise BadInputError(
                f"weights of inception_v2: {name} has shape {tuple(found.shape)}, expected {tuple(value.shape)}; {fix}"
            )
    return {name: value for name, value in ours.items() if name in expected}


def _converted(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for weight_name in expected:
        ours = weight_name.removesuffix(".conv.weight")
        if ours == weight_name:
            continue
        block, _, branch = ours.partition(".")
        theirs = f"{block}_{_BRANCHES[branch]}" if branch else _STEM[ours]
        weight = stored[f"{theirs}.weight"]
        if ours == "conv1":
            weight = weight.flip(1) * 255 * torch.tensor(STD_RGB).view(1, 3, 1, 1)
        yield weight_name, weight
        for part in ("weight", "bias", "running_var"):
            yield f"{ours}.bn.{part}", stored[f"{theirs}_bn.{part}"].flatten()
        # Their convolutions have a bias, which normalisation takes away again: here it is in the mean.
        mean = stored[f"{theirs}_bn.running_mean"].flatten()
        yield f"{ours}.bn.running_mean", mean - stored.get(f"{theirs}.bias", torch.zeros_like(mean))
        yield f"{ours}.bn.num_batches_tracked", torch.tensor(0)
    if "last_linear.weight" in stored:
        yield "head.fc.weight", stored["last_linear.weight"]
        yield "head.fc.bias", stored["last_linear.bias"]
