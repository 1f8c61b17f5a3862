"""Datasets from published archives: CIFAR and Tiny ImageNet, on tiny archives made here and on real
parts.
"""

import functools
import hashlib
import http.server
import os
import pathlib
import subprocess
import sys
import threading
import zipfile

import numpy as np
import PIL.Image
import pytest
from helpers.archive_files import (
    ROOT,
    TRAIN,
    cifar_arrays,
    cifar_members,
    colors,
    encoded,
    tiny_members,
    write_cifar,
    write_tiny,
    write_zip,
)

from plasticity_jax import datasets
from plasticity_jax.datasets import builders, cache, contract, files, layouts

# read before the fixture removes it
REAL = pathlib.Path(os.environ.get("PLASTICITY_DATA_DIR", "/nonexistent"))


pytestmark = pytest.mark.usefixtures("cache_root")  # every test has a cache of its own


@pytest.fixture
def prepares(monkeypatch):
    """A list that grows by one name whenever a builder runs."""
    calls, prepare = [], builders.prepare
    monkeypatch.setattr(
        builders, "prepare", lambda name, *rest: calls.append(name) or prepare(name, *rest)
    )
    return calls


def assert_same(a, b):
    for field in cache.ARRAYS:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    for field in ("name", "source", "fingerprint", "classes", "mean", "std"):
        assert getattr(a, field) == getattr(b, field)


def fault_of(name, folder, *parts):
    """Loads, expects one sentence with all of `parts`, and returns it."""
    with pytest.raises(datasets.DataError) as fault:
        datasets.load(name, str(folder))
    text = str(fault.value)
    assert text.startswith(f"{name}: ")
    assert text.endswith(".")
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text
    return text


# CIFAR


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(tmp_path, monkeypatch, prepares, name, classes):
    path = write_cifar(name, tmp_path / "data" / name, monkeypatch)
    data = datasets.load(name, str(tmp_path / "data"))
    images, labels = cifar_arrays(classes)
    np.testing.assert_array_equal(data.images, images[:TRAIN])
    np.testing.assert_array_equal(data.labels, labels[:TRAIN])
    np.testing.assert_array_equal(data.test_images, images[TRAIN:])
    np.testing.assert_array_equal(data.test_labels, labels[TRAIN:])
    assert (data.images.dtype, data.labels.dtype, data.classes) == (np.uint8, np.int32, classes)
    assert data.source == str(path.parent)
    np.testing.assert_allclose(data.mean, images[:TRAIN].mean((0, 1, 2)))
    np.testing.assert_allclose(data.std, images[:TRAIN].std((0, 1, 2)))
    assert isinstance(data.images.base, np.memmap) or isinstance(data.images, np.memmap)
    assert_same(data, datasets.load(name, str(tmp_path / "data")))
    path.unlink()  # the sum is known, so the cache is enough
    assert_same(data, datasets.load(name))
    assert prepares == [name]


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "."])
def test_cifar_unpacked(tmp_path, monkeypatch, prepares, folder):
    """No sum is known of its files: sizes, labels and equally many of each class are."""
    packed = datasets.load(
        "cifar10", str(write_cifar("cifar10", tmp_path / "packed", monkeypatch).parent)
    )
    place = tmp_path / "unpacked" / folder
    place.mkdir(parents=True)
    members = cifar_members("cifar10", *cifar_arrays(10))
    for name, content in members.items():
        (place / name).write_bytes(content)
    (place / "readme.html").write_text("-")
    data = datasets.load("cifar10", str(tmp_path / "unpacked"))
    assert data.fingerprint == packed.fingerprint
    assert data.source.startswith(f"{place.resolve()}: unpacked, with SHA-256 ")
    assert_same(data, datasets.load("cifar10", str(tmp_path / "unpacked")))
    assert prepares == ["cifar10", "cifar10"]
    label = members["test_batch.bin"][0]
    (place / "test_batch.bin").write_bytes(
        bytes([(label + 1) % 10]) + members["test_batch.bin"][1:]
    )
    fault_of("cifar10", tmp_path / "unpacked", place, "test images of a class, expected 1 of each")
    (place / "test_batch.bin").write_bytes(members["test_batch.bin"][:-1])
    fault_of("cifar10", tmp_path / "unpacked", place, "30729 bytes")


