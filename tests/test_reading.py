"""How files become pixels: formats, depths, class masks, alpha masks, EXIF; one rule for a whole data set."""

import contextlib
import json
import tracemalloc
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from experiments.config import values
from experiments.config.schema import RunConfig, RuntimeConfig
from experiments.data import images, run_inputs
from experiments.data.groups import suggest_pattern
from experiments.data.reading import Reading, ValueRange, cache_name, intensity_scale
from experiments.data.samples import read_image, read_mask
from experiments.inference import demo, predict
from experiments.inference import predictor as predicting
from registry import InputError
from tests.conftest import examples, run_folder, small
from tests.strangers import scene

DEPTHS = {"int8": "tif", "int16": "tif", "uint16": "png", "int32": "tif", "float32": "tif", "float64": "tif"}


@pytest.fixture(autouse=True)
def nothing_said():
    """What is said once in a process is said once in a test."""
    run_inputs._log_once.cache_clear()


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
    assert made.config.intensity[1] > 4000 and max(s.read_image().max() for s in made.samples) == 255


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
    pixels = np.array([row], np.float32)
    found = images.scaled(pixels, (low, low + span))
    finite = np.nan_to_num(pixels.ravel().astype(float), nan=low)
    order = np.argsort(finite)
    assert (np.diff(found.ravel()[order].astype(int)) >= 0).all()


def test_a_large_deep_image_is_scaled_in_parts_to_the_same_values():
    values = np.random.default_rng(0).integers(0, 65536, (700, 300, 3), dtype=np.uint16)
    expected = (((values.astype(np.float64) - 100) / 50000).clip(0.0, 1.0) * 255).round().astype(np.uint8)
    tracemalloc.start()
    found = images.scaled(values, (100, 50100))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found, expected) and most < 5 * values.size  # of float64 alone, 8 bytes per value


def test_predict_holds_more_memory_for_an_image_of_16_bits(tmp_path, monkeypatch):
    held, shape = [], (40, 60, 3)
    for name, kind in (("deep", np.uint16), ("plain", np.uint8)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full(shape, 200, kind))
    limit = SimpleNamespace(hold=lambda size: held.append(size) or contextlib.nullcontext())
    monkeypatch.setattr(predicting, "MemoryLimit", lambda size: limit)
    network = SimpleNamespace(members=[], tile=None, mask=lambda *_: lambda: None)
    network.read = lambda path, size: SimpleNamespace(path=path, size=size)
    found = list(predicting.predict_each(sorted(tmp_path.glob("*.png")), network, lambda *_: None, workers=1))
    assert len(found) == 2 and {40 * 60 * predicting.DEEP, 40 * 60 * predicting.READING} <= set(held)


def test_the_page_shows_the_colours_of_a_profile_as_srgb(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"    ").replace(b"gXYZ", b"rXYZ").replace(b"    ", b"gXYZ", 1)  # its red is green
    Image.new("RGB", (60, 40), (255, 0, 0)).save(tmp_path / "a.png", icc_profile=swapped)
    Image.new("RGB", (60, 40), (255, 0, 0)).save(tmp_path / "b.png", icc_profile=b"damaged")
    empty = SimpleNamespace(read=lambda path: SimpleNamespace(path=path, size=(60, 40)))
    empty.mask = lambda image: lambda: np.zeros((40, 60), bool)
    empty.display = lambda image: images.read_for_display(image.path)
    for name, colour in (("a.png", [0, 255, 0]), ("b.png", [255, 0, 0])):
        for picture in demo.answer(empty, tmp_path / name)[1:3]:
            assert np.abs(picture[20, 30, :3].astype(int) - colour).max() <= 2


def test_a_scale_that_a_few_values_stretch_is_named_with_a_better_one(command, tmp_path):
    root = write_depths(tmp_path / "pairs", "int16", -1000, 1000, "tif")
    for path in (root / "images").iterdir():
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        pixels[1, 1] = 30000
        cv2.imwrite(str(path), pixels)
    _, shown, _ = command("data", "verify", "--data", "folder", "--data-dir", root)
    assert "-1000 to 30000 become 0 to 255" in shown and "type --intensity -1000:" in shown
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
    assert np.array_equal(predictor.display(predictor.read(sample.image))[0], sample.read_image())


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


