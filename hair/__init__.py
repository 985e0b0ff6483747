"""Find the hair in photos.

    from hair import HairSegmenter, read_photo

    photo = read_photo("me.jpg")
    probabilities = HairSegmenter()(photo)  # float32 (H, W) in [0, 1]

This package runs trained models without PyTorch. It imports nothing else from the project.
"""

from hair.errors import UserError
from hair.photos import read_photo
from hair.segmenter import HairSegmenter

__all__ = ["HairSegmenter", "UserError", "read_photo"]
__version__ = "1.0.0"
