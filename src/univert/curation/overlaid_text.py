"""Text and watermarks laid over pictures, told by a rater that learns from copies it writes upon itself.

Pooled features of the whole base network hardly see them: they are made to tell products. Maps at a sixteenth of the
picture's size do, by their maximum over all places.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from scipy import special

from univert.core.errors import BadInputError
from univert.core.terminal import Advance, progress_bar
from univert.data.transforms import Preprocessing
from univert.models.config import EmbedderConfig

OVERLAYS: Final = ("tiled", "centre", "corner", "banner", "badge", "caption")
"""Ways of writing on a picture: a pattern, a big word, a small one, words on a strip, on a disc, and small print."""

_IMAGE_SIZE_PX: Final = 240
_STAGES_LEFT_OUT: Final = 2
_FEATURES: Final = 224
_AT_ONCE: Final = 4
_FOLDS: Final = 5
_FALSE_ALARMS: Final = 0.02
"""The share of the clean pictures that may be left out."""
_WORDS: Final = ("SALE", "sample", "Preview", "photo-shop.com", "© stock", "50% OFF", "Möbel", "free shipping", "NEW")
_COLOURS: Final = ((255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 30, 30), (30, 60, 160))


@dataclass(frozen=True, kw_only=True)
class OverlayRater:
    """Logistic regression on early maps of the ImageNet network.

    Attributes:
        bias: log odds at features of zero.
        weights: of each feature.
        threshold: probability from which a picture is left out.
    """

    bias: float
    weights: tuple[float, ...]
    threshold: float

    @classmethod
    def learn(cls, pictures: Sequence[Image.Image]) -> OverlayRater:
        """Learn from pictures, most of them clean, and a copy of each for each way of writing on it.

        All are shrunk and saved as JPEG by chance, or else pictures from elsewhere would be told by that.

        Args:
            pictures: mode RGB; a few hundred like those to be rated, none of them twice.

        Raises:
            BadInputError: fewer than ten pictures.
        """
        rng, fonts = np.random.default_rng(0), default_fonts()
        written = (write_over(one, way, str(rng.choice(fonts)), rng) for way in OVERLAYS for one in pictures)
        with progress_bar("learning to tell text over pictures", len(pictures) * (1 + len(OVERLAYS))) as advance:
            saved = (_saved_again(one, rng, advance) for one in itertools.chain(pictures, written))
            features = overlay_features(saved)
        return cls.fit(features[: len(pictures)], features[len(pictures) :])

    @classmethod
    def fit(cls, clean: Float[np.ndarray, "N F"], written: Float[np.ndarray, "M F"]) -> OverlayRater:
        """Fit to `overlay_features` of pictures, and of copies: all pictures written upon in one way, and again.

        Pictures that a rater of the others takes for written upon are left out with their copies.

        Raises:
            BadInputError: fewer than ten pictures.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GroupKFold, cross_val_predict

        if len(clean) < 2 * _FOLDS:
            raise BadInputError(f"overlaid text is learned from at least {2 * _FOLDS} pictures, got {len(clean)}")
        features, picture = np.concatenate([clean, written]), np.arange(len(clean) + len(written)) % len(clean)
        damaged = np.arange(len(features)) >= len(clean)
        means, scales = features.mean(0), np.maximum(features.std(0), 1e-6)
        inputs = (features - means) / scales
        regression = LogisticRegression(C=0.01, max_iter=500, class_weight="balanced")

        def unseen(rows: np.ndarray) -> np.ndarray:
            """How probable it is that each picture itself is written upon, from the others."""
            found: np.ndarray = cross_val_predict(
                regression, inputs[rows], damaged[rows], groups=picture[rows], cv=GroupKFold(_FOLDS),
                method="predict_proba",
            )[~damaged[rows], 1]  # fmt: skip
            return found

        rows = np.arange(len(features))
        fine = np.flatnonzero(unseen(rows) < 0.5)
        if len(fine) >= 2 * _FOLDS:
            rows = np.flatnonzero(np.isin(picture, fine))
        threshold = float(np.quantile(unseen(rows), 1 - _FALSE_ALARMS))
        weights = regression.fit(inputs[rows], damaged[rows]).coef_[0] / scales
        return cls(
            bias=float(regression.intercept_[0] - weights @ means), weights=tuple(weights.tolist()), threshold=threshold
        )

    def probabilities(self, features: Float[np.ndarray, "N F"]) -> Float[np.ndarray, " N"]:
        """From `overlay_features` of pictures, that text or a watermark lies over them."""
        found: np.ndarray = special.expit(features @ np.array(self.weights) + self.bias)
        return found

    def reasons(self, pictures: Iterable[Image.Image]) -> list[str | None]:
        """Why each picture (mode RGB) is left out; None where nothing lies over it."""
        return [
            f"text or a watermark lies over it (probability {found:.2f})" if found > self.threshold else None
            for found in self.probabilities(overlay_features(pictures))
        ]


