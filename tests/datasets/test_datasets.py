"""Datasets: digits, the MNIST family on tiny original files made here, folders of arrays,
subsampling, faults.
"""

import functools
import gzip
import hashlib
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from helpers.data_files import TEST, TRAIN, idx, tiny_arrays, unpacked, write_originals

from plasticity_jax import datasets
from plasticity_jax.datasets import builders, cache, contract, digits, files, layouts
from plasticity_jax.datasets import idx as idx_files

pytestmark = pytest.mark.usefixtures("cache_root")  # every test has a cache of its own


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    return write_originals("mnist", tmp_path / "data", tiny_arrays(), monkeypatch)


@pytest.fixture
def prepares(monkeypatch):
    """A list that grows by one name whenever a builder runs."""
    calls, prepare = [], builders.prepare

    def counted(name, *arguments):
        calls.append(name)
        return prepare(name, *arguments)

    monkeypatch.setattr(builders, "prepare", counted)
    return calls


def assert_same(a, b):
    assert a.fingerprint == b.fingerprint
    for field in cache.ARRAYS:
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert (a.name, a.source, a.classes, a.mean, a.std) == (
        b.name,
        b.source,
        b.classes,
        b.mean,
        b.std,
    )


def assert_sentence(fault, *parts):
    text = str(fault.value)
    assert "\n" not in text
    assert text.endswith(".")
    for part in parts:
        assert str(part) in text, text


# Names and the contract of a Dataset


def test_unknown_name_lists_the_known():
    with pytest.raises(
        ValueError, match=r"'minst'; known are digits, mnist, .*emnist/mnist, .*arrays:PATH\."
    ) as fault:
        datasets.load("minst")
    assert_sentence(fault)
    with pytest.raises(ValueError, match="arrays:PATH"):
        datasets.check_name("arrays:")
    with pytest.raises(ValueError, match="known are"):
        datasets.check_name("emnist")


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_every_name_is_known_and_described(name):
    datasets.check_name(name)
    first_line = (datasets.DATASETS[name].__doc__ or "").splitlines()[0]
    assert 20 < len(first_line) < 170


def test_every_original_has_a_builder_and_its_files():
    assert {layouts.family(name) for name in layouts.ORIGINALS} == set(builders.BUILDERS)
    for family, builder in builders.BUILDERS.items():
        configs = {f"{family}/{config.name}" for config in builder.BUILDER_CONFIGS}
        assert configs >= {name for name in layouts.ORIGINALS if name.startswith(f"{family}/")}
    assert set(layouts.ORIGINALS) <= set(datasets.DATASETS)
    assert {len(layout.files) for layout in layouts.ORIGINALS.values()} == {1, 4}
    assert all(
        len(published) == 64 for sums in layouts.SHA256.values() for published in sums.values()
    )


def test_digits():
    data = datasets.load("digits")
    assert (data.images.shape, data.test_images.shape, data.classes) == (
        (1437, 8, 8, 1),
        (360, 8, 8, 1),
        10,
    )
    assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int32)
    assert (data.images.max(), data.labels.min(), data.labels.max()) == (16, 0, 9)
    np.testing.assert_allclose(
        contract.statistics(data.images), ([digits.MEAN], [digits.STD]), rtol=1e-12
    )
    np.testing.assert_allclose(data.images.mean(), data.mean[0], rtol=1e-12)
    np.testing.assert_allclose(data.images.std(), data.std[0], rtol=1e-12)
    # The embedded data set is a fixed one: should scikit-learn change it, results no longer
    # compare.
    assert data.fingerprint == "3e66540873145f18e567a0f208581b9bab75d043788fed4f87be26ace70953ab"
    assert not pathlib.Path(os.environ["PLASTICITY_CACHE_DIR"]).exists()


def test_statistics_by_channel():
    images = np.random.default_rng(1).integers(0, 256, (50, 4, 5, 3), np.uint8)
    images[..., 2] = 7
    mean, std = contract.statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)))
    np.testing.assert_allclose(std, images.std((0, 1, 2)), atol=1e-12)
    assert std[2] == 0.0


# Original files, builders and the cache


def test_mnist_from_originals_then_from_the_cache(mnist, prepares):
    first = datasets.load("mnist", str(mnist))
    images, labels, test_images, test_labels = tiny_arrays()
    np.testing.assert_array_equal(first.images, images[..., None])
    np.testing.assert_array_equal(first.labels, labels)
    np.testing.assert_array_equal(first.test_images, test_images[..., None])
    np.testing.assert_array_equal(first.test_labels, test_labels)
    assert (first.images.dtype, first.labels.dtype, first.classes) == (np.uint8, np.int32, 10)
    assert first.source == str(mnist)
    np.testing.assert_allclose((first.mean[0], first.std[0]), (images.mean(), images.std()))
    assert_same(first, datasets.load("mnist", str(mnist)))
    assert prepares == ["mnist"]


