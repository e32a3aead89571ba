"""The Oxford-IIIT pets, in the layout of `torchvision.datasets.OxfordIIITPet`: the pet against the rest.

`oxford-iiit-pet/images/BREED_NUMBER.jpg` and `oxford-iiit-pet/annotations/trimaps/BREED_NUMBER.png`. A trimap holds 1
on the pet, 2 on the background and 3 on the border between them, which annotators did not decide. The border counts as
pet here, as in the tutorial of segmentation-models-pytorch; `--foreground 1` counts it as background.

The name of an image starts with its breed. The official lists of training and test images are not used: the split is
this project's. Nothing in the data says which images show the same animal, so each image is its own group.

Parkhi et al. 2012, doi:10.1109/CVPR.2012.6248092; CC BY-SA 4.0: robots.ox.ac.uk/~vgg/data/pets.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from experiments.config.schema import FOREGROUNDS
from experiments.data.listing import Listing, pair_up, require_folder, require_images, unread_files
from experiments.data.reading import Reading
from experiments.data.samples import Sample

FOLDER = "oxford-iiit-pet"  # that torchvision makes in its root
MATLAB = ".mat"  # lie beside a few images in the publisher's archive: not reported


def build(data_dir: Path | str = "data/oxford_pet") -> list[Sample]:
    """The images under `data_dir`, torchvision's root or the folder of `images` and `annotations`, with their trimaps.

    Raises InputError if a folder, the images or a trimap is missing.
    """
    return listing(data_dir).usable(f"--data oxford_pet --data-dir {shlex.quote(str(data_dir))}")


def listing(data_dir: Path | str = "data/oxford_pet") -> Listing:
    """List the pairs under `data_dir`. Raises InputError if a folder or every image is missing."""
    root = Path(data_dir)
    root = root / FOLDER if (root / FOLDER).is_dir() else root
    advice = (
        "Get the pets with: python run.py data download oxford_pet, or name the folder that holds "
        f"{FOLDER} with --data-dir."
    )
    images, masks = require_folder(root / "images", advice), require_folder(root / "annotations" / "trimaps", advice)
    reading = Reading(foreground=FOREGROUNDS["oxford_pet"])
    paired = pair_up(
        require_images(filter(_is_image, images.iterdir()), images, advice),
        filter(_is_trimap, masks.iterdir()),
        lambda image: f"{image.stem}.png",
        lambda image, mask: Sample(image, mask, image.stem, reading),
        (images, masks),
    )
    unread = unread_files(images, lambda path: _is_image(path) or path.suffix == MATLAB, "images are NAME.jpg here")
    unread += unread_files(masks, _is_trimap, "trimaps are NAME.png here")
    return Listing(paired.samples, paired.problems, paired.left_out + unread)


def _is_image(path: Path) -> bool:
    return path.suffix == ".jpg" and not path.name.startswith(".")


def _is_trimap(path: Path) -> bool:
    return path.suffix == ".png" and not path.name.startswith(".")  # the archive holds macOS's ._NAME.png
