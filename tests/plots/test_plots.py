"""Pictures are files of a sane size that show what they were given."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxmeta import plots
from jaxmeta.plots.figures import DPI

RED, ORANGE, BLUE = (200, 30, 30), (230, 159, 0), (0, 114, 178)


def pixels(path) -> np.ndarray:
    """The written picture, after it is seen to be a PNG that shows something."""
    assert path.read_bytes().startswith(b"\x89PNG")
    with Image.open(path) as image:
        assert 300 <= image.width <= 2600, "width in pixels"
        assert 250 <= image.height <= 2600, "height in pixels"
        shown = np.asarray(image.convert("RGB"))
    assert len(np.unique(shown[..., 0])) > 20, "an empty picture"
    assert (shown[[0, -1]] == 255).all() and (shown[:, [0, -1]] == 255).all(), "cut at the border"
    assert [file.name for file in path.parent.iterdir()] == [path.name], "a temporary file is left"
    return shown


def count(shown: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((shown == np.array(color, np.uint8)).all(axis=-1).sum())


def only_axes(figure) -> Any:
    (axes,) = figure.axes
    return axes


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


# --- compression --------------------------------------------------------------------------

VERSIONS = ["uncompressed", "prune 60 %", "prune 90 %", "int8"]


def test_versions_of_a_method_are_connected_and_named(tmp_path):
    sizes, means = np.array([400_000, 190_000, 60_000, 110_000]), np.array([0.96, 0.94, 0.5, 0.95])
    figure = plots.size_and_result(
        tmp_path / "compression.png",
        VERSIONS,
        sizes,
        means,
        np.full(4, 0.01),
        ylabel="test accuracy",
        percent=True,
        title="prototypical · omniglot",
    )
    pixels(tmp_path / "compression.png")
    axes = only_axes(figure)
    assert legend(axes) == ["uncompressed", "prune", "int8"]
    assert texts(axes) == ["", "60 %", "90 %", ""]
    assert set(axes.lines[0].get_ydata()) == {0.96}  # dashed: the uncompressed result
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [(*line.get_xdata(),) for line in points] == [(400,), (190, 60), (110,)]
    assert [*points[1].get_ydata()] == [0.94, 0.5]
    assert axes.get_yaxis().get_major_formatter()(0.95) == "95 %"


@pytest.mark.parametrize(("names", "count"), [([], 0), (VERSIONS, 3)])
def test_a_size_and_a_result_for_every_version(tmp_path, names, count):
    values = np.ones(count)
    with pytest.raises(ValueError, match="one size, mean and interval for each of"):
        plots.size_and_result(tmp_path / "none.png", names, values, values, values, ylabel="loss")


# --- learning curves ----------------------------------------------------------------------


def run(steps: int, *, accuracy: bool) -> list[dict]:
    """Rows as a run logs them: validation in every tenth, its best at step 800 of 1000."""
    rows = []
    for step in range(10, steps + 1, 10):
        row = {"step": step, "time": 0.0, "train_loss": 2 * np.exp(-step / 300) + 0.1}
        if accuracy:
            row["train_accuracy"] = 1 - np.exp(-step / 300)
        if step % 100 == 0:
            row["validation_loss"] = 0.5 + abs(step - 800) / 1000
            if accuracy:
                row["validation_accuracy"] = 0.9 - abs(step - 800) / 1000
        rows.append(row)
    return rows


def test_a_classifiers_learning_curve_marks_the_best_validation(tmp_path):
    path = tmp_path / "curve.png"
    rows = run(1000, accuracy=True)
    figure = plots.learning_curve(path, rows, title="maml · glyphs", best=800)
    accuracy, loss = figure.axes
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("accuracy", "loss")
    assert loss.get_yscale() == "linear"
    assert legend(accuracy) == ["training", "validation", "best: 90 % at step 800"]
    assert legend(loss)[-1] == "best: 0.5 at step 800"
    shown = pixels(path)
    assert count(shown, BLUE) > 500 and count(shown, ORANGE) > 200


def test_nothing_is_marked_where_the_last_step_is_kept(tmp_path):
    figure = plots.learning_curve(tmp_path / "curve.png", run(1000, accuracy=True), title="gan")
    assert legend(figure.axes[0]) == ["training", "validation"]


def test_a_regressors_learning_curve_is_logarithmic(tmp_path):
    path = tmp_path / "curve.png"
    rows = run(1000, accuracy=False)
    figure = plots.learning_curve(path, rows, title="maml · sinusoids", best=800)
    axes = only_axes(figure)
    assert axes.get_yscale() == "log"
    assert legend(axes)[-1] == "best: 0.5 at step 800"
    pixels(path)


def test_the_smoothed_curve_is_a_centred_mean(tmp_path):
    rows = [{"step": step, "train_loss": 3 + (-1) ** step} for step in range(1, 121)]
    figure = plots.learning_curve(tmp_path / "curve.png", rows, title="maml")
    raw, smooth = (np.asarray(line.get_ydata()) for line in figure.axes[0].lines)
    np.testing.assert_array_equal(raw[:2], [2, 4])
    # one row at an end, three beside it, seven in the middle
    np.testing.assert_allclose(smooth[[0, 1, 60]], [2, 3 - 1 / 3, 3 + 1 / 7])


def test_gaps_in_the_log_are_left_out(tmp_path):
    rows = [*run(200, accuracy=True), {"step": 210, "train_loss": None, "train_accuracy": 0.5}]
    figure = plots.learning_curve(tmp_path / "curve.png", rows, title="maml")
    accuracy, loss = (np.asarray(axes.lines[0].get_xdata()) for axes in figure.axes)
    assert (accuracy[-1], loss[-1]) == (210, 200)


def test_one_row_still_makes_a_point(tmp_path):
    path = tmp_path / "curve.png"
    plots.learning_curve(path, run(10, accuracy=True), title="maml")
    assert count(pixels(path), BLUE) > 20


@pytest.mark.parametrize("rows", [[], [{"step": 1, "train_loss": None}], [{"step": 1}]])
def test_a_log_without_losses_is_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="finite train_loss"):
        plots.learning_curve(tmp_path / "curve.png", rows, title="maml")
    assert not list(tmp_path.iterdir())


# --- adaptation ---------------------------------------------------------------------------


def test_adaptation_of_a_classifier_is_in_percent(tmp_path):
    path = tmp_path / "adaptation.png"
    figure = plots.adaptation_curve(
        path,
        np.array([0.2, 0.8, 0.9]),
        np.array([0.01, 0.02, 0.01]),
        ylabel="test accuracy",
        title="maml",
        trained_steps=1,
    )
    axes = only_axes(figure)
    assert axes.get_yscale() == "linear"
    assert axes.yaxis.get_major_formatter()(0.8, 0) == "80 %"
    assert legend(axes) == ["mean and 95 % interval", "steps in training: 1"]
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [1, 1])
    band = axes.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], [0.19, 0.91])
    assert count(pixels(path), BLUE) > 200


@pytest.mark.parametrize(("means", "scale"), [([3.0, 0.2], "log"), ([3.0, 2.0], "linear")])
def test_an_error_is_logarithmic_where_it_spans(tmp_path, means, scale):
    path = tmp_path / "adaptation.png"
    figure = plots.adaptation_curve(
        path, np.array(means), np.full(2, 0.3), ylabel="error", title="maml", trained_steps=1
    )
    assert figure.axes[0].get_yscale() == scale
    pixels(path)


def test_a_learner_without_steps_in_training_has_no_line(tmp_path):
    means = np.array([0.2, 0.8])
    figure = plots.adaptation_curve(
        tmp_path / "adaptation.png", means, means / 10, ylabel="error", title="", trained_steps=None
    )
    assert legend(only_axes(figure)) == ["mean and 95 % interval"]


def test_steps_that_diverge_do_not_break_the_picture(tmp_path):
    path = tmp_path / "adaptation.png"
    means = np.array([3.0, 0.2, np.inf, np.nan])
    plots.adaptation_curve(path, means, means / 10, ylabel="error", title="maml", trained_steps=1)
    pixels(path)


@pytest.mark.parametrize(("means", "half_widths"), [(3, 2), ((3, 2), (3, 2)), (0, 0)])
def test_an_interval_for_every_mean(tmp_path, means, half_widths):
    with pytest.raises(ValueError, match="one mean and one half-width"):
        plots.adaptation_curve(
            tmp_path / "adaptation.png",
            np.zeros(means),
            np.zeros(half_widths),
            ylabel="error",
            title="maml",
            trained_steps=1,
        )


# --- embeddings ---------------------------------------------------------------------------


def clusters(ways: int, shots: int, queries: int, dimensions: int = 16):
    generator = np.random.default_rng(0)
    centers_WD = 5 * generator.normal(size=(ways, dimensions))
    labels = np.repeat(np.arange(ways), shots + queries)
    embeddings = centers_WD[labels] + generator.normal(size=(len(labels), dimensions))
    support = np.tile(np.arange(shots + queries) < shots, ways)
    return embeddings[support], labels[support], embeddings[~support], labels[~support], centers_WD


@pytest.mark.parametrize("ways", [5, 20])
def test_the_embedding_map_tells_classes_apart(tmp_path, ways):
    path = tmp_path / "map.png"
    figure = plots.embedding_map(path, *clusters(ways, 5, 15), title="prototypical")
    axes = only_axes(figure)
    names = legend(axes)
    assert names == [*(f"class {index}" for index in range(ways)), "support", "query", "prototype"]
    looks = {
        (tuple(marks.get_facecolor()[0][:3]), marks.get_paths()[0].vertices.tobytes())
        for marks in axes.collections
        if marks.get_label().startswith("class")
    }
    assert len(looks) == ways
    pixels(path)


def test_the_map_is_the_plane_of_the_largest_variance(tmp_path):
    generator = np.random.default_rng(0)
    points_ND = np.zeros((40, 6))
    points_ND[:, 3], points_ND[:, 1] = 9 * generator.normal(size=40), generator.normal(size=40)
    figure = plots.embedding_map(
        tmp_path / "map.png",
        points_ND[:20],
        np.zeros(20, int),
        points_ND[20:],
        np.zeros(20, int),
        title="prototypical",
    )
    axes = only_axes(figure)
    drawn = np.asarray(axes.collections[1].get_offsets())  # the support
    expected = points_ND[:20, [3, 1]] - points_ND[:, [3, 1]].mean(axis=0)
    # the components are uncorrelated, the raw axes only nearly so
    np.testing.assert_allclose(abs(drawn[:, 0]), abs(expected[:, 0]), atol=0.2)
    assert "of the variance" in axes.get_xlabel()


def test_embeddings_of_one_dimension_lie_on_a_line(tmp_path):
    path = tmp_path / "map.png"
    points = np.arange(6.0)[:, None]
    figure = plots.embedding_map(
        path, points[:2], np.arange(2), points[2:], np.array([0, 0, 1, 1]), title="prototypical"
    )
    assert not np.asarray(figure.axes[0].collections[0].get_offsets())[:, 1].any()
    pixels(path)


def test_embeddings_of_other_shapes_are_refused(tmp_path):
    support, support_labels, query, query_labels, _ = clusters(3, 1, 2)
    path = tmp_path / "map.png"
    with pytest.raises(ValueError, match=r"embeddings \[examples, D\]"):
        plots.embedding_map(
            path, support, support_labels, query[:, :3], query_labels, title="prototypical"
        )
    with pytest.raises(ValueError, match="one label for each query example"):
        plots.embedding_map(
            path, support, support_labels, query, query_labels[:2], title="prototypical"
        )


# --- episodes of images -------------------------------------------------------------------


def image_task(ways: int, shots: int, queries: int, *, channels: int = 1, size: int = 12):
    generator = np.random.default_rng(0)

    def part(examples: int):
        labels = generator.permutation(np.repeat(np.arange(ways), examples))
        # pale, so that the red of a frame is not in any image
        return 0.5 + 0.5 * generator.random((len(labels), size, size, channels)), labels

    (support, support_labels), (query, labels) = part(shots), part(queries)
    return support, support_labels, query, labels


def mistakes(figure) -> int:
    return sum(patch.get_gid() == "mistake" for patch in figure.axes[0].patches)


@pytest.mark.parametrize(
    ("ways", "shots", "queries", "channels"), [(5, 1, 15, 1), (5, 5, 15, 3), (20, 5, 15, 1)]
)
def test_an_episode_shows_every_image_and_every_mistake(tmp_path, ways, shots, queries, channels):
    path = tmp_path / "episode.png"
    task = image_task(ways, shots, queries, channels=channels)
    labels = task[3]
    predicted = labels.copy()
    predicted[:4] = (labels[:4] + 1) % ways
    figure = plots.image_episode(path, *task, predicted, title="maml")
    assert mistakes(figure) == 4
    assert len(figure.axes[0].images) == ways * (shots + queries)
    written = [text for text in texts(figure.axes[0]) if text.startswith("class")]
    expected = [f"class {label}" for label in [*range(ways), *predicted[:4]]]
    assert sorted(written) == sorted(expected)
    right, total = len(labels) - 4, len(labels)
    share = round(100 * right / total, 1)
    assert figure.texts[0].get_text() == f"maml\n{right} of {total} queries correct ({share:g} %)"
    assert count(pixels(path), RED) > 4 * 100


def test_without_mistakes_nothing_is_red(tmp_path):
    path = tmp_path / "episode.png"
    task = image_task(5, 1, 3)
    labels = task[3]
    figure = plots.image_episode(path, *task, labels, title="maml")
    assert mistakes(figure) == 0
    assert count(pixels(path), RED) == 0


def test_an_image_stands_in_the_row_of_its_class(tmp_path):
    """Each class is one grey level: the rows of the picture are of one grey each."""
    labels = np.array([2, 0, 1, 1, 2, 0])
    images = np.broadcast_to((0.2 + 0.2 * labels)[:, None, None, None], (6, 8, 8, 1))
    path = tmp_path / "episode.png"
    figure = plots.image_episode(path, images, labels, images, labels, labels, title="maml")
    shown, cell = pixels(path), 0.6 * DPI
    left, top = (figure.axes[0].transData.transform((2.2, row)) for row in (0.9, 2.15))
    for row, grey in enumerate((0.2, 0.4, 0.6)):
        x, y = round(left[0]), round(shown.shape[0] - left[1] + row * (left[1] - top[1]))
        assert abs(int(shown[y, x, 0]) - round(255 * grey)) <= 1, row
    assert left[1] - top[1] == pytest.approx(1.25 * cell, abs=1)


def test_examples_without_a_label_have_a_row_of_their_own(tmp_path):
    support, labels, query, query_labels = image_task(3, 2, 2)
    labels = np.where(np.arange(len(labels)) % 2, labels, -1)
    figure = plots.image_episode(
        tmp_path / "episode.png", support, labels, query, query_labels, query_labels, title="maml"
    )
    rows = [text for text in texts(figure.axes[0]) if text not in ("support", "query")]
    assert rows == ["class 0", "class 1", "class 2", "unlabelled"]


def test_as_many_examples_without_a_label_are_shown_as_fit(tmp_path):
    support, labels, query, query_labels = image_task(3, 8, 2)
    first = np.unique(labels, return_index=True)[1]
    labels = np.where(np.isin(np.arange(len(labels)), first), labels, -1)
    figure = plots.image_episode(
        tmp_path / "episode.png", support, labels, query, query_labels, query_labels, title="maml"
    )
    assert len(figure.axes[0].images) == 3 * (1 + 2) + 3
    assert "3 of 21 unlabelled images are shown" in figure.texts[0].get_text()


def test_large_tasks_are_shown_in_part_but_counted_whole(tmp_path):
    path = tmp_path / "episode.png"
    task = image_task(25, 12, 18, size=4)
    labels = task[3]
    predicted = labels.copy()
    predicted[labels == 24] = 0  # a class that is not shown
    figure = plots.image_episode(path, *task, predicted, title="maml")
    assert len(figure.axes[0].images) == 20 * (10 + 15)
    assert mistakes(figure) == 0
    assert f"{24 * 18} of {25 * 18} queries correct" in figure.texts[0].get_text()
    pixels(path)


def test_names_stand_for_classes_and_long_ones_keep_both_ends(tmp_path):
    task = image_task(2, 1, 1)
    labels = task[3]
    names = ["Angelic/character01", "50 $ and $"]  # dollars are no mathematics
    figure = plots.image_episode(
        tmp_path / "episode.png", *task, 1 - labels, title="maml", class_names=names
    )
    written = texts(figure.axes[0])
    assert "Angeli…cter01" in written and "50 $ and $" in written


def test_bytes_and_fractions_give_the_same_picture(tmp_path):
    support, support_labels, query, labels = image_task(2, 1, 2)
    support, query = (np.round(255 * images).astype(np.uint8) for images in (support, query))
    shown = []
    for name, scale in (("bytes", 1), ("fractions", np.float64(255))):
        path = tmp_path / name / "episode.png"
        path.parent.mkdir()
        plots.image_episode(
            path,
            support if name == "bytes" else support / scale,
            support_labels,
            query if name == "bytes" else query / scale,
            labels,
            labels,
            title="maml",
        )
        shown.append(pixels(path))
    np.testing.assert_array_equal(*shown)


def test_episodes_of_other_shapes_are_refused(tmp_path):
    support, support_labels, query, labels = image_task(3, 1, 2)
    path = tmp_path / "episode.png"
    with pytest.raises(ValueError, match="1 or 3 channels"):
        plots.image_episode(
            path, support[..., 0], support_labels, query, labels, labels, title="maml"
        )
    with pytest.raises(ValueError, match="one label for each support example"):
        plots.image_episode(path, support, labels, query, labels, labels, title="maml")
    with pytest.raises(ValueError, match="one prediction for each query label"):
        plots.image_episode(path, support, support_labels, query, labels, labels[:1], title="maml")
    assert not path.exists()


# --- curves -------------------------------------------------------------------------------


def test_a_curve_with_its_fits(tmp_path):
    path = tmp_path / "curve.png"
    x = np.linspace(-5, 5, 100)
    fits = {10: 0.9 * np.sin(x), 0: 0 * x, 1: 1e6 * x}  # one runs away
    figure = plots.curve_episode(
        path, x, np.sin(x), x[::10], np.sin(x[::10]), fits, title="one test curve"
    )
    axes = only_axes(figure)
    assert legend(axes) == [
        "support (10 points)",
        "true curve",
        "before adaptation",
        "after 1 step",
        "after 10 steps",
    ]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), np.sin(x))
    low, high = axes.get_ylim()
    assert -4 < low < -1 and 1 < high < 4, "the true curve fills the picture"
    assert count(pixels(path), ORANGE) > 50


def test_curves_of_other_lengths_are_refused(tmp_path):
    x = np.linspace(-5, 5, 20)
    with pytest.raises(ValueError, match="support_x and support_y of one length"):
        plots.curve_episode(tmp_path / "c.png", x, x, x[:3], x[:2], {0: x}, title="maml")
    with pytest.raises(ValueError, match="fits of the length of x"):
        plots.curve_episode(tmp_path / "c.png", x, x, x[:3], x[:3], {0: x[:, None]}, title="maml")


# --- predictions --------------------------------------------------------------------------


@pytest.mark.parametrize("examples", [1, 7, 70])
def test_a_sheet_names_every_image(tmp_path, examples):
    path = tmp_path / "sheet.png"
    images = np.random.default_rng(0).random((examples, 10, 14, 3))
    names = [f"kind {index}" for index in range(examples)]
    figure = plots.prediction_sheet(
        path, images, names, np.linspace(0.3, 1, examples), title="prototypical"
    )
    shown = min(examples, 60)
    axes = only_axes(figure)
    assert len(axes.images) == shown
    assert [text for text in texts(axes) if text.startswith("kind")] == names[:shown]
    assert texts(axes)[1] == "30 %"
    assert (f"the first 60 of {examples}" in figure.texts[0].get_text()) == (examples > 60)
    assert count(pixels(path), BLUE) > 100


def test_a_sheet_shows_what_was_learned_from(tmp_path):
    path = tmp_path / "sheet.png"
    images = np.random.default_rng(0).random((3, 10, 10, 1))
    figure = plots.prediction_sheet(
        path,
        images,
        ["pear", "apple", "pear"],
        np.array([0.5, 0.6, 0.7]),
        title="prototypical",
        support={"apple": images[:2], "pear": images[1:]},
    )
    axes = only_axes(figure)
    assert len(axes.images) == 3 + 2
    assert texts(axes)[:4] == ["support", "predictions", "apple", "pear"]
    pixels(path)


def test_a_sheet_wants_a_name_and_a_probability_for_each_image(tmp_path):
    images = np.zeros((2, 8, 8, 1))
    with pytest.raises(ValueError, match="2 images, 1 names and 2 probabilities"):
        plots.prediction_sheet(
            tmp_path / "s.png", images, ["a"], np.array([0.5, 0.6]), title="prototypical"
        )


def test_a_missing_folder_is_an_error_of_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        plots.learning_curve(tmp_path / "none" / "c.png", run(100, accuracy=True), title="maml")


def test_embeddings_that_cannot_be_drawn_are_refused(tmp_path):
    points, labels = np.eye(4), np.arange(4)
    path = tmp_path / "map.png"
    with pytest.raises(ValueError, match="NaN or infinite"):
        plots.embedding_map(path, points, labels, points * np.nan, labels, title="t")
    with pytest.raises(ValueError, match="prototypes"):
        plots.embedding_map(path, points, labels, points, labels, np.eye(3), title="t")
    assert not path.exists()


def test_an_episode_says_what_it_leaves_out_and_wants_all_names(tmp_path):
    images, labels = np.zeros((40, 4, 4, 1)), np.repeat(np.arange(2), 20)
    figure = plots.image_episode(
        tmp_path / "e.png", images[:2], np.arange(2), images, labels, labels, title="t"
    )
    assert any("30 of the queries are shown" in text.get_text() for text in figure.texts)
    with pytest.raises(ValueError, match="a name for each label"):
        plots.image_episode(
            tmp_path / "n.png",
            images[:2],
            np.arange(2),
            images,
            labels,
            labels,
            title="t",
            class_names=["one"],
        )