def overlay_features(pictures: Iterable[Image.Image]) -> Float[np.ndarray, "N F"]:
    """Maxima and means over all places of the network's early maps."""
    early, normalise, preprocessing = _early_network()
    images, parts = iter(pictures), []
    with torch.inference_mode():
        while squares := [preprocessing(image) for image in itertools.islice(images, _AT_ONCE)]:
            maps = early(normalise(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)))
            parts.append(torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1).numpy().astype(np.float64))
    return np.concatenate(parts) if parts else np.zeros((0, _FEATURES))


def write_over(image: Image.Image, way: str, font: str, rng: np.random.Generator) -> Image.Image:
    """A copy of a picture with text or a watermark on it.

    Args:
        image: mode RGB.
        way: one of `OVERLAYS`.
        font: a font's file.
        rng: draws words, places, sizes and colours.
    """
    layer = Image.new("RGBA", image.size)
    draw, (width, height) = ImageDraw.Draw(layer), image.size

    def letters(low: float, high: float) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(font, max(9, int(rng.uniform(low, high) * height)))

    def ink(low: int, high: int) -> tuple[int, ...]:
        return (*_COLOURS[rng.integers(len(_COLOURS))], int(rng.integers(low, high)))

    def words(count: int) -> str:
        return " ".join(rng.choice(_WORDS, count))

    if way == "tiled":
        size, text, colour = letters(0.05, 0.09), words(2), ink(90, 200)
        step = int(rng.uniform(0.16, 0.3) * height) + 1
        for line, y in enumerate(range(-height, 2 * height, step)):
            draw.text((-(line % 2) * step, y), "   ".join([text] * 8), colour, size)
        layer = layer.rotate(float(rng.uniform(15, 45)))
    elif way == "centre":
        draw.text((width / 2, height / 2), words(1), ink(90, 200), letters(0.12, 0.24), anchor="mm")
        layer = layer.rotate(float(rng.choice([0, 0, 30, 45])))
    elif way == "corner":
        right, low = rng.integers(2, size=2)
        place = (width * (0.97 if right else 0.03), height * (0.97 if low else 0.03))
        draw.text(place, words(1), ink(160, 255), letters(0.06, 0.1), anchor="lr"[right] + "td"[low])
    elif way == "banner":
        top = int(rng.choice([0, 0.8]) * height)
        draw.rectangle((0, top, width, top + 0.2 * height), ink(180, 255))
        draw.text((width / 2, top + 0.1 * height), words(2), (255, 255, 0, 255), letters(0.08, 0.12), anchor="mm")
    elif way == "badge":
        radius, (x, y) = rng.uniform(0.12, 0.2) * height, rng.choice([0.2, 0.8], 2) * (width, height)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), ink(200, 255))
        draw.text((x, y), f"-{rng.integers(5, 90)}%", (255, 255, 255, 255), letters(0.08, 0.12), anchor="mm")
    else:
        size, colour = letters(0.04, 0.06), ink(180, 255)
        for line in range(int(rng.integers(2, 5))):
            draw.text((0.05 * width, (0.1 + 0.07 * line) * height), words(4), colour, size)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _saved_again(image: Image.Image, rng: np.random.Generator, advance: Advance) -> Image.Image:
    advance(1)
    scale = float(rng.uniform(0.5, 1.1))
    resized = image.resize((max(8, round(image.width * scale)), max(8, round(image.height * scale))))
    content = io.BytesIO()
    resized.save(content, "JPEG", quality=int(rng.integers(60, 96)))
    return Image.open(content).convert("RGB")


def default_fonts() -> list[str]:
    """Files of the fonts that matplotlib brings, those of letters."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return sorted(str(path) for path in folder.glob("*.ttf") if path.name.startswith(("DejaVuS", "STIXGeneral")))


@cache
def _early_network() -> tuple[Any, Any, Preprocessing]:
    """The ImageNet network up to its maps at a sixteenth of the picture, its normalisation and its preprocessing."""
    from univert.models.embedder import Embedder
    from univert.models.folding import fold_batch_norms

    with torch.random.fork_rng(devices=[]):
        embedder = Embedder(EmbedderConfig(size=None, image_size_px=_IMAGE_SIZE_PX)).eval()
    cut: Any = embedder.base_network.cut(_STAGES_LEFT_OUT, _IMAGE_SIZE_PX)
    modules = fold_batch_norms(embedder).base_network.parts()[: len(cut.front)]
    return torch.nn.Sequential(*modules), embedder.normalise, embedder.preprocessing
