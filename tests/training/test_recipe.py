from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from univert.core.config import from_plain
from univert.core.errors import BadInputError
from univert.training.recipe import Recipe


def test_a_recipe_is_checked_without_torch() -> None:
    code = (
        "import sys; from univert.core.config import read_settings; from univert.training import Recipe\n"
        "try: read_settings(Recipe, None, ['specialists.los=nca'])\n"
        "except Exception as error: print(error, [name for name in ('torch', 'timm') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "recipe: unknown key specialists.los; did you mean specialists.loss? []\n"


@pytest.mark.parametrize(
    ("specialists", "message"),
    [
        ({"loss_options": {"marign": 0.3}}, "has no option 'marign'"),
        ({"loss_options": {"margin": "wide"}}, "margin of 'triplet' must be a number"),
        ({"proxies_per_product": 2.0}, "specialists.proxies_per_product has no effect on the loss 'triplet'"),
        ({"loss": "proxy-nca", "miner": "hard"}, "specialists.miner has no effect"),
        ({"loop": {"images_per_product": 1}}, "images_per_product must be at least 2 for 'triplet'"),
        ({"loop": {"batch_size": 6}}, "batch_size must be at least twice images_per_product"),
    ],
)
def test_what_does_not_fit_the_loss_is_refused(specialists: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError) as error:
        from_plain(Recipe, {"specialists": specialists})
    assert message in str(error.value)