def test_cache_serves_without_originals_where_sums_are_published(mnist, prepares):
    first = datasets.load("mnist", str(mnist))
    assert_same(first, datasets.load("mnist"))
    assert prepares == ["mnist"]


def test_data_dir_from_the_environment_and_own_subfolder(tmp_path, monkeypatch, prepares):
    folder = write_originals("mnist", tmp_path / "data" / "mnist", tiny_arrays(), monkeypatch)
    monkeypatch.setenv("PLASTICITY_DATA_DIR", str(tmp_path / "data"))
    assert datasets.load("mnist").source == str(folder)
    assert prepares == ["mnist"]


def test_plain_files_are_accepted(mnist):
    zipped = datasets.load("mnist", str(mnist))
    for file in list(mnist.iterdir()):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    assert_same(zipped, datasets.load("mnist", str(mnist)))


def renamed(folder, change):
    """Moves every file of a folder to what `change` makes of its name."""
    for file in list(folder.iterdir()):
        target = folder / change(file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)


PEOPLE: dict = {
    "dots": lambda folder: renamed(folder, lambda name: name.replace("-idx", ".idx")),
    "dots, unpacked": lambda folder: (
        renamed(folder, lambda name: name.replace("-idx", ".idx")),
        unpacked(folder),
    ),
    "upper case": lambda folder: renamed(folder, str.upper),
    "MNIST/raw": lambda folder: renamed(folder, lambda name: f"MNIST/raw/{name}"),
    "raw": lambda folder: renamed(folder, lambda name: f"raw/{name}"),
    "MNIST": lambda folder: renamed(folder, lambda name: f"MNIST/{name}"),
    "mnist/raw, unpacked": lambda folder: (
        unpacked(folder),
        renamed(folder, lambda name: f"mnist/raw/{name}"),
    ),
    "unpacked under the old name": lambda folder: unpacked(folder, ".gz"),
    "packed anew": lambda folder: [
        f.write_bytes(gzip.compress(gzip.decompress(f.read_bytes()), 1)) for f in folder.iterdir()
    ],
}


