"""A detection data set in COCO's layout, drawn in a moment."""

import json
from pathlib import Path

import numpy as np
from mmcv.image import imwrite

# Three of COCO's 80 names, in its order.
CLASSES = ("person", "bicycle", "car")


def write_coco(
    folder: Path, num_images: int = 2, classes: tuple[str, ...] = CLASSES
) -> Path:
    """Writes images of coloured boxes, for training and for validation.

    Every image, of 48x64 pixels or turned, has one object of each of two classes. Ids
    have gaps, as in COCO.

    Args:
        folder: The new ``data_root``.
        num_images: Images of each split.
        classes: Names of the categories.
    """
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    categories = [dict(id=3 * k + 1, name=name) for k, name in enumerate(classes)]
    for split in ("train2017", "val2017"):
        images, annotations = [], []
        for index in range(num_images):
            height, width = (48, 64) if index % 2 else (64, 48)
            picture = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
            image_id, name = 100 + 7 * index, f"{index:012d}.jpg"
            for k in range(2):
                x, y, w, h = 2 + 20 * k, 4 + 8 * k, 18 + 4 * k, 20
                picture[y : y + h, x : x + w] = rng.integers(100, 255, 3)
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=categories[(index + k) % len(classes)]["id"],
                        bbox=[x, y, w, h],
                        area=w * h,
                        iscrowd=0,
                        segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                    )
                )
            imwrite(picture, str(folder / split / name))
            images.append(dict(id=image_id, file_name=name, height=height, width=width))
        content = dict(images=images, annotations=annotations, categories=categories)
        file = folder / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(content))
    return folder


def edit_coco(folder: Path, split: str = "train2017", **changes: object) -> None:
    """Replaces lists of an annotation file of :func:`write_coco`."""
    file = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(content))
