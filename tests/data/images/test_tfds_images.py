"""Image-classification sets of TFDS, without TensorFlow."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import load
from jaxmeta.data.images.tfds_images import tfds_images

CLASSES = tuple(f"shade {index}" for index in range(10))


def png(value, size):
    file = io.BytesIO()
    Image.fromarray(np.full(size, value, np.uint8)).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def prepared_sets(tmp_path_factory):
    """Sets with one to three images of ten shades, some without a label, and copies in `mini`."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()

    class Shades(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        DECLARED, PIXELS = (None, None, 3), (20, 30, 3)

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=self.DECLARED),
                "label": tfds.features.ClassLabel(names=CLASSES),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            parts = {"train": (0, 1), "test": (1, 3), "mini": (0, 3)}
            return {name: self._generate_examples(*ends) for name, ends in parts.items()}

        def _generate_examples(self, first, last):
            for label in range(10):
                for image in range(first, min(last, 1 + label % 3)):
                    value = png(20 * label + image, self.PIXELS)
                    yield f"{label} {image}", {"image": value, "label": label}
            yield "unknown", {"image": png(255, self.PIXELS), "label": -1}

    class GreyShades(Shades, skip_registration=True):
        DECLARED, PIXELS = (12, 12, 1), (12, 12)

    folder = tmp_path_factory.mktemp("tfds")
    for builder in (Shades, GreyShades):
        builder(data_dir=folder, file_format="array_record").download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return folder


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def own_copy(prepared_sets, tmp_path):
    shutil.copytree(prepared_sets, tmp_path / "tfds")
    return tmp_path / "tfds"


def test_splits_are_merged_and_classes_dealt(own_copy):
    dataset = load("shades")
    assert dataset.protocol | {"images_sha256": ""} == {
        "dataset": "shades",
        "tfds": "shades/1.0.0",
        "split": "6/2/2",
        "split_seed": 0,
        "rotations": "none",
        "ink": False,
        "image_size": 84,
        "channels": 3,
        "resize": "largest centre square, bilinear with antialiasing (Pillow)",
        "classes": {"train": 6, "validation": 2, "test": 2},
        "images_sha256": "",
    }
    seen = []
    for part in dataset[1:4]:
        for name, start, count in zip(part.names, part.starts, part.counts, strict=True):
            label = CLASSES.index(name)
            values = part.images[start : start + count]
            assert sorted(values[:, 0, 0, 0].tolist()) == [
                20 * label + image for image in range(1 + label % 3)
            ]
            assert (values == values[:, :1, :1, :1]).all()
            seen.append(name)
    assert sorted(seen) == sorted(CLASSES)


def test_size_and_colour_are_the_sets_own_unless_told(own_copy):
    assert load("grey_shades").train.images.shape[1:] == (12, 12, 1)
    assert load("grey_shades", image_size=8, color=True).train.images.shape[1:] == (8, 8, 3)
    assert load("shades", image_size=8, color=False).train.images.shape[1:] == (8, 8, 1)
    assert len(load("shades", split="2/4/4", seed=3).validation.names) == 4


def refused(name, kind, *parts, **options):
    with pytest.raises(kind) as caught:
        load(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


def test_sets_that_cannot_be_used_are_told_in_one_line(tmp_path):
    refused("cifar1000", ValueError, "unknown dataset 'cifar1000'", "cifar100")
    refused("omniglott", ValueError, "nearest: omniglot")
    refused(
        "zzzzzzzzz",
        ValueError,
        "the sets of jaxmeta are cifar10, glyphs, grocery, mednist, miniimagenet, omniglot",
    )
    refused("imdb_reviews", ValueError, "not a set of images", "text: Text")
    refused("emnist/by_klass", ValueError, "can't open 'emnist/by_klass'")
    refused("emnist/byclass:9.9.9", ValueError, "can't open 'emnist/byclass:9.9.9'")
    refused("what is this", ValueError, "unknown dataset 'what is this'")
    refused("", ValueError, "unknown dataset ''")
    root = tmp_path / "tfds"
    refused("cifar100", FileNotFoundError, "not prepared in", root, f"--data_dir={root}")


def test_damaged_sets_are_named_with_the_remedy(own_copy):
    folder = own_copy / "shades" / "1.0.0"
    refused("shades", ValueError, "shades: ", "has 5 classes, but there are 10", split="1/2/2")

    description = folder / "dataset_info.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps(content | {"fileFormat": "tfrecord"}))
    refused("shades", ValueError, folder, "--file_format=array_record")
    description.write_text("{")
    refused("shades", ValueError, "shades")
    description.write_text(json.dumps(content))

    file = next(folder.glob("*-test.array_record*"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused("shades", ValueError, folder, "remove the folder and prepare it again")
    file.unlink()
    refused("shades", ValueError, folder, "remove the folder and prepare it again")
    file.write_bytes(whole)
    assert load("shades").protocol["split"] == "6/2/2"


@pytest.mark.full
def test_neither_tensorflow_nor_opencv_is_imported(own_copy):
    script = (
        "import sys\n"
        "from jaxmeta.data import load\n"
        "assert not {'PIL', 'tensorflow_datasets'} & set(sys.modules)\n"
        "load('shades')\n"
        "assert not {'tensorflow', 'cv2'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_folder_may_be_an_argument(prepared_sets):
    assert len(tfds_images("shades", data_dir=prepared_sets).test.names) == 2


OWN = "tensorflow_datasets.core.features.image_feature.Image"


@pytest.mark.parametrize(
    "described",
    [
        {"pythonClassName": "jaxmeta_test_evil.Feature"},
        {"python_class_name": "jaxmeta_test_evil.Feature"},
        {"type": "jaxmeta_test_evil.Feature", "content": {}},
        {"type": OWN, "content": json.dumps({"pythonClassName": "jaxmeta_test_evil.Feature"})},
        {"pythonClassName": "tensorflow_datasets.scripts.cli.main.Feature"},
        {"pythonClassName": OWN.replace("Image", "jaxmeta_test_evil")},
        {"pythonClassName": OWN, "featuresDict": {"features": {"x": [{"type": "evil.Feature"}]}}},
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_no_module_is_imported_because_a_folder_says_so(
    described, linked, own_copy, tmp_path, monkeypatch
):
    (tmp_path / "jaxmeta_test_evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = own_copy / "shades" / "1.0.0"
    whole = json.loads((folder / "features.json").read_text())
    whole["featuresDict"]["features"]["image"] = described
    (folder / "features.json").write_text(json.dumps(whole))
    if linked:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    before = {*sys.modules}
    refused("shades", ValueError, "features.json", "not a feature of TFDS")
    assert not any("evil" in name or "scripts" in name for name in {*sys.modules} - before)


def test_a_prepared_set_holds_regular_files(own_copy):
    path = own_copy / "shades" / "1.0.0" / "features.json"
    path.unlink()
    os.mkfifo(path)
    refused("shades", ValueError, path, "not a regular file")


def test_names_of_paths_are_no_configurations(own_copy):
    for name in ("shades/.", "shades/..:1.0.0", "shades/../shades", "shades/1.0.0"):
        with pytest.raises(ValueError, match="unknown dataset|can't open"):
            load(name)
