import numpy as np
import pytest
from PIL import Image

from univert.core.errors import BadInputError
from univert.metrics.separation import separation
from univert.report.map_figure import save_map_figure

VERTICALS = ["bags", "_shoes $x$", "hats"] * 8
VECTORS = np.random.default_rng(0).normal(size=(24, 6)).astype(np.float32)


def test_the_same_arguments_give_the_same_file(tmp_path):
    targets = np.random.default_rng(1).normal(size=(24, 3)).astype(np.float32)
    paths = [tmp_path / folder / "map.png" for folder in ("one", "two")]
    for path in paths:
        numbers = save_map_figure(path, VECTORS, VERTICALS, targets=targets)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert numbers == [separation(targets, VERTICALS), separation(VECTORS, VERTICALS)]
    with Image.open(paths[0]) as image:
        assert image.width > image.height > 300


def test_a_sample_of_whole_products_without_targets(tmp_path):
    products = [f"p{row // 6}" if row < 18 else None for row in range(24)]
    (found,) = save_map_figure(tmp_path / "map.svg", VECTORS, VERTICALS, products=products, total=12)
    assert sum(one.images for one in found.verticals) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "map.bmp"}, "must end in .svg, .png, .pdf, got 'map.bmp'"),
        ({"verticals": ["a"]}, "verticals must have one entry"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, arguments, message):
    given = {"path": "map.svg", "vectors": VECTORS, "verticals": VERTICALS, **arguments}
    given["path"] = tmp_path / given["path"]
    with pytest.raises(BadInputError, match=message):
        save_map_figure(**given)
    assert not list(tmp_path.iterdir())
