"""Reconstructions of image files, by runs of a tiny model."""

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from PIL import Image
from samples import tiny_model

from mim_plugins.analysis.drawn_mask import DrawnMask
from mim_plugins.analysis.reconstruction import reconstruct
from mim_plugins.checkpoints.convert_file import convert_file

SIZE = 132  # of a column: 32 pixels, four times as large, and a gap


@pytest.fixture
def run(tmp_path):
    """Config and checkpoint of a tiny pre-training, and a photograph of 48x40."""
    model = tiny_model(data_preprocessor=dict(bgr_to_rgb=True))
    config, checkpoint = tmp_path / "tiny.py", tmp_path / "tiny.pth"
    config.write_text(f"model = {model!r}\n")
    torch.save({"state_dict": MODELS.build(model).state_dict()}, checkpoint)
    return str(config), str(checkpoint)


@pytest.fixture
def photo(tmp_path):
    draw = np.random.default_rng(0)
    small = draw.integers(0, 255, (6, 5, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (40, 48), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def pictures(run, images, **options):
    return [x.picture for x in reconstruct(*run, images, device="cpu", **options)]


def column(picture, index):
    """One column of a table, without its caption, as the model's 32x32 pixels."""
    left = 4 + index * SIZE
    header = 20 + 128 // 24
    return picture[header : header + 128, left : left + 128][2::4, 2::4]


def removed(picture):
    """The removed patches of a picture, (4, 4)."""
    grey = (column(picture, 1) == 128).all(axis=2)
    return grey[4::8, 4::8]


def test_picture__has_original_masked_levels_and_pasted(run, photo):
    (picture,) = pictures(run, photo)
    assert picture.shape[1] == 4 + 6 * SIZE
    original, pasted = column(picture, 0), column(picture, 5)
    # As the encoder sees it: short edge resized, centre cropped.
    image = Image.open(photo).resize((32, 38), Image.Resampling.BICUBIC)
    expected = np.asarray(image.crop((0, 3, 32, 35)))
    assert np.abs(original.astype(int) - expected).max() <= 1
    hidden = removed(picture).repeat(8, 0).repeat(8, 1)
    assert hidden.sum() == 12 * 64
    assert np.array_equal(pasted[~hidden], original[~hidden])
    assert np.array_equal(pasted[hidden], column(picture, 4)[hidden])


def test_mask__depends_on_seed_and_ratio_alone(run, photo, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    first, second = pictures(run, [photo, tmp_path / "red.png"])
    assert np.array_equal(removed(first), removed(second))
    assert np.array_equal(pictures(run, photo)[0], first)
    (other,) = pictures(run, photo, seed=1)
    assert not np.array_equal(removed(other), removed(first))
    (half,) = pictures(run, photo, mask_ratio=0.5)
    assert removed(half).sum() == 8
    for ratio, said in ((1.5, "over 0 and under 1"), (0.99, "keeps none")):
        with pytest.raises(ValueError, match=said):
            reconstruct(*run, photo, mask_ratio=ratio)
    with pytest.raises(ValueError, match="64 bits"):
        reconstruct(*run, photo, seed=2**64)


def test_official_file__gives_the_same_picture(run, photo, tmp_path):
    official = tmp_path / "official.pth"
    convert_file(run[1], official, to="official")
    theirs, ours = torch.load(official)["model"], torch.load(run[1])["state_dict"]
    assert not theirs.keys() & ours.keys()
    assert np.array_equal(
        pictures((run[0], str(official)), photo)[0], pictures(run, photo)[0]
    )


def test_drawn_mask__is_cut_as_the_image_is(run, photo, tmp_path):
    drawn = tmp_path / "mask.png"
    # On the image, whose upper and lower 4 of 48 rows the model does not see.
    mask = np.zeros((48, 40), np.uint8)
    mask[4:24, :20] = 255
    Image.fromarray(mask).save(drawn)
    expected = np.zeros((4, 4), bool)
    expected[:2, :2] = True
    assert np.array_equal(removed(pictures(run, photo, mask=drawn)[0]), expected)
    # Twice as large; on the part that the model sees; a pixel for each patch.
    Image.fromarray(mask).resize((80, 96), Image.Resampling.NEAREST).save(drawn)
    assert np.array_equal(removed(pictures(run, photo, mask=drawn)[0]), expected)
    for size in (4, 32, 300):
        pixels = Image.fromarray(expected.astype(np.uint8) * 255)
        pixels.resize((size, size), Image.Resampling.NEAREST).save(drawn)
        assert np.array_equal(removed(pictures(run, photo, mask=drawn)[0]), expected)


def test_drawn_mask__in_other_formats(tmp_path):
    white = np.zeros((4, 4), bool)
    white[1, 2] = True
    transparent = np.full((4, 4, 4), 255, np.uint8)
    transparent[..., 3] = white * 255
    for image in (
        Image.fromarray(white),
        Image.fromarray(white * np.uint16(65535)),
        Image.fromarray(transparent),
        Image.fromarray(white.astype(np.uint8) * 255).convert("P"),
    ):
        image.save(tmp_path / "mask.png")
        found = DrawnMask(tmp_path / "mask.png").on_patches((4, 4), (32, 32), None, [])
        assert np.array_equal(found.numpy().reshape(4, 4), white)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (Image.new("L", (32, 32), "white"), "is white.*nothing to predict it from"),
        (Image.new("L", (32, 32), "black"), "is black.*nothing to predict"),
        (Image.linear_gradient("L").resize((90, 20)), "20x90 pixels.*draw it on one"),
        (Image.linear_gradient("L").crop((0, 100, 256, 140)), "40x256"),
    ],
)
def test_drawn_mask__that_cannot_be_used_is_a_sentence(run, photo, mask, said):
    path = photo.with_name("mask.png")
    mask.save(path)
    with pytest.raises(ValueError, match=said):
        list(reconstruct(*run, photo, mask=path))


def test_drawn_mask__of_a_thin_line_removes_no_patch(run, photo, tmp_path):
    line = np.zeros((32, 32), np.uint8)
    line[3] = 255
    Image.fromarray(line).save(tmp_path / "line.png")
    with pytest.raises(ValueError, match="removes none of the 4x4 patches.*8x8"):
        pictures(run, photo, mask=tmp_path / "line.png")
    with pytest.raises(ValueError, match="either --mask or --mask-ratio"):
        reconstruct(*run, photo, mask=tmp_path / "line.png", mask_ratio=0.5)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="text.png cannot be read"):
        reconstruct(*run, photo, mask=tmp_path / "text.png")
    with pytest.raises(FileNotFoundError, match="there is no mask"):
        reconstruct(*run, photo, mask=tmp_path / "absent.png")


