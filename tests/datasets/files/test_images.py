import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from da.errors import UserError
from datasets.files.decoding import Reading, read_image
from datasets.files.file_names import folders, image_files
from datasets.files.image_sets import FileImages

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]


def read(path, image, **options):
    """What is read of an image that is saved losslessly, ``(H, W, 3)``."""
    image.save(path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = read_image(path, Reading(8))
    assert decoded.shape == (3, 8, 8)
    assert decoded.dtype == np.uint8
    return decoded.transpose(1, 2, 0)


def refused(path):
    with pytest.raises(UserError) as caught:
        read_image(path, Reading(8))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"image '{path}' can't be read: ")
    return text


def test_colours_are_kept(tmp_path):
    assert np.array_equal(read(tmp_path / "x.png", Image.fromarray(COLOUR)), COLOUR)


def test_grey_is_repeated(tmp_path):
    expected = np.repeat(GREY[..., None], 3, axis=2)
    assert np.array_equal(read(tmp_path / "x.png", Image.fromarray(GREY)), expected)


def test_black_and_white_uses_the_whole_range(tmp_path):
    bits = GREY > 127
    decoded = read(tmp_path / "x.png", Image.fromarray(bits))
    assert np.array_equal(decoded, np.repeat(255 * bits[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_and_not_saturated(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    decoded = read(tmp_path / f"x.{suffix}", Image.fromarray(ramp))
    expected = np.rint(ramp / 257).astype(np.uint8)
    assert np.array_equal(decoded, np.repeat(expected[..., None], 3, axis=2))
    assert len(np.unique(decoded)) == 64
    assert (decoded.min(), decoded.max()) == (0, 255)


def test_16_bits_of_colour_are_scaled_too(tmp_path):
    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    values = RNG.integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    decoded = read_image(path, Reading(8)).transpose(1, 2, 0)
    assert np.abs(decoded - values / 257).max() <= 1  # Pillow takes the upper byte


@pytest.mark.parametrize("values", [-1.0, 65536.0])
def test_values_without_a_known_range_are_refused(tmp_path, values):
    Image.fromarray(np.full((8, 8), values, np.int32)).save(tmp_path / "i.tif")
    assert "grey values beyond 16 bits" in refused(tmp_path / "i.tif")
    Image.fromarray(np.full((8, 8), values, np.float32)).save(tmp_path / "f.tif")
    assert "floating-point images have no fixed range" in refused(tmp_path / "f.tif")


@pytest.mark.parametrize("alpha", [0, 7, 255])
def test_alpha_is_dropped(tmp_path, alpha):
    clear = np.full((8, 8, 1), alpha, np.uint8)
    colour = Image.fromarray(np.concatenate([COLOUR, clear], axis=2))
    assert np.array_equal(read(tmp_path / "x.png", colour), COLOUR)
    grey = Image.fromarray(np.concatenate([GREY[..., None], clear], axis=2))
    assert grey.mode == "LA"
    expected = np.repeat(GREY[..., None], 3, axis=2)
    assert np.array_equal(read(tmp_path / "y.png", grey), expected)


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
def test_palettes_give_their_colours(tmp_path, transparency):
    indices = RNG.integers(0, 3, (8, 8), dtype=np.uint8)
    colours = np.array([[255, 0, 10], [0, 200, 20], [5, 6, 250]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    options = {} if transparency is None else {"transparency": transparency}
    assert np.array_equal(read(tmp_path / "x.png", image, **options), colours[indices])


def test_cmyk_is_converted(tmp_path):
    inks = RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    decoded = read(tmp_path / "x.tif", Image.fromarray(inks, "CMYK")).astype(int)
    light = 255 - inks.astype(float)
    expected = light[..., :3] * light[..., 3:] / 255
    assert np.abs(decoded - expected).max() <= 1


def test_cmyk_jpegs_are_not_inverted(tmp_path):
    image = Image.fromarray(np.full((8, 8, 4), (0, 255, 255, 0), np.uint8), "CMYK")
    decoded = read(tmp_path / "x.jpg", image, quality=95)
    assert np.abs(decoded.astype(int) - (255, 0, 0)).max() <= 4


def test_exif_rotation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = read(tmp_path / "x.png", Image.fromarray(COLOUR), exif=exif)
    with Image.open(tmp_path / "x.png") as file:
        assert file.getexif()[0x0112] == 6
    assert np.array_equal(decoded, COLOUR)


def test_any_shape_becomes_a_square(tmp_path):
    wide = np.repeat(np.repeat(COLOUR, 2, axis=0), 5, axis=1)
    path = tmp_path / "x.png"
    Image.fromarray(wide).save(path)
    expected = np.asarray(Image.fromarray(wide).resize((8, 8), Image.Resampling.BILINEAR))
    decoded = read_image(path, Reading(8)).transpose(1, 2, 0)
    assert np.abs(decoded.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(40, 80), (90, 33), (50, 50)])
def test_the_shorter_side_is_resized_as_torchvision_does(tmp_path, shape):
    pixels = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    decoded = read_image(tmp_path / "x.png", Reading(20, keep_aspect=True))
    expected = np.asarray(v2.Resize(20)(Image.fromarray(pixels))).transpose(2, 0, 1)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= 1


def test_transparent_images_on_white(tmp_path):
    clear = np.zeros((8, 8, 1), np.uint8)
    clear[4:] = 255
    Image.fromarray(np.concatenate([COLOUR, clear], axis=2)).save(tmp_path / "x.png")
    decoded = read_image(tmp_path / "x.png", Reading(8, alpha="white")).transpose(1, 2, 0)
    assert (decoded[:4] == 255).all()
    assert np.array_equal(decoded[4:], COLOUR[4:])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_rotation_is_applied_where_asked_for(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter to the right
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    Image.fromarray(pixels).save(tmp_path / f"x.{suffix}", exif=exif)
    decoded = read_image(tmp_path / f"x.{suffix}", Reading(8, exif=True)).transpose(1, 2, 0)
    assert np.abs(np.rot90(pixels, -1).astype(int) - decoded).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_both_decoders_of_jpeg_give_the_same_pixels(tmp_path, mode, options):
    smooth = Image.fromarray(COLOUR).resize((99, 75), Image.Resampling.BICUBIC).convert(mode)
    smooth.save(tmp_path / "x.jpg", quality=90, **options)
    expected = np.asarray(Image.open(tmp_path / "x.jpg").convert("RGB")).astype(int)
    decoded = read_image(tmp_path / "x.jpg", Reading(75, keep_aspect=True)).transpose(1, 2, 0)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= 2
    assert abs(decoded.mean() - expected.mean()) < 0.05


def test_fast_decoding_of_large_jpegs_differs_by_a_few_levels(tmp_path):
    large = Image.fromarray(COLOUR).resize((800, 600), Image.Resampling.BICUBIC)
    large.save(tmp_path / "x.jpg", quality=90)
    exact, fast = (
        read_image(tmp_path / "x.jpg", Reading(64), f).astype(int) for f in (False, True)
    )
    assert 0 < np.abs(exact - fast).max() <= 6
    assert np.abs(exact - fast).mean() < 0.7


def test_a_wrong_extension_does_not_matter(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "PNG")
    (tmp_path / "x.jpg").write_bytes(buffer.getvalue())
    assert np.array_equal(read_image(tmp_path / "x.jpg", Reading(8)), COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif", "ppm"])
def test_truncated_files_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refused(path).endswith("; repair or remove it")


def test_what_is_no_image_is_refused_by_name(tmp_path):
    for name, content in (("empty.jpg", b""), ("text.jpg", b"<html>quota exceeded</html>")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert "No such file" in refused(tmp_path / "gone.png")


def test_a_decompression_bomb_is_refused_by_name(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(COLOUR).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)  # a header of 10 GB of pixels
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    assert "3600000000 pixels" in refused(path)


def test_image_files_leaves_out_what_is_none(tmp_path):
    for name in ("b.png", "a.JPG", "c.webp", "._b.png", ".hidden.jpg", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    assert image_files(tmp_path) == (
        ["a.JPG", "b.png", "c.webp"],
        {"hidden": 2, ".db": 1, ".txt": 1},
    )
    assert folders(tmp_path) == ["folder.png"]


def test_the_fingerprint_follows_names_labels_and_contents(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(COLOUR).save(tmp_path / name)

    def fingerprint(paths=("a.png", "b.png"), labels=(0, 1), classes=("x", "y")):
        return FileImages(tmp_path, paths, np.array(labels), classes, Reading(8)).fingerprint()

    expected = fingerprint()
    assert expected == fingerprint()
    assert expected != fingerprint(labels=(1, 0))
    assert expected != fingerprint(paths=("b.png", "a.png"))
    assert expected != fingerprint(classes=("x", "z"))
    content = bytearray((tmp_path / "b.png").read_bytes())
    content[-30] ^= 1  # of the same size
    (tmp_path / "b.png").write_bytes(content)
    assert expected != fingerprint()
    (tmp_path / "b.png").unlink()
    with pytest.raises(UserError, match=r"b\.png' can't be read: .*No such file"):
        fingerprint()