@pytest.mark.parametrize("way", PEOPLE)
def test_files_as_people_have_them(mnist, monkeypatch, prepares, way):
    plain = {f.name.removesuffix(".gz"): gzip.decompress(f.read_bytes()) for f in mnist.iterdir()}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in plain.items()}
    monkeypatch.setitem(layouts.SHA256, "mnist", layouts.SHA256["mnist"] | sums)
    first = datasets.load("mnist", str(mnist))
    PEOPLE[way](mnist)
    again = datasets.load("mnist", str(mnist))
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.images, first.images)
    same_content = "packed" in way  # else it is the same entry of the cache
    assert prepares == ["mnist"] * (1 + same_content)
    for file in mnist.rglob("*t10k*labels*"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    for file in mnist.rglob("*T10K*LABELS*"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(datasets.DataError) as fault:
        datasets.load("mnist", str(mnist))
    assert_sentence(fault, mnist, "its SHA-256 is")


def test_fashion_mnist_beside_mnist_as_torchvision_leaves_them(tmp_path, monkeypatch):
    digits, articles = tiny_arrays(), [array[::-1].copy() for array in tiny_arrays()]
    write_originals("mnist", tmp_path / "MNIST" / "raw", digits, monkeypatch)
    write_originals("fashion_mnist", tmp_path / "FashionMNIST" / "raw", articles, monkeypatch)
    for name, arrays in (("mnist", digits), ("fashion_mnist", articles)):
        np.testing.assert_array_equal(datasets.load(name, str(tmp_path)).labels, arrays[1])


def test_what_is_there_instead_is_told(tmp_path):
    def told(*parts, folder=tmp_path, name="mnist"):
        with pytest.raises(datasets.DataError) as fault:
            datasets.load(name, str(folder))
        assert_sentence(fault, "not found in", *parts)

    (tmp_path / "train-images-idx3-ubyte.gz").mkdir()
    (tmp_path / "t10k-images-idx3-ubyte").symlink_to("t10k-images-idx3-ubyte")
    (tmp_path / os.fsdecode(b"caf\xe9")).touch()
    told("where there is caf\ufffd, t10k-images-idx3-ubyte, train-images-idx3-ubyte.gz;")
    for number in range(4):
        (tmp_path / f"a{number}").touch()
    told("where there is a0, a1, a2, a3, caf\ufffd, 2 more;")
    told("a0 is a file, not a folder", folder=tmp_path / "a0")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(datasets.DataError) as fault:
        datasets.load("mnist", str(tmp_path / "loop"))
    assert_sentence(fault, "mnist: ", "loop", "Too many levels of symbolic links")


def test_folders_and_files_without_permission(mnist, monkeypatch):
    """As root may read everything, the system's refusal is played."""
    refusal = PermissionError(13, "Permission denied")

    def refused(*_, **__):
        raise refusal

    for place, name in ((os, "scandir"), (hashlib, "file_digest")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, refused)
            with pytest.raises(datasets.DataError) as fault:
                datasets.load("mnist", str(mnist))
        assert_sentence(fault, mnist, "cannot be read (Permission denied)")


def test_emnist_letters_are_transposed_and_count_from_zero(tmp_path, monkeypatch):
    arrays = tiny_arrays(first_label=1, classes=26)
    folder = write_originals("emnist/letters", tmp_path / "data" / "gzip", arrays, monkeypatch)
    data = datasets.load("emnist/letters", str(folder.parent))
    np.testing.assert_array_equal(data.images[..., 0], arrays[0].transpose(0, 2, 1))
    np.testing.assert_array_equal(data.labels, arrays[1].astype(int) - 1)
    np.testing.assert_array_equal(data.test_images[3, :, :, 0], arrays[2][3].T)
    assert (data.labels.min(), data.labels.max(), data.classes) == (0, 25, 26)


def test_emnist_inside_the_archive(tmp_path, monkeypatch):
    arrays = tiny_arrays(classes=47)
    folder = write_originals(
        "emnist/balanced", tmp_path / "data" / "emnist", arrays, monkeypatch, sums=False
    )
    loose = datasets.load("emnist/balanced", str(tmp_path / "data"))
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for file in layouts.ORIGINALS["emnist/balanced"].files:
            archive.write(folder / file, f"gzip/{file}")
            (folder / file).unlink()
    assert_same(loose, datasets.load("emnist/balanced", str(tmp_path / "data")))
    (folder / "gzip.zip").rename(folder / "Gzip.ZIP")
    assert_same(loose, datasets.load("emnist/balanced", str(tmp_path / "data")))
    layouts.SHA256["emnist"]["gzip.zip"] = "0" * 64
    with pytest.raises(
        datasets.DataError,
        match=r"Gzip\.ZIP is cut short at .* of 561,753,746 bytes.*expected 0{64}",
    ):
        datasets.load("emnist/balanced", str(tmp_path / "data"))


def test_a_cache_entry_from_before_there_was_a_sum(mnist, prepares, cache_root):
    first = datasets.load("mnist", str(mnist))
    (file,) = (cache_root / "arrays").glob("*/manifest.json")
    manifest = json.loads(file.read_text())
    del manifest["sha256"]
    file.write_text(json.dumps(manifest, indent=1))
    assert_same(first, datasets.load("mnist", str(mnist)))
    assert prepares == ["mnist"]
    manifest["mean"][0] += 1
    file.write_text(json.dumps(manifest, indent=1))
    assert_same(first, datasets.load("mnist", str(mnist)))
    assert prepares == ["mnist", "mnist"]


def test_a_cache_entry_whose_sum_is_of_the_first_kind(mnist, prepares, cache_root):
    first = datasets.load("mnist", str(mnist))
    (file,) = (cache_root / "arrays").glob("*/manifest.json")
    manifest = json.loads(file.read_text())
    plain = json.dumps({**manifest, "sha256": ""}, sort_keys=True)
    manifest["sha256"] = hashlib.sha256(plain.encode()).hexdigest()
    file.write_text(json.dumps(manifest))
    assert_same(first, datasets.load("mnist", str(mnist)))
    assert prepares == ["mnist"]
    file.write_text(json.dumps({**manifest, "source": "another"}))
    assert_same(first, datasets.load("mnist", str(mnist)))
    assert prepares == ["mnist", "mnist"]


@pytest.mark.parametrize("damage", ["fingerprint", "truncated", "gone", "manifest"])
def test_damaged_cache_is_rebuilt(mnist, prepares, cache_root, damage, caplog):
    first = datasets.load("mnist", str(mnist))
    fingerprint, images = first.fingerprint, np.array(first.images)
    (entry,) = (cache_root / "arrays").iterdir()
    file = entry / ("manifest.json" if damage == "manifest" else "images.npy")
    content = bytearray(file.read_bytes())
    if damage == "fingerprint":
        content[-5] ^= 1
        file.write_bytes(content)
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2])
    again = datasets.load("mnist", str(mnist))
    assert again.fingerprint == fingerprint
    np.testing.assert_array_equal(again.images, images)
    assert prepares == ["mnist", "mnist"]
    assert "damaged" in caplog.text
    assert [p.name for p in (cache_root / "arrays").iterdir()] == [entry.name]
    assert_same(again, datasets.load("mnist", str(mnist)))
    assert len(prepares) == 2


def test_data_dir_is_only_read(mnist):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in [mnist, *mnist.rglob("*")]}

    for path in mnist.iterdir():
        path.chmod(0o444)
    mnist.chmod(0o555)
    before = state()
    try:
        assert len(datasets.load("mnist", str(mnist)).images) == TRAIN
        assert state() == before
    finally:
        mnist.chmod(0o755)


