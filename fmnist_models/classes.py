"""What the ten kinds of garments are called, in the order of their numbers. Light to import, unlike the images."""

from __future__ import annotations

CLASS_NAMES: tuple[str, ...] = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""As torchvision's ``FashionMNIST.classes`` has them."""