def test_heic_is_read_by_its_package(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is optional")
    path, photo = tmp_path / "photo.heic", scene(64, 48, 0)[0]
    pillow_heif.from_bytes("RGB", (64, 48), photo.tobytes()).save(path, quality=100)
    assert np.abs(read_image(path).astype(int) - photo).mean() < 6


def test_heic_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "heic_available", lambda: False)
    path = tmp_path / "photo.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100)
    with pytest.raises(InputError, match="pip install pillow-heif"):
        read_image(path)


def write_masks(root, make, ending="png", count=12):
    """Pairs of photographs and masks; `make(mask, number)` gives the picture of a mask (H, W) of booleans."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number in range(count):
        photo, mask = scene(64, 48, number)
        Image.fromarray(photo).save(root / "images" / f"p{number}.png")
        make(mask, number).save(root / "masks" / f"p{number}.{ending}")
    return root


def classes(mask, _):
    levels = mask.astype(np.uint8) * 2
    levels[:5] = 1
    return Image.fromarray(levels)


def labels(mask, values):
    levels = np.array(values, np.float32 if isinstance(values[-2], float) else np.uint8)
    return Image.fromarray(levels[np.arange(mask.size) % len(values)].reshape(mask.shape))


def red(mask, _):
    return Image.fromarray(np.where(mask[..., None], np.array([255, 0, 0], np.uint8), np.uint8(0)))


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (classes, "holds the values 0, 1, 2; .* --foreground 1 2"),
        (red, "holds the colours 0,0,0 and 255,0,0. .* --foreground 255,0,0"),
        (lambda mask, _: Image.fromarray(mask.astype(np.uint8) * 128), "the values 0, 128; .* --foreground 128"),
        (
            lambda mask, _: Image.fromarray(cv2.GaussianBlur(mask.astype(np.uint8) * 255, (0, 0), 2)),
            "without smoothing",
        ),
        (lambda mask, _: labels(mask, (0, 1, 2, 3)), "0, 1, 2, 3; .* --foreground 1, or --foreground 1 2 3 for all"),
        (lambda mask, _: labels(mask, (0, 1, 2, 255)), "0, 1, 2, 255; .* --foreground 1 2"),
        (lambda mask, _: labels(mask, (0.0, 1.0, 2.0)), "0, 1, 2; .* --foreground 1 2"),
        (lambda mask, _: labels(mask, (0, 1, 2, 253, 254, 255)), "without smoothing"),
        (lambda mask, _: labels(mask, (0, 0.25, 0.5, 1)), "without smoothing"),
    ],
    ids=["classes", "red", "128", "soft", "four", "ignore", "float", "JPEG", "shares"],
)
def test_a_mask_that_is_not_binary_gets_the_advice_that_fits(tmp_path, make, advice):
    path, made = tmp_path / "mask", make(scene(64, 48, 0)[1], 0)
    made.save(path, "TIFF" if made.mode == "F" else "PNG")
    with pytest.raises(InputError, match=f"not binary: .*{advice}"):
        read_mask(path)


@pytest.mark.parametrize("labels", [(0, 1), (0, 1, 2), (1, 2)])
@pytest.mark.parametrize("channel", [0, 2])
def test_labels_in_colours_that_are_nearly_black_are_no_empty_mask(tmp_path, labels, channel):
    values = np.zeros((48, 64, 3), np.uint8)
    values[..., channel] = np.random.default_rng(0).choice(labels, (48, 64))
    colour = ",".join(str(labels[-1] if at == channel else 0) for at in range(3))
    Image.fromarray(values).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"not binary: it holds the colours .*such as --foreground \d,0,\d"):
        read_mask(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", (colour,)), values[..., channel] == labels[-1])
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "mask.png")
    assert not read_mask(tmp_path / "mask.png").any()


def test_a_palette_of_nearly_black_colours_is_read_by_its_indices(tmp_path):
    mask = scene(64, 48, 0)[1]
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 1, 0, 0])
    picture.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)


@pytest.mark.parametrize(
    ("make", "words", "expected"),
    [
        (classes, "2", lambda mask: mask & (np.arange(48) >= 5)[:, None]),
        (classes, "1 2", lambda mask: mask | (np.arange(48) < 5)[:, None]),
        (red, "255,0,0", lambda mask: mask),
        (red, "0,0,0", lambda mask: ~mask),
        (lambda mask, _: Image.fromarray(mask.astype(np.uint8) * 128), "128", lambda mask: mask),
    ],
    ids=["2", "1 2", "red", "black", "128"],
)
def test_the_named_values_and_colours_are_the_object(tmp_path, make, words, expected):
    root = write_masks(tmp_path / "pairs", make)
    made = inputs(root, foreground=values.typed("foreground", words.split()))
    for sample in made.samples:
        assert np.array_equal(sample.read_mask(), expected(scene(64, 48, int(sample.image.stem[1:]))[1]))


def test_two_choices_of_foreground_share_neither_key_nor_pixels(tmp_path):
    root = write_masks(tmp_path / "pairs", classes)
    one, both = inputs(root, foreground=(1,)), inputs(root, foreground=(1, 2))
    names = {cache_name("f00", (48, 32), made.samples[0].reading) for made in (one, both)}
    assert one.config.key != both.config.key and len(names) == 2 and "f00-48x32" not in names
    assert inputs(root, foreground=values.typed("foreground", ["2", "1"])).config.key == both.config.key


def test_names_of_caches_are_those_that_clean_cache_knows():
    from experiments.data.cache import NAME

    for reading in (Reading(), Reading(foreground=(1,)), Reading(intensity=(0.0, 4095.0))):
        assert NAME.match(cache_name("0a1b", (48, 32), reading))[1] == cache_name("0a1b", (48, 32), reading)


@pytest.mark.parametrize("colour", [0, 255])
def test_alpha_is_the_mask_where_it_alone_varies_in_all_files_of_a_data_set(tmp_path, colour):
    def cut(mask, number):
        alpha = (mask if number else np.zeros_like(mask)).astype(np.uint8) * 255  # one mask is empty
        return Image.fromarray(np.dstack([np.full((48, 64, 3), colour, np.uint8), alpha]))

    made = inputs(write_masks(tmp_path / "pairs", cut))
    assert made.config.mask_channel == "alpha" and made.config.key != RunConfig().key
    for sample in made.samples:
        number = int(sample.image.stem[1:])
        assert np.array_equal(sample.read_mask(), scene(64, 48, number)[1] & bool(number))


def test_opaque_white_masks_keep_their_numbers_and_their_key(tmp_path):
    made = inputs(
        write_masks(tmp_path / "pairs", lambda m, _: Image.fromarray(m.astype(np.uint8) * 255).convert("RGBA"))
    )
    assert made.config.mask_channel == "auto" and "mask_channel" not in made.config.to_dict()
    assert np.array_equal(made.samples[0].read_mask(), scene(64, 48, 0)[1])


def test_colours_and_alpha_that_contradict_each_other_are_refused(tmp_path):
    mask = scene(64, 48, 0)[1]
    levels = (~mask).astype(np.uint8) * 255
    Image.fromarray(np.dstack([levels] * 3 + [mask.astype(np.uint8) * 255])).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="--mask-channel colour or --mask-channel alpha"):
        read_mask(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", channel="alpha"), mask)
    assert np.array_equal(read_mask(tmp_path / "mask.png", channel="colour"), ~mask)


def test_predict_warns_of_12_bits_that_a_run_without_a_scale_reads_almost_black(tmp_path, capsys):
    def warned(scale=None, **depths):
        for name, (kind, high) in depths.items():
            cv2.imwrite(str(tmp_path / f"{name}.png"), np.linspace(0, high, 600).reshape(20, 30).astype(kind))
        predict._warn_of_dark([tmp_path / f"{name}.png" for name in depths], SimpleNamespace(intensity=scale))
        return capsys.readouterr().out

    said = warned(a=(np.uint16, 4095), b=(np.uint16, 3000), c=(np.uint8, 255))
    assert said.count("WARNING") == 1 and "2 of 3 images have more than 8 bits, with values up to 4095" in said
    assert read_image(tmp_path / "a.png").max() == 16 and "train with --intensity 0:4095." in said
    assert not warned(scale=(0.0, 4095.0), a=(np.uint16, 4095))
    assert not warned(a=(np.uint16, 4095), b=(np.uint16, 60000)) and not warned(c=(np.uint8, 255))
    assert not warned(a=(np.uint16, 200)) and read_image(tmp_path / "a.png").max() == 200


def numbered(count, kind):
    """A mask maker of labels 1 to `count`, a few pixels each, in an order of their own."""
    return lambda mask, _: Image.fromarray((np.arange(mask.size).reshape(mask.shape) % (count + 1)).astype(kind))


@pytest.mark.parametrize(("count", "kind"), [(2, np.uint16), (300, np.uint16), (20, np.uint8), (100, np.uint8)])
def test_instance_labels_are_recognised_and_read_as_any_value_but_0(tmp_path, count, kind):
    numbered(count, kind)(np.zeros((48, 64)), 0).save(tmp_path / "mask.png")
    with pytest.raises(
        InputError, match=r"look like instance labels.* type --foreground nonzero.*such as --foreground 1"
    ):
        read_mask(tmp_path / "mask.png")
    marked = read_mask(tmp_path / "mask.png", values.typed("foreground", ["nonzero"]))
    assert np.array_equal(marked, np.arange(48 * 64).reshape(48, 64) % (count + 1) > 0)


def test_nonzero_is_any_colour_but_black_and_a_choice_with_a_key_of_its_own(tmp_path):
    mask, path = scene(64, 48, 0)[1], tmp_path / "mask.png"
    each = np.random.default_rng(0).integers(1, 256, (20, 3), dtype=np.uint8)  # 20 objects
    colours = each[np.arange(mask.size).reshape(mask.shape) % 20] * mask[..., None]
    Image.fromarray(colours).save(path)
    with pytest.raises(InputError, match="or --foreground nonzero where every colour but 0,0,0 is the object"):
        read_mask(path)
    assert np.array_equal(read_mask(path, ("nonzero",)), mask)
    for picture in (Image.fromarray(mask), Image.fromarray(mask.astype(np.uint8) * 255), red(mask, 0)):
        picture.save(path)
        assert np.array_equal(read_mask(path, ("nonzero",)), mask)
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.jpg")
    with pytest.raises(InputError, match="is a JPEG of more than 2 values"):
        read_mask(tmp_path / "mask.jpg", ("nonzero",))
    config = RunConfig(foreground=values.typed("foreground", "nonzero"))
    assert config.foreground == ("nonzero",) and config.to_dict()["foreground"] == ["nonzero"]
    assert len({config.key, RunConfig().key, RunConfig(foreground=(1,)).key}) == 3
    with pytest.raises(InputError, match="nonzero means any value but 0: name no others"):
        values.typed("foreground", ["nonzero", "1"])


def test_values_and_colours_in_one_folder_are_answered_with_colours_for_both(tmp_path):
    mask = scene(64, 48, 0)[1]
    forms = {"red": red(mask, 0), "white": Image.fromarray(mask.astype(np.uint8) * 255)}
    forms["one"] = Image.fromarray(mask.astype(np.uint8))
    for name, picture in forms.items():
        picture.save(tmp_path / f"{name}.png")
    with pytest.raises(
        InputError, match=r"name colours of the object, such as --foreground 255,0,0, .*255,255,255 for 255"
    ):
        read_mask(tmp_path / "red.png", (1,))
    given = values.typed("foreground", ["255,0,0", "1", "255", "255,255,255"])
    with pytest.raises(InputError, match="values and colours cannot be mixed in one folder") as refused:
        read_mask(tmp_path / "red.png", given)
    words = str(refused.value).rstrip(".").partition("--foreground ")[2].split()
    assert sorted(words) == ["1,1,1", "255,0,0", "255,255,255"]
    for name in forms:
        assert np.array_equal(read_mask(tmp_path / f"{name}.png", values.typed("foreground", words)), mask)


def test_masks_that_foreground_empties_are_named_with_what_they_hold(command, tmp_path):
    def mixed(mask, number):
        return red(mask, 0) if number < 3 else Image.fromarray(mask.astype(np.uint8) * 255)

    root = write_masks(tmp_path / "pairs", mixed)
    words = ("data", "verify", "--data", "folder", "--data-dir", root, "--foreground")
    code, shown, _ = command(*words, "255,0,0")
    assert code == 1 and shown.count("holds 0 and 255, none of --foreground 255,0,0. ") == 9
    assert "(255,255,255 for 255)" in shown and "marks nothing" not in shown and "9 problems in" in shown
    assert command(*words, "255,0,0", "255,255,255")[0] == 0
    shown = command(*words, "0,0,255")[1]
    assert "1 problem in" in shown and "no object: All 12 masks are empty. The mask" in shown
    assert "holds the colours 0,0,0 and 255,0,0, none of --foreground 0,0,255" in shown


def test_training_counts_the_masks_that_foreground_empties_where_most_are(tmp_path, capsys):
    def warned(empty):
        run_inputs._log_once.cache_clear()
        made = inputs(root, foreground=(2,))
        masks = np.ones((len(made.samples), 4, 4), bool)
        rows = [row for row, sample in enumerate(made.samples) if sample in made.parts.train]
        masks[rows[:empty]] = False
        capsys.readouterr()
        run_inputs._warn_of_foreground(made, SimpleNamespace(masks=masks))
        return capsys.readouterr().out, len(rows)

    root = write_masks(tmp_path / "pairs", classes)
    said, train = warned(empty=6)
    assert f"WARNING: 6 of {train} masks of the training images are empty at 192x128 (--foreground 2). See" in said
    assert not warned(empty=train // 2)[0] and not warned(empty=train)[0], "all of them: another warning"


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_tiff_of_several_pages_is_named_once_by_verify_and_before_training(command, tmp_path, capsys, part):
    root = write_depths(tmp_path / "pairs", "uint8", 0, 255, "tif")
    for path in sorted((root / "masks").iterdir()):
        Image.open(path).save(path.with_suffix(".tif"))
        path.unlink()
    path = root / part / "p3.tif"
    page = Image.open(path).copy()
    page.save(path, save_all=True, append_images=[page.transpose(Image.Transpose.ROTATE_180)] * 2)
    sentence = f"1 of 24 TIFF files have several pages, such as {path} (3 pages: only the first is read)."
    code, shown, _ = command("data", "verify", "--data", "folder", "--data-dir", root)
    assert code == 0 and shown.count(sentence) == 1, shown
    capsys.readouterr()
    (made,) = [sample for sample in inputs(root).samples if sample.name == "p3.tif"]
    assert capsys.readouterr().out.count(sentence) == 1
    read = made.read_image()[..., 0] if part == "images" else made.read_mask() * np.uint8(255)
    assert np.array_equal(read, np.asarray(page))


def write_turned(root, turned, count=12):
    """Photographs that EXIF turns by `turned`, and masks drawn on their raw pixels."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number in range(count):
        photo, mask = scene(64, 48, number)
        mask = np.roll(mask, (5, 9), (0, 1))  # off the centre, so that every turn moves it
        photo = np.roll(photo, (5, 9), (0, 1))
        picture = Image.fromarray(photo)
        exif = picture.getexif()
        exif[0x0112] = turned
        picture.save(root / "images" / f"p{number}.jpg", exif=exif, quality=95)
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / f"p{number}.png")
    return root