def test_pickles_of_cifar_are_named_and_not_read(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").touch()
    fault_of(
        "cifar10", tmp_path, "where there is cifar-10-python.tar.gz (pickles", "binary version"
    )


def test_cifar_wrong_sum(tmp_path, monkeypatch):
    path = write_cifar("cifar10", tmp_path, monkeypatch)
    datasets.load("cifar10", str(tmp_path))  # a cache entry must not hide the damage
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    fault_of(
        "cifar10",
        tmp_path,
        path,
        "corrupt or another file",
        found,
        layouts.SHA256["cifar10"][path.name],
    )


def test_cifar_cut_short(tmp_path, monkeypatch, cache_root):
    path = write_cifar("cifar10", tmp_path, monkeypatch)
    content = path.read_bytes()
    path.write_bytes(content[:100_000])
    sums = [hashlib.sha256(c).hexdigest() for c in (content[:100_000], content)]
    fault_of("cifar10", tmp_path, path, f"cut short at 100,000 of {len(content):,} bytes", *sums)
    layouts.SHA256["cifar10"].clear()  # and where no sum would tell
    fault_of("cifar10", tmp_path, path, "no whole compressed file")
    path.write_bytes(b"Please log in")
    fault_of("cifar10", tmp_path, path, "no whole compressed file")
    assert not list((cache_root / "arrays").iterdir())


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda m: m.pop("data_batch_3.bin"), ["has no member data_batch_3.bin"]),
        (
            lambda m: m.update({"test_batch.bin": m["test_batch.bin"][:-1]}),
            ["test_batch.bin", "30729 ", "30730 for 10"],
        ),
        (
            lambda m: m.update({"data_batch_2.bin": b"\x0a" + m["data_batch_2.bin"][1:]}),
            ["data_batch_2.bin", "..10, ", "0..9"],
        ),
    ],
)
def test_cifar_structure(tmp_path, monkeypatch, change, parts):
    path = write_cifar("cifar10", tmp_path, monkeypatch, change)
    fault_of("cifar10", tmp_path, path, *parts)