def test_two_processes_at_once(mnist, monkeypatch, cache_root):
    """Another process puts the same entry in its place while this one prepares."""
    prepare = builders.prepare

    def overtaken(*arguments):
        monkeypatch.setattr(builders, "prepare", prepare)
        datasets.load("mnist", str(mnist))
        return prepare(*arguments)

    monkeypatch.setattr(builders, "prepare", overtaken)
    assert_same(datasets.load("mnist", str(mnist)), datasets.load("mnist", str(mnist)))
    assert len(list((cache_root / "arrays").iterdir())) == 1


def test_full_disk_leaves_no_half_entry(mnist, monkeypatch, cache_root):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(datasets.DataError) as fault:
            datasets.load("mnist", str(mnist))
    assert_sentence(fault, "mnist", "No space left on device", cache_root, "$PLASTICITY_CACHE_DIR")
    assert list(cache_root.rglob("*")) == [cache_root / "arrays"]
    assert len(datasets.load("mnist", str(mnist)).images) == TRAIN


# Faults in the originals


def test_missing_file(mnist, tmp_path):
    (mnist / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(datasets.DataError) as fault:
        datasets.load("mnist", str(mnist))
    assert_sentence(
        fault, "mnist: train-images-idx3-ubyte.gz not found in", mnist, "--data_dir", "--download"
    )
    with pytest.raises(datasets.DataError) as fault:
        datasets.load("emnist/digits", str(tmp_path / "nowhere"))
    assert_sentence(
        fault, "emnist-digits-test-labels-idx1-ubyte.gz", "gzip.zip", tmp_path / "nowhere"
    )


def test_flipped_byte(mnist):
    datasets.load("mnist", str(mnist))  # a cache entry must not hide the damage
    file = mnist / "train-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(datasets.DataError) as fault:
        datasets.load("mnist", str(mnist))
    assert_sentence(
        fault,
        file,
        "SHA-256",
        hashlib.sha256(content).hexdigest(),
        layouts.SHA256["mnist"][file.name],
    )


def test_file_of_another_dataset(mnist, monkeypatch):
    with pytest.raises(
        datasets.DataError, match=r"is a file of mnist .* expected one of fashion_mnist"
    ):
        datasets.load("fashion_mnist", str(mnist))


BALANCED = "emnist-balanced-train-images-idx3-ubyte.gz"


@pytest.mark.parametrize(
    ("file", "change", "parts"),
    [
        (BALANCED, lambda raw: gzip.compress(raw)[:-3000], ["no whole compressed file"]),
        (BALANCED, lambda raw: gzip.compress(raw)[:-4], ["no whole compressed file"]),
        (BALANCED, lambda raw: b"\x1f\x8b" + raw[2:], ["no whole compressed file"]),
        (BALANCED, lambda raw: gzip.compress(b""), ["begins with nothing", "00000803"]),
        (
            BALANCED,
            lambda raw: gzip.compress(b"\0\0\x08\x01" + raw[4:]),
            ["begins with 00000801", "3 dimensions"],
        ),
        (BALANCED, lambda raw: gzip.compress(raw[:-1]), ["40767 bytes", "expected 40768"]),
        (
            BALANCED,
            lambda raw: gzip.compress(idx(np.zeros((51, 28, 28), np.uint8))),
            ["[51, 28, 28]", "[52, 28, 28]"],
        ),
        (
            BALANCED.replace("images-idx3", "labels-idx1"),
            lambda raw: gzip.compress(raw[:-1] + b"\x2f"),
            ["0..47, e", "0..46"],
        ),
    ],
)
def test_structure_is_checked_where_no_sum_is_published(
    tmp_path, monkeypatch, cache_root, file, change, parts
):
    arrays = tiny_arrays(classes=47)
    folder = write_originals("emnist/balanced", tmp_path / "data", arrays, monkeypatch, sums=False)
    (folder / file).write_bytes(change(gzip.decompress((folder / file).read_bytes())))
    with pytest.raises(datasets.DataError) as fault:
        datasets.load("emnist/balanced", str(folder))
    assert_sentence(fault, "emnist/balanced", file, *parts)
    assert not list((cache_root / "arrays").iterdir())


# Downloads, from a server of the test's own


@pytest.fixture
def server(mnist, monkeypatch):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    service = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(mnist))
    )
    threading.Thread(target=service.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = f"http://127.0.0.1:{service.server_port}/"
    monkeypatch.setitem(layouts.ORIGINALS, "mnist", layouts.ORIGINALS["mnist"]._replace(url=url))
    yield service
    service.shutdown()
    service.server_close()


def test_download_into_data_dir(server, mnist, tmp_path, prepares, capsys):
    target = tmp_path / "new"
    data = datasets.load("mnist", str(target), download=True)
    assert data.source == str(target / "mnist")
    assert sorted(p.name for p in (target / "mnist").iterdir()) == sorted(
        layouts.ORIGINALS["mnist"].files
    )
    assert capsys.readouterr().out == ""
    again = datasets.load("mnist", str(target))
    assert_same(data, again)
    assert prepares == ["mnist"]


def test_download_into_the_cache(server, tmp_path, cache_root):
    (tmp_path / "file").touch()  # a data_dir that cannot hold anything, for root as well
    data = datasets.load("mnist", str(tmp_path / "file"), download=True)
    assert data.source == str(cache_root / "originals" / "mnist")


def test_corrupt_download(server, mnist, tmp_path):
    (mnist / "t10k-labels-idx1-ubyte.gz").write_bytes(b"Please log in")
    with pytest.raises(
        datasets.DataError, match=r"t10k-labels-idx1-ubyte\.gz is corrupt or another file"
    ):
        datasets.load("mnist", str(tmp_path / "new"), download=True)
    assert not list((tmp_path / "new" / "mnist").iterdir())


def test_download_that_broke_off(server, mnist, tmp_path):
    labels = mnist / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-5])
    said = (
        rf"t10k-labels-idx1-ubyte\.gz is cut short at {labels.stat().st_size:,} bytes: its SHA-256 "
        rf"is"
    )
    with pytest.raises(datasets.DataError, match=said):
        datasets.load("mnist", str(tmp_path / "new"), download=True)