@pytest.mark.parametrize("turned", range(2, 9))
def test_masks_on_raw_pixels_are_noticed_in_every_orientation_and_read_by_a_flag(command, tmp_path, turned):
    root = write_turned(tmp_path / "pairs", turned)
    words = ["data", "verify", "--data", "folder", "--data-dir", root]
    code, shown, _ = command(*words)
    assert (
        code == 1
        and "--mask-exif image" in shown
        and f"EXIF turns 12 of 12 images (12 with orientation {turned})" in shown
    )
    code, shown, _ = command(*words, "--mask-exif", "image")
    assert code == 0 and "EXIF turns 12 of 12 images" in shown, shown
    sample = inputs(root, mask_exif="image").samples[0]
    raw = read_mask(sample.mask)
    assert (
        np.array_equal(sample.read_mask(), images.orient(raw, turned))
        and sample.read_mask().shape == sample.read_image().shape[:2]
    )


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_a_tiff_is_turned_once_as_an_image_and_as_a_mask(tmp_path, turned, compression):
    mask, path = scene(64, 48, 0)[1], tmp_path / "turned.tif"
    back = {6: 8, 8: 6}.get(turned, turned)  # what `turned` turns upright again
    stored = Image.fromarray(images.orient(mask.astype(np.uint8) * 255, back))
    for picture in (stored, stored.convert("RGB"), stored.convert("I;16")):
        picture.save(path, tiffinfo={0x0112: turned}, compression=compression)
        assert np.array_equal(read_image(path)[..., 0] > 0, mask) and images.image_size(path) == (64, 48)
    stored.save(path, tiffinfo={0x0112: turned}, compression=compression)
    assert np.array_equal(read_mask(path), mask)
    assert turned == 1 or np.array_equal(read_mask(path, turned=turned), mask), "as --mask-exif image asks"