def test_cifar_download(tmp_path, monkeypatch):
    path = write_cifar("cifar10", tmp_path / "served", monkeypatch)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    handler = functools.partial(Quiet, directory=str(path.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        layout = layouts.ORIGINALS["cifar10"]._replace(
            url=f"http://127.0.0.1:{service.server_port}/"
        )
        monkeypatch.setitem(layouts.ORIGINALS, "cifar10", layout)
        data = datasets.load("cifar10", str(tmp_path / "new"), download=True)
        service.shutdown()
    np.testing.assert_array_equal(data.images, cifar_arrays(10)[0][:TRAIN])
    assert data.source == str(tmp_path / "new" / "cifar10")
    assert [p.name for p in (tmp_path / "new" / "cifar10").iterdir()] == [path.name]


def test_another_split_that_is_there_is_named(tmp_path):
    (tmp_path / "tiny-imagenet-200-first2.zip").touch()
    with pytest.raises(
        datasets.DataError, match=r"There is what --dataset=tiny_imagenet/part needs\.$"
    ):
        datasets.load("tiny_imagenet", tmp_path)
    with pytest.raises(datasets.DataError, match=r"or add --download\.$"):
        datasets.load("cifar10", tmp_path)


def test_cifar_missing(tmp_path):
    fault_of(
        "cifar100",
        tmp_path,
        "cifar-100-binary.tar.gz not found in",
        tmp_path,
        "--data_dir",
        "--download",
    )
    (tmp_path / "cifar-100-binary.tar").touch()  # no sum is known of the uncompressed archive
    fault_of("cifar100", tmp_path, "cifar-100-binary.tar.gz not found in")


def test_cifar_of_the_other_kind(tmp_path, monkeypatch):
    path = write_cifar("cifar10", tmp_path, monkeypatch)
    other = path.rename(tmp_path / "cifar-100-binary.tar.gz")
    fault_of("cifar100", tmp_path, other, "is a file of cifar10", "expected one of cifar100")


# Tiny ImageNet


def assert_tiny(data, classes=3):
    assert (data.images.shape, data.classes) == ((12 * classes, 64, 64, 3), classes)
    assert data.test_images.shape == (2 * classes, 64, 64, 3)
    np.testing.assert_array_equal(data.labels, np.repeat(np.arange(classes), 12))
    np.testing.assert_array_equal(data.test_labels, np.tile(np.arange(classes), 2))
    for row, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        color = colors("train")[label][row % 12]
        if row % 12 == 1:  # luma, as JPEG and pillow define it
            color = 3 * [round(np.dot((0.299, 0.587, 0.114), color))]
        np.testing.assert_allclose(image.reshape(-1, 3), np.broadcast_to(color, (4096, 3)), atol=4)
    for row, (image, label) in enumerate(zip(data.test_images, data.test_labels, strict=True)):
        color = colors("val")[label][row // classes]
        np.testing.assert_allclose(image[0, 0], color, atol=4)


def test_tiny_imagenet_with_grey_and_cmyk_images(tmp_path, monkeypatch, prepares):
    path = write_tiny(tmp_path / "data" / "tiny_imagenet", monkeypatch)
    modes = []
    with zipfile.ZipFile(path) as archive:
        for i in range(3):
            with PIL.Image.open(archive.open(f"{ROOT}train/n01/images/n01_{i}.JPEG")) as image:
                modes.append(image.mode)
    assert modes == ["RGB", "L", "CMYK"]
    data = datasets.load("tiny_imagenet", str(tmp_path / "data"))
    assert_tiny(data)
    assert data.source == str(path.parent)
    assert_same(data, datasets.load("tiny_imagenet", str(tmp_path / "data")))
    path.unlink()
    assert_same(data, datasets.load("tiny_imagenet"))
    assert prepares == ["tiny_imagenet"]


@pytest.mark.parametrize("folder", ["tiny-imagenet-200", "tiny_imagenet/tiny-imagenet-200", "."])
def test_tiny_imagenet_unpacked(tmp_path, monkeypatch, prepares, folder):
    packed = datasets.load(
        "tiny_imagenet", str(write_tiny(tmp_path / "packed", monkeypatch).parent)
    )
    place = tmp_path / "unpacked" / folder
    for member, content in tiny_members().items():
        (place / member).parent.mkdir(parents=True, exist_ok=True)
        (place / member).write_bytes(content)
    data = datasets.load("tiny_imagenet", str(tmp_path / "unpacked"))
    assert (data.fingerprint, data.mean) == (packed.fingerprint, packed.mean)
    (place / "test/images/test_0.JPEG").unlink()
    assert_same(data, datasets.load("tiny_imagenet", str(tmp_path / "unpacked")))
    assert prepares == ["tiny_imagenet", "tiny_imagenet"]
    # another picture is other data
    (place / "train/n01/images/n01_3.JPEG").write_bytes(encoded((1, 2, 3)))
    assert (
        datasets.load("tiny_imagenet", str(tmp_path / "unpacked")).fingerprint != data.fingerprint
    )
    (place / "train/n01/images/n01_3.JPEG").unlink()
    fault_of(
        "tiny_imagenet", tmp_path / "unpacked", place, "11 train images of class n01, expected 12"
    )


def test_a_zip_with_backslashes(tmp_path, monkeypatch):
    write_tiny(tmp_path / "whole", monkeypatch)
    members = tiny_members()
    two_classes(members)
    path = write_zip(tmp_path / "data" / "tiny-imagenet-200-two.zip", {})
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr((ROOT + member).replace("/", "\\"), content)
        assert "tiny-imagenet-200\\wnids.txt" in archive.namelist()
    assert_tiny(datasets.load("tiny_imagenet/part", str(tmp_path / "data")), classes=2)


def test_names_in_an_archive_that_are_no_text(tmp_path, monkeypatch):
    """An unpacked image whose name is not UTF-8 is an image; a broken one is told with its name as
    far as that is text.
    """
    write_tiny(tmp_path / "packed", monkeypatch)
    place = tmp_path / "unpacked" / "tiny-imagenet-200"
    for member, content in tiny_members().items():
        (place / member).parent.mkdir(parents=True, exist_ok=True)
        (place / member).write_bytes(content)
    file = place / "train/n01/images/n01_3.JPEG"
    file = file.rename(file.with_name(os.fsdecode(b"n01_\xe9.JPEG")))
    assert len(datasets.load("tiny_imagenet", str(tmp_path / "unpacked")).images) == 36
    file.write_bytes(b"text")
    fault_of("tiny_imagenet", tmp_path / "unpacked", "n01_\ufffd.JPEG is no whole image (no JPEG)")


def test_a_picture_of_a_size_beyond_memory(tmp_path, monkeypatch):
    jpeg = bytearray(encoded((1, 2, 3)))
    at = jpeg.index(b"\xff\xc0") + 5
    for size in (12_000, 65_500):  # of which pillow warns, and which it refuses
        jpeg[at : at + 4] = size.to_bytes(2, "big") * 2
        content = bytes(jpeg)
        write_tiny(
            tmp_path,
            monkeypatch,
            lambda m, content=content: m.update({"train/n01/images/n01_3.JPEG": content}),
        )
        fault_of("tiny_imagenet", tmp_path, "n01_3.JPEG is no whole image", "pixels")


def test_tiny_imagenet_wrong_sum_and_cut_short(tmp_path, monkeypatch):
    path = write_tiny(tmp_path, monkeypatch)
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    expected = hashlib.sha256(content).hexdigest()
    fault_of(
        "tiny_imagenet",
        tmp_path,
        "corrupt or another file",
        hashlib.sha256(content + b"\0").hexdigest(),
        expected,
    )
    path.write_bytes(content[:20_000])
    fault_of(
        "tiny_imagenet", tmp_path, path, f"cut short at 20,000 of {len(content):,} bytes", expected
    )


def annotate(members, old, new):
    members["val/val_annotations.txt"] = members["val/val_annotations.txt"].replace(old, new, 1)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda m: m.pop("wnids.txt"), ["no member wnids.txt"]),
        (lambda m: m.pop("val/val_annotations.txt"), [f"no member {ROOT}val/val_annotations.txt"]),
        (lambda m: m.update({"wnids.txt": b"n03\nn01\n"}), ["names 2 classes, expected 3"]),
        (lambda m: m.update({"wnids.txt": b"n03\nn01\nn01\n"}), ["2 different classes in 3"]),
        (
            lambda m: m.update({"wnids.txt": b"n03\nn01\nn04\n"}),
            ["is of class n02, expected one of wnids.txt"],
        ),
        (
            lambda m: m.pop("train/n02/images/n02_5.JPEG"),
            ["11 train images of class n02, expected 12"],
        ),
        (lambda m: m.pop("val/images/val_11.JPEG"), [f"no member {ROOT}val/images/val_11.JPEG"]),
        (lambda m: annotate(m, b"n01", b"n02"), ["1 validation images of class n01, expected 2"]),
        (lambda m: annotate(m, b"\tn01", b" n01"), ["no member", "val_1.JPEG n01"]),
        (
            lambda m: annotate(m, b"val_0.JPEG\tn03\t0\t0\t63\t63", b"val_0.JPEG"),
            ["val_0.JPEG", "is of class nothing"],
        ),
        (
            lambda m: m.update({"train/n01/images/n01_3.JPEG": encoded((1, 2, 3), size=(64, 63))}),
            ["n01_3.JPEG", "[63, 64, 3], expected [64, 64, 3]"],
        ),
        (
            lambda m: m.update({"train/n01/images/n01_3.JPEG": b"text"}),
            ["n01_3.JPEG is no whole image (no JPEG)"],
        ),
        (
            lambda m: m.update({"train/n01/images/n01_3.JPEG": encoded((1, 2, 3))[:630]}),
            ["n01_3.JPEG is no whole image", "truncated"],
        ),
    ],
)
def test_tiny_imagenet_structure(tmp_path, monkeypatch, cache_root, change, parts):
    write_tiny(tmp_path, monkeypatch, change)
    fault_of("tiny_imagenet", tmp_path, *parts)
    assert not list((cache_root / "arrays").iterdir())