def test_images__of_every_kind_give_the_right_picture(run, photo, tmp_path):
    image = Image.open(photo)
    grey = np.asarray(image.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = tmp_path / "kinds"
    folder.mkdir()
    image.convert("RGBA").save(folder / "alpha.png")
    image.quantize(256).save(folder / "palette.png")
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=100, subsampling=0)
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    image.save(folder / "turned.jpg", exif=exif, quality=100, subsampling=0)
    expected = column(pictures(run, photo)[0], 0).astype(int)
    found = {
        x.name: column(x.picture, 0).astype(int)
        for x in reconstruct(*run, folder, device="cpu")
    }
    assert list(found) == ["alpha", "cmyk", "deep", "grey", "palette", "turned"]
    for name in ("alpha", "cmyk", "palette", "turned"):
        assert np.abs(found[name] - expected).mean() < 6, name
    for name in ("grey", "deep"):
        shades = (expected @ [0.299, 0.587, 0.114])[..., None]
        assert np.abs(found[name] - shades).mean() < 3, name


def test_animated_gif__is_its_first_frame_or_a_sentence(run, photo, tmp_path):
    image = Image.open(photo)
    others = [image.rotate(180)]
    image.save(tmp_path / "moving.gif", save_all=True, append_images=others)
    if not cv2.haveImageReader(str(tmp_path / "moving.gif")):
        with pytest.raises(ValueError, match="no image can be read.*moving.gif"):
            pictures(run, tmp_path / "moving.gif")
        return
    found, expected = pictures(run, [tmp_path / "moving.gif", photo])
    difference = column(found, 0).astype(int) - column(expected, 0)
    assert np.abs(difference).mean() < 20