def test_training_and_verify_give_the_same_sentence_for_a_turned_image(command, tmp_path):
    root = write_turned(tmp_path / "pairs", 6)
    _, shown, _ = command("data", "verify", "--data", "folder", "--data-dir", root)
    code, _, complaint = command(*small(root, tmp_path / "out", data="folder"))
    sentence = complaint.strip().splitlines()[-1]
    assert code == 2 and "EXIF" in sentence and sentence.partition("The image ")[2] in shown


def test_names_that_look_like_patients_are_noticed_before_training_and_by_verify(command, tmp_path):
    root = write_masks(tmp_path / "pairs", lambda m, _: Image.fromarray(m.astype(np.uint8) * 255), count=20)
    for part in ("images", "masks"):
        for path in (root / part).iterdir():
            number = int(path.stem[1:])
            path.rename(path.with_name(f"Pat-{number // 4:03d}_{number % 4}{path.suffix}"))
    words = ["data", "verify", "--data", "folder", "--data-dir", root]
    suggested = "--group-pattern '^([^_]+)_' would make 5 groups"
    assert suggested in command(*words)[1]
    assert suggested in command(*small(root, tmp_path / "out", data="folder", epochs=1))[1]
    code, shown, _ = command(*words, "--group-pattern", "^([^_]+)_")
    assert code == 0 and "in 5 groups" in shown and "would make" not in shown


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        ([f"img_{n:03d}.png" for n in range(60)], None),
        ([f"{n:05d}.png" for n in range(60)], None),
        ([f"patient{p}slice{n}.png" for p in range(9) for n in range(4)], 9),
        ([f"p{p}/{n}.png" for p in range(9) for n in range(4)], 9),
        ([f"p{p:02d}_{n:03d}.png" for p in range(1, 5) for n in range(100)], 4),
        ([f"{kind}_{n:03d}.png" for kind in ("cat", "dog", "fox") for n in range(100)], None),
        ([f"TCGA_CS_{p}_{n}.tif" for p in range(4941, 4960) for n in range(4)], 19),
    ],
)
def test_only_prefixes_of_several_groups_are_suggested(names, groups):
    suggested = suggest_pattern(names)
    assert (suggested and suggested[1]) == groups


