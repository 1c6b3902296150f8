"""A small shop drawn by code: three verticals, products with a look of their own, hostile names and awkward ids."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from tests.data.pictures import encoded
from univert.data.names import ProductName
from univert.data.rows import SourceRow

VERTICALS = ("bags", "lamps", "shoes")
BRANDS = ("Maker & Sons", "Núñez", "plain")
STYLES = ("round", "square")
PRODUCTS = 8
COPIES = 4
HOSTILE = "<img src=x onerror=alert(1)>"
SPLITS = ("train", "train", "val", "test")


def look(vertical: int, product: int, copy: int = 0, side_px: int = 160) -> Image.Image:
    """A product is a pattern of blocks in its vertical's outline; a copy is a little brighter."""
    rng = np.random.default_rng((vertical, product))
    blocks = rng.integers(0, 190, size=(4, 4, 3), dtype=np.uint8) + np.uint8(15 * copy)
    pattern = Image.fromarray(blocks).resize((side_px, side_px), Image.Resampling.NEAREST)
    outline = Image.new("L", (side_px, side_px), 0)
    draw, low, high = ImageDraw.Draw(outline), side_px // 16, side_px - side_px // 16
    if vertical == 0:
        draw.rounded_rectangle((low, low + side_px // 6, high, high), side_px // 8, fill=255)
        draw.arc((side_px // 3, low, side_px - side_px // 3, side_px // 2), 180, 360, fill=255, width=side_px // 20)
    elif vertical == 1:
        draw.ellipse((low, low, high, high), fill=255)
    else:
        draw.polygon([(low, high), (low, side_px // 3), (side_px // 2, side_px // 2), (high, high)], fill=255)
    canvas = Image.new("RGB", (side_px, side_px), "white")
    canvas.paste(pattern, mask=outline)
    return canvas


def item_id(vertical: int, product: int, copy: int) -> str:
    """Ids need care in an address: a slash, a space, a letter beyond ASCII."""
    return f"{VERTICALS[vertical]}/näme {product}?-{copy}"


def product_name(vertical: int, product: int) -> str | None:
    """One product has no name, one has a hostile one."""
    if product == 7:
        return None
    return HOSTILE if (vertical, product) == (2, 6) else f"{VERTICALS[vertical]} {product}"


def names() -> Iterator[ProductName]:
    """What the products are called, in two languages."""
    things = {"bags": ("bag", "sac"), "lamps": ("lamp", "lampe"), "shoes": ("shoe", "chaussure")}
    looks = (("striped", "rayé"), ("golden", "doré"), ("tiny", "petit"), ("leather", "cuir"), ("summer", "été"))
    for vertical, name in enumerate(VERTICALS):
        for product, (english, french) in enumerate(looks):
            product_id = product_name(vertical, product)
            assert product_id is not None
            yield ProductName(product_id, f"{english} {things[name][0]}", "en", ("gift",))
            yield ProductName(product_id, f"{things[name][1]} {french}", "fr")


def rows() -> Iterator[SourceRow]:
    """The shop as a catalogue."""
    for vertical, name in enumerate(VERTICALS):
        for product in range(PRODUCTS):
            for copy in range(COPIES):
                yield SourceRow(
                    origin="shop",
                    id=item_id(vertical, product, copy),
                    image=encoded(look(vertical, product, copy)),
                    vertical=name,
                    product=product_name(vertical, product),
                    brand=BRANDS[copy % len(BRANDS)],
                    style=STYLES[0 if name == "lamps" else product % len(STYLES)],  # so that one pair is not there
                    split=SPLITS[product % len(SPLITS)],
                    source="studio",
                )


def photo(vertical: int = 0, product: int = 0) -> bytes:
    """A photo of a product that is in the shop."""
    return encoded(look(vertical, product))


def scene(width_px: int = 800, height_px: int = 600) -> bytes:
    """A photo of four products on a table: bag 1 and lamp 2 above, shoe 3 and bag 4 below."""
    table = Image.new("RGB", (width_px, height_px), (250, 248, 244))
    side = min(width_px, height_px) * 2 // 5
    for place, (vertical, product) in enumerate(((0, 1), (1, 2), (2, 3), (0, 4))):
        x, y = (place % 2) * width_px // 2, (place // 2) * height_px // 2
        table.paste(look(vertical, product, side_px=side), (x + side // 4, y + side // 8))
    return encoded(table, "JPEG")
