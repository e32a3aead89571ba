"""Commands that use a trained model: predict, evaluate, submit, export, page.

The work is imported once the flags are checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from experiments.commands.flags import Device, ImageFlags, OutputDir, TrackingUri, flag, many, switch
from experiments.config import types
from registry import DATASETS, InputError

Run = Annotated[str, flag("best (by validation Dice), a run's KEY, or a checkpoint's FILE (default: best)")]
Ensemble = Annotated[list[str] | None, many("average the probabilities of these runs, instead of --run")]
Flips = Annotated[bool, switch("average with the prediction of the mirror image")]
Tile = Annotated[
    types.Size | None, flag("split larger images into overlapping tiles of this size, each predicted separately")
]
ListSkipped = Annotated[bool, switch("name each file that was left out of a folder, and why")]
Threads = Annotated[types.Count | None, flag("threads that read and write images (default: one per core)", "Machine")]


def predict(
    photographs: Annotated[list[str] | None, flag("image files, folders, or patterns in quotes")] = None,
    /,
    *,
    run: Run = "best",
    output: Annotated[
        Path | None, flag("folder for the masks (default: predictions/ in --output-dir); files of yours are kept")
    ] = None,
    overlay: Annotated[bool, switch("also write the image with the object tinted")] = False,
    cutout: Annotated[bool, switch("also write a transparent cut-out (RGBA PNG)")] = False,
    tta: Flips = False,
    ensemble: Ensemble = None,
    tile: Tile = None,
    threshold: Annotated[types.Probability, flag("probability from which a pixel is foreground (default: 0.5)")] = 0.5,
    list_skipped: ListSkipped = False,
    device: Device = "auto",
    workers: Threads = None,
    output_dir: OutputDir = Path("outputs"),
) -> int:
    """Write a mask (PNG, 0 and 255) for each image at its own size; exit code 1 if an image could not be read.

    Example: python run.py predict photos --run best --output predicted --overlay
    """
    if not photographs:
        raise InputError("Name images: files, folders or patterns, such as python run.py predict photos --run best.")
    from experiments.inference import predict as predicting

    return predicting.predict(
        predicting.PredictArgs(
            photographs,
            run=run,
            ensemble=ensemble or [],
            output=output,
            output_dir=output_dir,
            overlay=overlay,
            cutout=cutout,
            flips=tta,
            tile=tile,
            threshold=threshold,
            device=device,
            workers=workers,
            list_skipped=list_skipped,
        )
    )


def evaluate(
    *,
    run: Run = "best",
    data: Annotated[str, flag(f"data set: {', '.join(DATASETS)} (default: folder)", "Data")] = "folder",
    images: ImageFlags | None = None,
    sweep: Annotated[bool, switch("also report Dice and IoU at thresholds from 0.05 to 0.95")] = False,
    calibration: Annotated[bool, switch("also report the reliability curve and expected calibration error")] = False,
    tta: Flips = False,
    output: Annotated[Path | None, flag("folder for scores.csv (default: evaluations/ in --output-dir)")] = None,
    device: Device = "auto",
    workers: Threads = None,
    output_dir: OutputDir = Path("outputs"),
) -> int:
    """Score a trained model on your own images with masks, as a run scores its test images.

    Example: python run.py evaluate --run best --data folder --data-dir pairs --sweep --calibration
    """
    name, given = DATASETS[data].name, vars(images or ImageFlags())
    choices = ("foreground", "mask_channel", "mask_exif", "intensity")
    reading = {choice: given[choice] for choice in choices if given[choice] is not None}
    from experiments.inference import evaluate_dataset

    return evaluate_dataset.evaluate(
        evaluate_dataset.EvaluateArgs(
            run,
            data=name,
            data_dir=given["data_dir"],
            group_pattern=given["group_pattern"],
            sweep=sweep,
            calibration=calibration,
            flips=tta,
            output=output,
            device=device,
            workers=workers,
            output_dir=output_dir,
            mask_pattern=given["mask_pattern"],
            reading=reading,
        )
    )


def submit(
    *,
    test_dir: Annotated[Path, flag("folder of the competition's test images", "Data")],
    run: Run = "best",
    output: Annotated[Path, flag("file to write; .gz is compressed (default: submission.csv.gz)")] = Path(
        "submission.csv.gz"
    ),
    tta: Flips = False,
    ensemble: Ensemble = None,
    list_skipped: ListSkipped = False,
    device: Device = "auto",
    workers: Threads = None,
    output_dir: OutputDir = Path("outputs"),
) -> int:
    """Write a submission to Kaggle's Carvana competition: img,rle_mask, one line per image, at 1918x1280.

    Example: python run.py submit --run best --test-dir data/carvana/test --output submission.csv.gz
    """
    from experiments.inference import kaggle_submission

    return kaggle_submission.submit(
        test_dir, run, ensemble or [], output, tta, device, workers, output_dir, list_skipped
    )


def export(
    *,
    run: Run = "best",
    format: Annotated[
        Literal["onnx", "mlflow"], flag("mlflow is the same graph as an MLflow model (default: onnx)")
    ] = "onnx",
    output: Annotated[Path | None, flag("file or folder to write (default: exports/KEY.onnx or exports/KEY)")] = None,
    size: Annotated[types.Size | None, flag("make a graph for images of this size only (default: any size)")] = None,
    photographs: Annotated[
        Path | None, flag("images for the comparison with PyTorch (default: the run's validation images)")
    ] = None,
    output_dir: OutputDir = Path("outputs"),
    tracking_uri: TrackingUri = None,
) -> int:
    """Export a trained model as ONNX and verify it against PyTorch: RGB 0-255 of any size in, probabilities out.

    Example: python run.py export --run best --format onnx --output car.onnx
    """
    from experiments.inference import export as exporting

    return exporting.export(run, format, output, photographs, output_dir, tracking_uri, size)


def page(
    *,
    run: Run = "best",
    port: Annotated[types.Port, flag("port on this machine (default: 7860)")] = 7860,
    device: Device = "auto",
    output_dir: OutputDir = Path("outputs"),
) -> int:
    """Serve a demo page on this machine: drop an image, see mask and cut-out (see requirements-page.txt).

    Example: python run.py page --run best
    """
    from experiments.inference import demo

    return demo.page(run, port, device, output_dir)