def test_empty_parts_and_vanishing_objects_are_reported_before_training(command, tmp_path):
    root = write_masks(tmp_path / "empty", lambda m, _: Image.fromarray(np.zeros((48, 64), np.uint8)))
    shown = command(*small(root, tmp_path / "a", data="folder", epochs=1))[1]
    assert "masks of the training images are empty" in shown and "validation image is empty" in shown
    assert shown.count("WARNING") == 1, "one cause, one warning"

    def dot(mask, number):
        levels = np.zeros((480, 640), np.uint8)
        levels[200, 100 + number] = 255
        return Image.fromarray(levels)

    root = write_masks(tmp_path / "dots", dot)
    for number in range(12):
        Image.fromarray(scene(640, 480, number)[0]).save(root / "images" / f"p{number}.png")
    shown = command(*small(root, tmp_path / "b", data="folder", epochs=1))[1]
    assert "no object of the training and validation images is left" in shown
    assert "score a Dice of 0.00" in shown and "Choose a larger --size" in shown and shown.count("WARNING") == 1


def test_validation_images_without_an_object_choose_nothing(command, tmp_path):
    root = write_masks(tmp_path / "pairs", lambda mask, _: Image.fromarray(mask.astype(np.uint8) * 255))
    for sample in inputs(root).parts.val:
        Image.new("L", (64, 48)).save(sample.mask)
    words = small(root, tmp_path / "out", data="folder", batch_size=4)
    code, shown, complaint = command(*words)
    assert code == 0 and "validation image" in shown, complaint
    assert "No validation image has an object" in shown and "Best weights" not in shown and "  best\n" not in shown
    folder = run_folder(tmp_path / "out")
    assert json.loads((folder / "result.json").read_text())["validation_without_object"]
    assert command("predict", root / "images", "--output-dir", tmp_path / "out")[0] == 2
    assert command("predict", root / "images", "--output-dir", tmp_path / "out", "--run", folder.name)[0] == 0
    words_best = ("predict", root / "images", "--output", tmp_path / "masks", "--run", folder / "best.ckpt")
    code, shown, _ = command(*words_best)
    assert code == 0 and folder.name in shown and "best weights" not in shown
    for more, instead in (
        (("--early-stopping", 2), "Type --early-stopping 0"),
        (("--tune",), "instead of tuning it"),
    ):
        code, _, complaint = command(*words, *more)
        assert code == 2 and instead in complaint and complaint.count("\n") == 1


