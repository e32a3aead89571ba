"""How files become pixels: formats, depths, class masks, alpha masks, EXIF; one rule for a whole data set."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments.config.schema import RunConfig, RuntimeConfig
from experiments.data import images, run_inputs
from experiments.data.reading import ValueRange, cache_name, intensity_scale
from experiments.data.samples import read_image
from registry import InputError
from tests.conftest import examples, run_folder, small
from tests.strangers import scene

DEPTHS = {"int8": "tif", "int16": "tif", "uint16": "png", "int32": "tif", "float32": "tif", "float64": "tif"}


def write_depths(root, dtype, low, high, ending, count=12):
    """Pairs whose images have values of `dtype` from `low` to `high`; those of one image span a part of it."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number in range(count):
        photo, mask = scene(64, 48, number)
        share = photo[..., 0] / 255 * (0.5 + 0.5 * (number % 2))
        share[0, :2] = (0, 1) if number % 3 else (0.2, 0.6)
        assert cv2.imwrite(str(root / "images" / f"p{number}.{ending}"), (low + (high - low) * share).astype(dtype))
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / f"p{number}.png")
    return root


def inputs(root, **fields):
    config = RunConfig(data="folder", **fields)
    return run_inputs.load_run_inputs(config, RuntimeConfig(data_dir=root))


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int16", -1000, 3000), ("uint16", 0, 4095), ("int32", -70000, 2000000), ("uint16", 500, 700),
     ("float32", -0.5, 1.5), ("float64", 1000, 1010), ("int8", -100, 100)],
)  # fmt: skip
def test_every_depth_has_one_scale_for_all_files_and_never_wraps(tmp_path, dtype, low, high):
    root = write_depths(tmp_path / "pairs", dtype, low, high, DEPTHS[dtype])
    made = inputs(root)
    assert np.allclose(made.config.intensity, (low, high), rtol=1e-6) and made.config.key != RunConfig().key
    curve = {}
    for sample in made.samples:
        raw = images.deep_values(sample.image).astype(float)
        read = sample.read_image()
        assert np.array_equal(read[..., 0], read[..., 2]) and read.shape == (48, 64, 3)
        assert np.abs(read[..., 0] - (raw - low) / (high - low) * 255).max() < 1.01
        for value, level in zip(raw.ravel(), read[..., 0].ravel(), strict=True):
            assert curve.setdefault(value, level) == level, "one value has one level in all files"
    assert set(curve.values()) >= {0, 255}


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("uint16", 0, 65535), ("uint16", 0, 40000)])
def test_8_bits_and_full_16_bits_keep_their_numbers_keys_and_caches(tmp_path, dtype, low, high):
    made = inputs(write_depths(tmp_path / "pairs", dtype, low, high, "png"))
    assert made.config.intensity is None and "intensity" not in made.config.to_dict()
    assert made.samples[0].reading.suffix == "" and cache_name("f00", (48, 32), made.samples[0].reading) == "f00-48x32"
    raw = cv2.imread(str(made.samples[3].image), cv2.IMREAD_UNCHANGED)
    expected = raw if dtype == "uint8" else (raw / np.float32(257)).round()
    assert np.array_equal(made.samples[3].read_image()[..., 0], expected)


def test_a_dark_file_among_full_16_bits_is_not_read_by_a_rule_of_its_own(tmp_path):
    root = write_depths(tmp_path / "pairs", "uint16", 0, 65535, "png")
    cv2.imwrite(str(root / "images" / "p5.png"), np.full((48, 64), 200, np.uint16))
    made = inputs(root)
    (dark,) = [sample for sample in made.samples if sample.name == "p5.png"]
    assert made.config.intensity == (0, 65535) and dark.read_image().max() == 1


def test_only_training_images_decide_the_scale(tmp_path):
    root = write_depths(tmp_path / "pairs", "uint16", 0, 4000, "png")
    test = inputs(root).parts.test[0].image
    cv2.imwrite(str(test), np.full((48, 64), 60000, np.uint16))
    made = inputs(root)
    assert made.config.intensity == (0, 4000)
    assert next(s for s in made.parts.test if s.image == test).read_image().min() == 255  # clipped, not wrapped


def test_colours_of_12_bits_in_16_are_scaled_like_greys(tmp_path):
    root = write_depths(tmp_path / "pairs", "uint8", 0, 255, "png")
    for path in (root / "images").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * 16 + np.arange(3, dtype=np.uint16) * 5)
    made = inputs(root)
    assert made.config.intensity[1] > 3000 and made.samples[0].read_image().max() > 230