def test_failed_download(server, mnist, tmp_path):
    (mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(datasets.DataError) as fault:
        datasets.load("mnist", str(tmp_path / "new"), download=True)
    assert_sentence(fault, "mnist: downloading", "t10k-labels-idx1-ubyte.gz", "404")
    assert not list((tmp_path / "new" / "mnist").iterdir())


def test_unreachable_host(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setitem(
            layouts.ORIGINALS, "mnist", layouts.ORIGINALS["mnist"]._replace(url=url)
        )
        with pytest.raises(datasets.DataError) as fault:
            datasets.load("mnist", download=True)
    assert_sentence(fault, "mnist: 127.0.0.1", "cannot be reached", "--data_dir")


# In a fresh interpreter


def test_import_is_cheap():
    """The datasets alone: an empty package stands for plasticity_jax, which imports jax."""
    code = f"""
import sys, types
sys.modules["plasticity_jax"] = types.ModuleType("plasticity_jax")
sys.modules["plasticity_jax"].__path__ = {[str(pathlib.Path(datasets.__file__).parents[1])]!r}
import plasticity_jax.datasets
heavy = ["jax", "sklearn", "tensorflow_datasets", "tensorflow", "pandas", "scipy", "PIL"]
print(*[module for module in heavy if module in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""


def test_preparing_imports_no_tensorflow(mnist):
    code = f"""
import sys
from plasticity_jax import datasets
from plasticity_jax.datasets import files, layouts
layouts.ORIGINALS["mnist"] = layouts.ORIGINALS["mnist"]._replace(train={TRAIN}, test={TEST})
layouts.SHA256["mnist"] = {layouts.SHA256["mnist"]!r}
assert len(datasets.load("mnist", {str(mnist)!r}).images) == {TRAIN}
assert "tensorflow_datasets" in sys.modules
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


# Folders of arrays


def write_arrays(folder, **arrays):
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return f"arrays:{folder}"


IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def test_arrays(tmp_path):
    color = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    name = write_arrays(
        tmp_path / "own",
        train_images=color,
        train_labels=LABELS,
        test_images=color[:2],
        test_labels=np.array([2, 0]),
    )
    data = datasets.load(name)
    assert (data.name, data.source, data.classes) == (name, str(tmp_path / "own"), 3)
    np.testing.assert_array_equal(data.images, color)
    np.testing.assert_array_equal(data.test_labels, [2, 0])
    assert (data.labels.dtype, data.test_labels.dtype) == (np.int32, np.int32)
    np.testing.assert_allclose(data.mean, color.mean((0, 1, 2)))
    np.testing.assert_allclose(data.std, color.std((0, 1, 2)))


def test_arrays_without_test_part(tmp_path):
    data = datasets.load(write_arrays(tmp_path / "own", train_images=IMAGES, train_labels=LABELS))
    assert (data.images.shape, data.test_images.shape, data.test_labels.shape) == (
        (6, 4, 4, 1),
        (0, 4, 4, 1),
        (0,),
    )
    assert data.classes == 3
    assert len(data.fingerprint) == 64


def real_arrays(folder, **changes):
    """Rows of three features with two real targets, as .npy files; the dataset's name."""
    random = np.random.default_rng(0)
    arrays = {
        "train_images": random.normal(5, 2, (8, 3)),
        "train_labels": random.normal(size=(8, 2)),
    }
    arrays |= {
        "test_images": random.normal(5, 2, (4, 3)),
        "test_labels": random.normal(size=(4, 2)),
    }
    for name, array in (arrays | changes).items():
        np.save(folder / f"{name}.npy", array)
    return f"arrays:{folder}", arrays


def test_arrays_of_real_numbers(tmp_path):
    """Rows of features with real targets are kept as float32, with a mean and a deviation for each
    feature.
    """
    name, arrays = real_arrays(tmp_path)
    data = datasets.load(name)
    assert (data.classes, data.images.dtype, data.labels.dtype) == (0, np.float32, np.float32)
    assert np.array_equal(data.images, arrays["train_images"].astype(np.float32))
    assert np.array_equal(data.test_labels, arrays["test_labels"].astype(np.float32))
    assert np.allclose(data.mean, arrays["train_images"].mean(axis=0), rtol=1e-6)
    assert np.allclose(data.std, arrays["train_images"].std(axis=0), rtol=1e-6)
    few, fewer = datasets.subsample(data, 5, seed=3), datasets.subsample(data, 3, seed=3)
    assert np.array_equal(few.images[:3], fewer.images)
    assert len(np.unique(few.labels[:, 0])) == 5


def test_one_real_target_may_be_a_row_of_numbers(tmp_path):
    name, _ = real_arrays(tmp_path, train_labels=np.arange(8.0), test_labels=np.arange(4.0))
    assert datasets.load(name).labels.shape == (8, 1)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"train_images": np.full((8, 3), np.nan)},
            ["train_images.npy holds nan at [0, 0]", "expected finite numbers"],
        ),
        (
            {"train_labels": np.full((8, 2), 1e300)},
            ["train_labels.npy holds 1e+300 at [0, 0]", "within float32"],
        ),
        (
            {"train_images": np.where(np.arange(24).reshape(8, 3) == 0, np.inf, 1.5)},
            ["train_images.npy holds inf at [0, 0]", "expected finite numbers"],
        ),
        (
            {"test_images": np.where(np.arange(12).reshape(4, 3) == 7, -np.inf, 0.5)},
            ["test_images.npy holds -inf at [2, 1]", "expected finite numbers"],
        ),
        (
            {"test_labels": np.where(np.arange(8).reshape(4, 2) == 5, np.nan, 0.5)},
            ["test_labels.npy holds nan at [2, 1]", "expected finite numbers"],
        ),
        ({"train_images": np.ones((8, 3))}, ["feature 0", "one value throughout"]),
        ({"test_images": np.ones((4, 3, 1))}, ["images of shape [3, 1, 1]", "expected [3]"]),
        (
            {"test_labels": np.arange(4)},
            ["test_labels.npy holds int64 [4]", "expected float32 [8, 2]"],
        ),
        ({"train_images": np.ones(8)}, ["float64 [8]", "real numbers [N, F]"]),
    ],
)
def test_faults_in_arrays_of_real_numbers(tmp_path, changes, parts):
    name, _ = real_arrays(tmp_path, **changes)
    with pytest.raises(datasets.DataError) as told:
        datasets.load(name)
    assert all(part in str(told.value) for part in parts), told.value


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"train_images": None}, ["train_images.npy", "not found"]),
        ({"train_labels": None}, ["train_labels.npy", "not found"]),
        ({"test_images": IMAGES}, ["test_labels.npy", "not found", "both or neither"]),
        ({"train_images": IMAGES.astype(np.int32)}, ["int32 [6, 4, 4]", "expected uint8"]),
        ({"train_images": IMAGES.reshape(6, 16)}, ["uint8 [6, 16]", "[N, H, W]"]),
        ({"train_images": IMAGES[:5]}, ["6 labels", "expected 5"]),
        ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, ["holds no images"]),
        ({"train_images": np.zeros_like(IMAGES)}, ["channel 0", "one value"]),
        ({"train_images": np.array([{}, {}], object)}, ["train_images.npy", "cannot be read"]),
        ({"train_labels": LABELS.astype(complex)}, ["complex128 [6]", "integers"]),
        ({"train_labels": LABELS[:, None]}, ["[6, 1]", "integers [N]"]),
        ({"train_labels": LABELS.astype(bool)}, ["bool [6]", "integers"]),
        ({"train_labels": LABELS.astype("M8[s]")}, ["datetime64[s] [6]", "integers"]),
        ({"train_labels": LABELS.astype([("a", "i4")])}, ["[('a', '<i4')] [6]", "integers"]),
        ({"train_labels": LABELS.astype(object)}, ["train_labels.npy", "pickled Python objects"]),
        (
            {"train_labels": LABELS - 1},
            ["3 different labels in -1..1, expected every one of 0..2", "np.unique"],
        ),
        (
            {"train_labels": LABELS + 1},
            ["3 different labels in 1..3, expected every one of 0..2", "np.unique"],
        ),
        (
            {"train_labels": np.array([0, 1, 2, 999, 1, 2])},
            ["4 different labels in 0..999, expected every one of 0..3"],
        ),
        (
            {"train_labels": LABELS.astype(np.uint64) + np.uint64(2**63)},
            ["3 different labels in 9223372036854775808.."],
        ),
        ({"train_labels": LABELS * 0}, ["the label 0 alone, expected at least two classes"]),
        ({"train_images": IMAGES[:1], "train_labels": LABELS[:1]}, ["the label 0 alone"]),
        (
            {"test_images": IMAGES, "test_labels": LABELS + 1},
            ["test_labels.npy holds labels 0..3", "0..2"],
        ),
        (
            {"test_images": IMAGES, "test_labels": LABELS - 1},
            ["test_labels.npy holds labels -1..1", "0..2"],
        ),
        (
            {"train_images": np.zeros((6, 2, 7, 9), np.uint8)},
            ["[6, 2, 7, 9], of which 9", "transpose(0, 2, 3, 1)"],
        ),
        (
            {"train_images": np.zeros((6, 13, 16, 16), np.uint8)},
            ["[6, 13, 16, 16], of which 16 would be the channels"],
        ),
        ({"train_images": np.zeros((6, 4, 4, 0), np.uint8)}, ["uint8 [6, 4, 4, 0]"]),
        ({"test_images": IMAGES[:, :3], "test_labels": LABELS}, ["[3, 4, 1]", "[4, 4, 1]"]),
    ],
)
def test_arrays_faults(tmp_path, change, parts):
    arrays = {"train_images": IMAGES, "train_labels": LABELS, **change}
    name = write_arrays(
        tmp_path / "own", **{key: value for key, value in arrays.items() if value is not None}
    )
    with pytest.raises(datasets.DataError) as fault:
        datasets.load(name)
    assert_sentence(fault, *parts)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_are_turned(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (6, channels, 5, 7), np.uint8)
    first = datasets.load(
        write_arrays(tmp_path / "first", train_images=images, train_labels=LABELS)
    )
    turned = images.transpose(0, 2, 3, 1)
    last = datasets.load(write_arrays(tmp_path / "last", train_images=turned, train_labels=LABELS))
    assert first.images.shape == (6, 5, 7, channels)
    np.testing.assert_array_equal(first.images, turned)
    assert (first.fingerprint, first.mean, first.std) == (last.fingerprint, last.mean, last.std)