def test_unreadable_images__are_left_out(run, photo, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    (tmp_path / "empty").mkdir()
    assert len(pictures(run, [tmp_path / "broken.jpg", photo])) == 1
    with pytest.raises(ValueError, match="no image can be read.*broken.jpg"):
        pictures(run, tmp_path / "broken.jpg")
    with pytest.raises(FileNotFoundError, match="no images below"):
        reconstruct(*run, tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no image or folder.*absent"):
        reconstruct(*run, [photo, tmp_path / "absent.png"])


def test_checkpoint__without_its_decoders_is_refused(run, photo, tmp_path):
    state = torch.load(run[1])["state_dict"]
    encoder = {k: x for k, x in state.items() if k.startswith("backbone.")}
    other = str(tmp_path / "other.pth")
    torch.save({"state_dict": encoder}, other)
    with pytest.raises(ValueError, match="no decoders.*tools/embed.py and tools/analy"):
        reconstruct(run[0], other, photo)
    kept = {k: x for k, x in state.items() if "decoders.2." not in k}
    torch.save({"state_dict": kept}, other)
    with pytest.raises(ValueError, match=r"lacks \d+ tensors.*decoders.2"):
        reconstruct(run[0], other, photo)
    options = {"model.backbone.taps": (2,)}
    with pytest.raises(ValueError, match=r"decoders that .*decoders.2"):
        reconstruct(*run, photo, cfg_options=options)
    options = {"model.neck.embed_dims": 32}
    with pytest.raises(ValueError, match="other sizes than the model"):
        reconstruct(*run, photo, cfg_options=options)
    with pytest.raises(ValueError, match="no config of a pre-training.*MIMImageCl"):
        reconstruct("distilled_mae-vitt_400e_finetune-300e", other, photo)


def test_options_that_change_nothing__are_refused(run, photo):
    options = {"model.backbone.taps": ()}
    config = run[0]
    text = open(config).read()
    state = torch.load(run[1])["state_dict"]
    kept = {k: x for k, x in state.items() if "decoders" not in k or "decoders.0" in k}
    torch.save({"state_dict": kept}, run[1])
    with pytest.raises(ValueError, match="this model has one: leave out --gif"):
        reconstruct(*run, photo, gif=True, cfg_options=options)
    with open(config, "w") as file:
        file.write(text.replace("'norm_pix': True", "'norm_pix': False"))
    with pytest.raises(ValueError, match="--no-patch-statistics changes nothing"):
        reconstruct(*run, photo, patch_statistics=False)


def test_files__are_named_after_the_images(run, photo, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.open(photo).save(tmp_path / folder / "photo.png")
    given = [photo, tmp_path / "a", tmp_path / "b", photo]
    found = list(reconstruct(*run, given, gif=True, device="cpu"))
    written = [path.name for x in found for path in x.write(tmp_path / "out")]
    assert written == [
        f"{name}_reconstruction.{ending}"
        for name in ("photo", "photo_2", "photo_3")
        for ending in ("png", "gif")
    ]
    with Image.open(tmp_path / "out" / "photo_reconstruction.png") as image:
        assert np.array_equal(np.asarray(image), found[0].picture)
    with Image.open(tmp_path / "out" / "photo_reconstruction.gif") as animation:
        assert animation.n_frames == len(found[0].frames) == 3
        assert animation.size == (4 + 4 * SIZE, found[0].frames[0].shape[0])
