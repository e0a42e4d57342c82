"""Whose settings a preset takes, and the presets of miniImageNet, run on images of one's own."""

import json

import pytest
from PIL import Image

from jaxmeta.recipes import find_domain, find_learner, known_domains, start

PUBLISHED = {
    "maml": ("48.70 ± 1.84", "63.11 ± 0.92"),
    "first-order-maml": ("48.07 ± 1.75", "63.15 ± 0.91"),
    "anil": ("46.7 ± 0.4", "61.5 ± 0.5"),
    "meta-sgd": ("50.47 ± 1.87", "64.03 ± 0.94"),
    "matching": ("43.56 ± 0.84", "55.31 ± 0.73"),
    "prototypical": ("49.42 ± 0.78", "68.20 ± 0.66"),
    "r2d2": ("49.5", "65.4"),
    "meta-transfer": ("61.2 ± 1.8", "75.5 ± 0.8"),
}


def preset(learner, shots):
    return start(find_domain("few-shot"), find_learner(learner), f"miniimagenet-5w{shots}s")


@pytest.mark.parametrize("learner", PUBLISHED)
def test_the_tasks_of_miniimagenet(learner):
    found = {}
    for own in find_learner(learner).presets:
        found |= own.published
    for shots, figure in zip((1, 5), PUBLISHED[learner]):
        assert found[f"miniimagenet-5w{shots}s"] == figure
        experiment = preset(learner, shots)
        episode, images = experiment.domain.episode, experiment.domain.images  # pyright: ignore
        assert images.dataset == "miniimagenet"
        assert (episode.ways, episode.shots, episode.queries) == (5, shots, 15)
        assert (episode.train_queries, experiment.training.eval_tasks) == (15, 600)


def test_the_settings_of_the_papers():
    for shots, ways, tasks in ((1, 30, 4), (5, 20, 2)):
        prototypical, maml = preset("prototypical", shots), preset("maml", shots)
        network = prototypical.domain.image_network  # pyright: ignore
        assert prototypical.domain.episode.train_ways == ways  # pyright: ignore
        assert (network.network, network.width) == ("conv4-pool", 64)
        training = maml.training
        assert (training.steps, training.task_batch, training.clip) == (60_000, tasks, 10.0)
        assert maml.domain.image_network.width == 32  # pyright: ignore
        inner = maml.learner
        steps = (inner.inner_steps, inner.eval_inner_steps)  # pyright: ignore
        assert (inner.inner_rate, steps) == (0.01, (5, 10))  # pyright: ignore


def test_a_preset_for_a_kind_of_task_holds_in_each_of_its_domains():
    domains = [own for own in known_domains().values() if own.kind == "regression"]
    assert len(domains) > 1
    for domain in domains:
        learner = start(domain, find_learner("reptile")).learner
        assert learner.inner_optimizer == "sgd"  # pyright: ignore
    elsewhere = start(find_domain("few-shot"), find_learner("reptile")).learner
    assert elsewhere.inner_optimizer == "rmsprop"  # pyright: ignore


@pytest.mark.full
@pytest.mark.parametrize("learner", ["prototypical", pytest.param("maml", marks=pytest.mark.slow)])
def test_a_run_on_miniimagenet(learner, status, tmp_path, monkeypatch):
    from jaxmeta.data.images import miniimagenet as module

    monkeypatch.setattr(module, "IMAGES", 3)
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))
    for synsets in module.split_synsets("ravi").values():
        for row, synset in enumerate(synsets):
            folder = tmp_path / "miniimagenet" / "train" / synset
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (16, 16), (4 * row, 50 * number, 9)).save(folder / f"{number}.png")
    small = {"steps": 2, "checkpoint-every": 2, "chunk": 2, "eval-tasks": 4, "validation-tasks": 2}
    small |= {"image-size": 16, "width": 4, "train-ways": 5, "queries": 2, "train-queries": 2}
    small |= {"devices": 1, "out": tmp_path / "run"}
    options = [word for name, value in small.items() for word in (f"--{name}", value)]
    assert status("few-shot", learner, "--preset", "miniimagenet-5w1s", *options) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    protocol = results["protocol"]
    assert results["dataset"] == "miniimagenet"
    assert (protocol["split"], protocol["channels"], protocol["pipeline"]) == ("ravi", 3, "device")
    assert protocol["classes"] == {"train": 64, "validation": 16, "test": 20}
