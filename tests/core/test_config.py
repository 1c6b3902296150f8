from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univert.core.config import config_from_toml, config_to_toml, from_plain, read_settings
from univert.core.errors import BadInputError
from univert.training.label_config import LabelLoopConfig, SpecialistsConfig
from univert.training.recipe import Recipe


@given(seed=st.integers(0, 2**31), rate=st.floats(1e-8, 10), align=st.booleans(), sizes=st.lists(st.integers(1, 9)))
def test_recipes_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rate: float, align: bool, sizes: list[int]
) -> None:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    values = {
        "seed": seed,
        "unify": {"align": align, "loop": {"learning_rate": rate}},
        "model": {"hidden_sizes": sizes},
    }
    recipe = from_plain(Recipe, values)
    path.write_text(config_to_toml(recipe))
    assert config_from_toml(Recipe, path) == recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sede": 1}, "unknown key sede; did you mean seed?"),
        ({"unify": {"loop": {"epoch": 3}}}, "unknown key unify.loop.epoch; did you mean unify.loop.epochs?"),
        (
            {"specialists": {"reseed_every_steps": 0}},
            "specialists.reseed_every_steps: Input should be greater than or equal to 1, got 0",
        ),
        ({"specialists": {"loss": "cosine"}}, "specialists.loss"),
        ({"combine": {"mode": "off", "trials": 3}}, 'combine.trials has no effect where combine.mode is "off"'),
        (
            {"base_network_learns": "yes"},
            "base_network_learns: Input should be 'auto', 'no', 'last_blocks' or 'all', got",
        ),
        ({"base_network_learns": "all", "maps_gb": 1.0}, 'maps_gb has no effect where base_network_learns is "all"'),
    ],
)
def test_mistakes_name_the_key_and_the_fix(values: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError) as error:
        from_plain(Recipe, values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_change_single_keys(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("[specialists.loop]\nepochs = 7\n")
    changes = ["specialists.loss=proxy-nca", "specialists.loss_options.softmax_scale = 4.5"]
    assert read_settings(Recipe, path, changes).specialists == SpecialistsConfig(
        loss="proxy-nca", loss_options={"softmax_scale": 4.5}, loop=LabelLoopConfig(epochs=7)
    )
    for bad, message in (("seed", "key=value"), ("seed.x=1", "unknown key|valid|seed")):
        with pytest.raises(BadInputError, match=message):
            read_settings(Recipe, path, [bad])