@pytest.mark.parametrize("blur", [3, 5, 7])
def test_soft_edges_are_no_classes(tmp_path, blur):
    """Few values, but each along the outline alone: naming one as the object would train on a ring."""
    disc = cv2.circle(np.zeros((80, 90), np.uint8), (45, 40), 25, 255, -1)
    levels = cv2.blur(disc, (blur, blur)) // 51 * 51 if blur == 3 else cv2.blur(disc, (blur, blur))
    Image.fromarray(levels).save(tmp_path / "soft.png")
    with pytest.raises(InputError, match="without smoothing"):
        read_mask(tmp_path / "soft.png")
    classes = cv2.resize(np.array([[0, 60, 120], [180, 0, 255]], np.uint8), (90, 80), interpolation=cv2.INTER_NEAREST)
    Image.fromarray(classes).save(tmp_path / "classes.png")
    with pytest.raises(InputError, match="--foreground 60"):
        read_mask(tmp_path / "classes.png")


@pytest.mark.parametrize("top", [1, 255, 65535])
def test_a_mask_of_16_bits_in_three_channels_is_read_by_its_values(tmp_path, top):
    mask = np.zeros((20, 30), bool)
    mask[4:12, 5:20] = True
    cv2.imwrite(str(tmp_path / "deep.png"), np.repeat(mask[..., None] * np.uint16(top), 3, axis=2))
    assert np.array_equal(read_mask(tmp_path / "deep.png"), mask)