@examples(200)
@given(st.data())
def test_the_scale_of_any_ranges_is_a_range_that_covers_the_training_images(data):
    number = st.floats(-1e9, 1e9, allow_nan=False)
    made = st.tuples(number, number, st.booleans(), st.booleans()).map(
        lambda row: ValueRange(min(row[:2]), max(row[:2]), row[2], row[3])
    )
    train, others = data.draw(st.lists(made, max_size=4)), data.draw(st.lists(made, max_size=4))
    scale = intensity_scale(train, others)
    if scale is None:
        assert all(r.integer and r.low >= 0 and r.high <= 65535 for r in [*train, *others])
    else:
        assert scale[0] < scale[1] and all(r.low >= scale[0] and r.high <= scale[1] for r in train)


@examples(100)
@given(st.lists(st.floats(width=32), min_size=1, max_size=30), st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_scaling_keeps_the_order_of_any_values(row, low, span):
    values = np.array([row], np.float32)
    found = images.scaled(values, (low, low + span))
    finite = np.nan_to_num(values.ravel().astype(float), nan=low)
    order = np.argsort(finite)
    assert (np.diff(found.ravel()[order].astype(int)) >= 0).all()


def test_a_scale_that_a_few_values_stretch_is_named_with_a_better_one(command, tmp_path):
    root = write_depths(tmp_path / "pairs", "int16", -1000, 1000, "tif")
    for path in (root / "images").iterdir():
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        pixels[1, 1] = 30000
        cv2.imwrite(str(path), pixels)
    code, shown, _ = command("data", "verify", "--data", "folder", "--data-dir", root)
    assert code == 0 and "-1000 to 30000 become 0 to 255" in shown and "type --intensity -1000:" in shown
    code, shown, _ = command("data", "verify", "--data", "folder", "--data-dir", root, "--intensity", "-1000:1000")
    assert code == 0 and "12 of them have values outside the scale" in shown


def test_a_run_keeps_its_scale_and_its_predictions_use_it(command, tmp_path):
    root = write_depths(tmp_path / "pairs", "int16", -1000, 3000, "tif")
    words = small(root, tmp_path / "out", epochs=6, batch_size=4, data="folder")
    code, shown, complaint = command(*words)
    assert code == 0, complaint
    assert shown.count("Intensity scale: ") == 1 and "--intensity -1000:3000" in shown
    key = run_folder(tmp_path / "out").name
    (kept,) = [p.name for p in (tmp_path / "out" / "cache").iterdir() if p.is_dir()]
    assert kept.count("-") == 2
    code, shown, complaint = command(*words, "--intensity", "-1000:3000")
    assert code == 0 and f"The run {key} is finished" in shown, complaint
    from experiments.inference.predictor import Predictor
    from experiments.inference.trained_model import from_path

    predictor = Predictor([from_path(run_folder(tmp_path / "out"))], "cpu")
    sample = inputs(root).samples[0]
    assert np.array_equal(predictor.read(sample.image, keep_pixels=True).pixels, sample.read_image())


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.7\n", b"8BPS\0\1", b"icns\0\0\0\x20"])
def test_a_format_that_is_not_asked_for_is_not_opened(tmp_path, content):
    path = tmp_path / "photo.png"
    path.write_bytes(content + b"\0" * 200)
    with pytest.raises(InputError, match=r"photo\.png is an? .*Convert it"):
        read_image(path)


def test_no_image_is_opened_but_through_the_one_door():
    from tests.conftest import ROOT

    for path in [*(ROOT / "experiments").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        opened = [word for word in ("Image.open(", "cv2.imread(", "cv2.imdecode(") if word in text]
        assert not opened or path.name == "images.py", path


def test_heic_is_read_with_its_package_and_names_it_without(tmp_path):
    path = tmp_path / "photo.heic"
    if images.heic_available():
        import pillow_heif

        photo = scene(64, 48, 0)[0]
        pillow_heif.from_bytes("RGB", (64, 48), photo.tobytes()).save(path, quality=100)
        assert np.abs(read_image(path).astype(int) - photo).mean() < 6
    else:
        path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100)
        with pytest.raises(InputError, match="pip install pillow-heif"):
            read_image(path)