def test_tiny_imagenet_flipped_bit_where_no_sum_tells(tmp_path, monkeypatch):
    path = write_tiny(tmp_path, monkeypatch)
    layouts.SHA256["tiny_imagenet"].clear()
    content = path.read_bytes()
    # inside the first JPEG: the zip's own checksum is all there is
    place = content.index(b"\xff\xd8") + 300
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    fault_of("tiny_imagenet", tmp_path, path, "no whole compressed file", "Bad CRC-32")


def two_classes(members):
    """Cuts the class n02 away."""
    for member in [m for m in members if "n02" in m]:
        del members[member]
    members["wnids.txt"] = b"n03\nn01\n"
    lines = members["val/val_annotations.txt"].splitlines(keepends=True)
    members["val/val_annotations.txt"] = b"".join(line for line in lines if b"n02" not in line)


def test_part_of_tiny_imagenet_only_under_its_name(tmp_path, monkeypatch, prepares):
    write_tiny(tmp_path / "whole", monkeypatch)
    members = tiny_members()
    two_classes(members)
    path = write_zip(tmp_path / "data" / "tiny-imagenet-200-two.zip", members)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    fault_of("tiny_imagenet", tmp_path / "data", "tiny-imagenet-200.zip not found")
    data = datasets.load("tiny_imagenet/part", str(tmp_path / "data"))
    assert_tiny(data, classes=2)
    assert data.source == f"{path.parent}: {path.name} with SHA-256 {found}"
    assert data.name == "tiny_imagenet/part"
    again = datasets.load("tiny_imagenet/part", str(tmp_path / "data"), download=True)
    assert_same(data, again)
    assert prepares == ["tiny_imagenet/part"]
    # Under the name of the whole it is refused, by its sum and, were that not known, by its
    # classes.
    path = path.rename(path.with_name("tiny-imagenet-200.zip"))
    text = fault_of("tiny_imagenet", tmp_path / "data", found)
    assert "expected" in text
    layouts.SHA256["tiny_imagenet"].clear()
    fault_of("tiny_imagenet", tmp_path / "data", "names 2 classes, expected 3")


