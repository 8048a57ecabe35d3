"""Glyphs: a data set of 62 classes (0-9, A-Z, a-z) drawn with the fonts of this machine.

Each sample is one character in one font at a random size, place and rotation, light on dark or dark on light, with
blur and noise. Train and test use the same fonts with different random numbers: what is tested is quantization.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

CLASSES = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SIZE = 32
FOLDERS = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".fonts")


def fonts() -> list[Path]:
    """Every TrueType and OpenType text font, by name."""
    found = [path for folder in FOLDERS for path in sorted(folder.rglob("*.[ot]tf"))]
    usable = [path for path in found if "Math" not in path.name and "Symbol" not in path.name]
    if not usable:
        raise SystemExit("no fonts in /usr/share/fonts: install some, such as the package fonts-dejavu")
    return usable


def render(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images (count, 3, 32, 32), about zero mean and unit variance, and labels (count,)."""
    random = np.random.default_rng(seed)
    loaded = {(path, size): ImageFont.truetype(str(path), size) for path in fonts() for size in range(18, 29, 2)}
    keys = sorted(loaded, key=str)
    labels = random.integers(0, len(CLASSES), count)
    images = np.empty((count, 3, SIZE, SIZE), np.float32)
    for index, label in enumerate(labels):
        font = loaded[keys[int(random.integers(len(keys)))]]
        images[index] = _sample(CLASSES[label], font, random)
    return images, labels.astype(np.int64)


def _sample(text: str, font: ImageFont.FreeTypeFont, random: np.random.Generator) -> NDArray[np.float32]:
    canvas = Image.new("L", (SIZE, SIZE), 0)
    left, top, right, bottom = font.getbbox(text)
    x = (SIZE - (right - left)) / 2 - left + random.uniform(-3, 3)
    y = (SIZE - (bottom - top)) / 2 - top + random.uniform(-3, 3)
    ImageDraw.Draw(canvas).text((x, y), text, font=font, fill=255)
    canvas = canvas.rotate(float(random.uniform(-12, 12)), Image.Resampling.BILINEAR)
    canvas = canvas.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 0.9))))
    ink = np.asarray(canvas, np.float32)[None] / 255
    front, back = random.uniform(0, 1, (3, 1, 1)), random.uniform(0, 1, (3, 1, 1))
    while np.abs(front - back).mean() < 0.3:
        front, back = random.uniform(0, 1, (3, 1, 1)), random.uniform(0, 1, (3, 1, 1))
    image = back + (front - back) * ink + random.normal(0, 0.08, (3, SIZE, SIZE))
    return ((np.clip(image, 0, 1) - 0.5) / 0.29).astype(np.float32)