@pytest.mark.parametrize(
    "shape",
    [(6, 8, 8, 13), (6, 9, 9, 9), (6, 2, 2, 30), (6, 3, 3, 1), (6, 3, 9, 4), (6, 13, 14, 12)],
)
def test_channels_last_are_left(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = datasets.load(write_arrays(tmp_path / "own", train_images=images, train_labels=LABELS))
    np.testing.assert_array_equal(data.images, images)


def test_arrays_in_other_orders(tmp_path):
    """Columns first in memory, big-endian labels, and unsigned ones: the same data."""
    name = write_arrays(tmp_path / "own", train_images=IMAGES, train_labels=LABELS)
    plain = datasets.load(name)
    for dtype in (">i2", "<u8", "i1"):
        name = write_arrays(
            tmp_path / dtype[1:],
            train_images=np.asfortranarray(IMAGES),
            train_labels=LABELS.astype(dtype),
        )
        other = datasets.load(name)
        np.testing.assert_array_equal(other.images, plain.images)
        assert (other.fingerprint, other.labels.tolist()) == (
            plain.fingerprint,
            plain.labels.tolist(),
        )


def test_arrays_that_are_no_files(tmp_path):
    def told(*parts):
        with pytest.raises(datasets.DataError) as fault:
            datasets.load(name)
        assert_sentence(fault, *parts)

    name = write_arrays(tmp_path / "own", train_images=IMAGES, train_labels=LABELS)
    file = tmp_path / "own" / "train_images.npy"
    file.rename(tmp_path / "kept.npy")
    file.mkdir()
    told(file, "Is a directory")
    file.rmdir()
    file.symlink_to(file)
    told(file, "Too many levels of symbolic links")
    file.unlink()
    os.mkfifo(file)
    told(file, "Not a regular file")
    file.unlink()
    np.savez(file.with_suffix(".npz"), IMAGES)
    file.with_suffix(".npz").rename(file)
    told(file, "cannot be read as an .npy array", "header")
    (tmp_path / "kept.npy").rename(file)
    (tmp_path / "own" / "test_labels.npy").symlink_to("nowhere")
    told("test_images.npy", "not found", "both or neither")


def test_trailing_bytes_are_no_array(tmp_path):
    """A second array behind the first, or a header that says less than there is."""
    name = write_arrays(tmp_path / "own", train_images=IMAGES, train_labels=LABELS)
    with open(tmp_path / "own" / "train_labels.npy", "ab") as file:
        np.save(file, LABELS)
    with pytest.raises(
        datasets.DataError, match=r"224 bytes behind its header, where int64 \[6\] has 48"
    ):
        datasets.load(name)


def test_folders_with_a_tilde(tmp_path, mnist, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_arrays(tmp_path / "own", train_images=IMAGES, train_labels=LABELS)
    assert datasets.load("arrays:~/own").source == str(tmp_path / "own")
    assert datasets.load("mnist", "~/data").source == str(mnist)
    monkeypatch.setenv("PLASTICITY_CACHE_DIR", "~/elsewhere")
    assert cache.cache_folder() == tmp_path / "elsewhere"
    for unknown in ("~nobody_of_this_name/x", "a\0b"):
        for name, folder in ((f"arrays:{unknown}", None), ("mnist", unknown)):
            with pytest.raises(datasets.DataError) as fault:
                datasets.load(name, folder)
            assert_sentence(fault, "cannot be used", repr(unknown))


def test_arrays_truncated_file(tmp_path):
    name = write_arrays(tmp_path / "own", train_images=IMAGES, train_labels=LABELS)
    file = tmp_path / "own" / "train_images.npy"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(datasets.DataError, match="cannot be read"):
        datasets.load(name)


# Subsampling


@pytest.fixture(scope="module")
def whole():
    return digits.load_digits()


@pytest.mark.parametrize(
    ("samples", "counts"), [(200, [20] * 10), (203, [21] * 3 + [20] * 7), (4, [1] * 4 + [0] * 6)]
)
def test_subsample_is_class_balanced(whole, samples, counts):
    part = datasets.subsample(whole, samples, test_samples=50, seed=3)
    np.testing.assert_array_equal(np.bincount(part.labels, minlength=10), counts)
    np.testing.assert_array_equal(np.bincount(part.test_labels), [5] * 10)
    if samples > 10:
        assert (np.diff(part.labels) < 0).any()  # not sorted by class
    assert (part.mean, part.std, part.classes, part.name) == (whole.mean, whole.std, 10, "digits")
    assert f"seed 3: {samples} of 1437 training, 50 of 360 test" in part.source
    assert part.fingerprint == contract.fingerprint(
        [part.images, part.labels, part.test_images, part.test_labels]
    )


def test_subsample_keeps_images_with_their_labels_and_repeats_none(whole):
    rows = {image.tobytes(): label for image, label in zip(whole.images, whole.labels, strict=True)}
    assert len(rows) == len(whole.images)  # all digits differ, so an image names its row
    part = datasets.subsample(whole, 300)
    assert [rows[image.tobytes()] for image in part.images] == part.labels.tolist()
    assert len({image.tobytes() for image in part.images}) == 300


def test_subsample_seed(whole):
    a, b, c = (datasets.subsample(whole, 100, seed=seed) for seed in (1, 1, 2))
    assert_same(a, b)
    assert a.fingerprint != c.fingerprint
    np.testing.assert_array_equal(a.test_images, whole.test_images)
    larger = datasets.subsample(whole, 200, seed=1)
    assert {i.tobytes() for i in a.images} < {i.tobytes() for i in larger.images}


def test_subsample_of_nothing_is_the_whole(whole):
    assert datasets.subsample(whole, None) is whole
    assert len(datasets.subsample(whole, None, test_samples=0).test_images) == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"samples": 1438}, ["1437 training", "1438"]),
        ({"samples": None, "test_samples": 361}, ["360 test", "361"]),
        ({"samples": 1430}, ["training images of class", "143", "1430"]),
        ({"samples": 0}, ["1 or more", "not 0"]),
        ({"samples": 10, "test_samples": -1}, ["0 or more", "not -1"]),
        ({"samples": 10, "seed": -1}, ["seed", "not -1"]),
    ],
)
def test_subsample_faults(whole, arguments, parts):
    with pytest.raises(ValueError) as fault:
        datasets.subsample(whole, **arguments)
    assert_sentence(fault, *parts)