def test_part_of_tiny_imagenet_faults(tmp_path, monkeypatch):
    write_tiny(tmp_path / "whole", monkeypatch)
    name, folder = "tiny_imagenet/part", tmp_path / "data"
    with pytest.raises(datasets.DataError) as fault:  # nowhere to download it from
        datasets.load(name, str(folder), download=True)
    assert "tiny-imagenet-200-*.zip not found" in str(fault.value)
    assert "--download" not in str(fault.value)
    path = write_zip(folder / "tiny-imagenet-200-all.zip", tiny_members())
    fault_of(name, folder, path, "names 3 classes, expected 1..2 for a part")
    (folder / "tiny-imagenet-200-b.zip").write_bytes(path.read_bytes()[:20_000])
    fault_of(name, folder, "tiny-imagenet-200-all.zip, tiny-imagenet-200-b.zip, expected one file")
    path.unlink()
    fault_of(name, folder, "tiny-imagenet-200-b.zip is no whole compressed file")


def test_preparing_an_archive_imports_no_tensorflow_and_warns_of_nothing(tmp_path, monkeypatch):
    path = write_tiny(tmp_path, monkeypatch)
    layout = layouts.ORIGINALS["tiny_imagenet"]
    code = f"""
import sys
from plasticity_jax import datasets
from plasticity_jax.datasets import files, layouts
sums = {layouts.SHA256["tiny_imagenet"]!r}
layouts.SHA256["tiny_imagenet"] = sums
numbers = dict(classes={layout.classes}, train={layout.train}, test={layout.test})
layouts.ORIGINALS["tiny_imagenet"] = layouts.ORIGINALS["tiny_imagenet"]._replace(**numbers)
assert len(datasets.load("tiny_imagenet", {str(path.parent)!r}).images) == {layout.train}
assert "tensorflow_datasets" in sys.modules
assert not {{"tensorflow", "cv2"}} & set(sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


# Statistics and the whole at its published numbers


def test_statistics_of_many_pixels(monkeypatch):
    monkeypatch.setattr(contract, "PIXELS_AT_ONCE", 50)  # two images a step
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 6, 2), np.uint8)
    mean, std = contract.statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)))
    np.testing.assert_allclose(std, images.std((0, 1, 2)))


def test_published_numbers():
    known = {name: layouts.ORIGINALS[name] for name in ("cifar10", "cifar100", "tiny_imagenet")}
    numbers = {n: (x.shape, x.classes, x.train, x.test) for n, x in known.items()}
    assert numbers == {
        "cifar10": ((32, 32, 3), 10, 50_000, 10_000),
        "cifar100": ((32, 32, 3), 100, 50_000, 10_000),
        "tiny_imagenet": ((64, 64, 3), 200, 100_000, 10_000),
    }
    assert "10 classes, 50,000 train and 10,000 test images, 32x32, color" in str(
        datasets.DATASETS["cifar10"].__doc__
    )
    assert "--download" not in str(datasets.DATASETS["tiny_imagenet/part"].__doc__)


def test_sums_are_those_of_tensorflow_datasets():
    """Where TFDS lists the archive, its sum and size are ours."""
    import tensorflow_datasets as tfds

    for name in ("cifar10", "cifar100"):
        listed = (
            (pathlib.Path(tfds.__file__).parent / "url_checksums" / f"{name}.txt")
            .read_text()
            .split("\t")
        )
        (file,) = layouts.ORIGINALS[name].files
        assert listed[0] == layouts.ORIGINALS[name].urls[file]
        assert (int(listed[1]), listed[2]) == (layouts.BYTES[file], layouts.SHA256[name][file])


# Real files


@pytest.mark.slow
@pytest.mark.skipif(
    not list((REAL / "tiny_imagenet").glob("tiny-imagenet-200-*.zip")),
    reason="needs a part of Tiny ImageNet in $PLASTICITY_DATA_DIR/tiny_imagenet",
)
def test_real_part_of_tiny_imagenet():
    data = datasets.load("tiny_imagenet/part", str(REAL))
    (path,) = (REAL / "tiny_imagenet").glob("tiny-imagenet-200-*.zip")
    assert data.images.shape == (500 * data.classes, 64, 64, 3)
    assert data.test_images.shape == (50 * data.classes, 64, 64, 3)
    np.testing.assert_array_equal(np.bincount(data.test_labels), [50] * data.classes)
    with zipfile.ZipFile(path) as archive:
        wnids = archive.read(f"{ROOT}wnids.txt").decode().split()
        for row in range(0, len(data.images), 997):
            wnid = wnids[data.labels[row]]
            member = f"{ROOT}train/{wnid}/images/{wnid}_{row % 500}.JPEG"
            with PIL.Image.open(archive.open(member)) as image:
                np.testing.assert_array_equal(data.images[row], np.asarray(image.convert("RGB")))
    assert_same(data, datasets.load("tiny_imagenet/part", str(REAL)))


@pytest.mark.skipif(
    not (REAL / "cifar10_part").is_dir(),
    reason="needs .npy arrays in $PLASTICITY_DATA_DIR/cifar10_part",
)
def test_real_part_of_cifar10_as_arrays():
    data = datasets.load(f"arrays:{REAL / 'cifar10_part'}")
    assert (data.images.shape[1:], data.test_images.shape[1:]) == ((32, 32, 3), (32, 32, 3))
    assert (data.images.dtype, data.labels.dtype, data.classes) == (np.uint8, np.int32, 10)
    # Close to the statistics of the whole that are in general use.
    np.testing.assert_allclose(np.divide(data.mean, 255), (0.4914, 0.4822, 0.4465), atol=0.01)
    np.testing.assert_allclose(np.divide(data.std, 255), (0.2470, 0.2435, 0.2616), atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny_imagenet"])
def test_real_archive(name):
    layout = layouts.ORIGINALS[name]
    if not any((folder / layout.files[0]).is_file() for folder in files.search_folders(name, REAL)):
        pytest.skip(f"needs {layout.files[0]} in $PLASTICITY_DATA_DIR")
    data = datasets.load(name, str(REAL))
    assert (len(data.images), len(data.test_images)) == (layout.train, layout.test)
    np.testing.assert_array_equal(
        np.bincount(data.labels), [layout.train // layout.classes] * layout.classes
    )
    np.testing.assert_array_equal(
        np.bincount(data.test_labels), [layout.test // layout.classes] * layout.classes
    )