# Real files


# read before the fixture removes it
REAL = pathlib.Path(os.environ.get("PLASTICITY_DATA_DIR", "/nonexistent"))


@pytest.mark.slow
@pytest.mark.skipif(
    not (REAL / "mnist").is_dir(),
    reason="needs the original MNIST files in $PLASTICITY_DATA_DIR/mnist",
)
def test_real_mnist(cache_root):
    data = datasets.load("mnist", str(REAL))
    assert (data.images.shape, data.test_images.shape) == ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
    np.testing.assert_allclose((data.mean[0] / 255, data.std[0] / 255), (0.1307, 0.3081), atol=5e-5)
    assert data.labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    raw = gzip.decompress((REAL / "mnist" / "train-images-idx3-ubyte.gz").read_bytes())
    assert data.images.tobytes() == raw[16:]
    raw = gzip.decompress((REAL / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes())
    assert data.test_labels.astype(np.uint8).tobytes() == raw[8:]
    assert_same(data, datasets.load("mnist", str(REAL)))


@pytest.mark.slow
@pytest.mark.skipif(
    not (REAL / "emnist_letters").is_dir(), reason="needs original files in $PLASTICITY_DATA_DIR"
)
def test_real_emnist_letters_files():
    """The originals alone (no builder, to be quick): sums, counts and labels."""
    name = "emnist/letters"
    originals = files.locate(name, files.search_folders(name, REAL))
    assert originals is not None
    images, labels = idx_files.images_and_labels(name, originals, "test", first_label=1)
    assert images.shape == (20_800, 28, 28)
    np.testing.assert_array_equal(np.bincount(labels), [800] * 26)
