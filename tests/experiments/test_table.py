"""The tables of the documentation, from result files written by hand."""

import json

import pytest

from experiments.table import (
    classification_tables,
    commands_table,
    learners_table,
    processes_table,
    sequences_tables,
    streams_table,
)

COMMAND = "python -m experiments.sequence ntm --out runs/x --resume"


@pytest.fixture
def written(tmp_path):
    """`written(name, **results)` writes a result file; the folder of all."""

    def write(name, **results):
        (tmp_path / name).mkdir()
        text = json.dumps({"command": COMMAND, "steps": 900, **results})
        (tmp_path / name / "results.json").write_text(text)
        return tmp_path

    return write


def cells_of(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def of_process(**results):
    return {
        **{"learner": "neural-process", "dataset": "gp rbf", "points": [3, 10]},
        **{"log_likelihood": -0.25, "log_likelihood_ci95": 0.0625, **results},
    }


def test_processes(written):
    exact = {"log_likelihood": 0.5, "log_likelihood_ci95": 0.125}
    lead = {"lead": 0.75, "lead_ci95": 0.03125, "floor": 0.125, "floor_ci95": 0.015625}
    written("a", **of_process(best_step=800, oracle={**exact, **lead}))
    written("b", **of_process(seeds=[0, 1]))
    folder = written("other", experiment="optimizers", comparison={})
    header, _, first, over_seeds = cells_of(processes_table(folder))
    assert header[2:] == [
        *("log-likelihood", "exact", "exact − learned", "due to the floor of σ"),
    ]
    assert first[:2] == ["neural-process", "gp rbf, 3 to 10"]
    assert first[2] == "[-0.250 ± 0.062](../../experiments/results/a/results.json)"
    assert first[3:] == ["0.500 ± 0.125", "0.750 ± 0.031", "0.125 ± 0.016"]
    assert over_seeds[0] == "neural-process (2 seeds)"
    assert over_seeds[3:] == ["–", "–", "–"]


def of_sequence(learner, protocol, **results):
    return {
        **{"experiment": "sequence", "learner": learner, "task": "copy", "best_step": 700},
        **{"protocol": {"trained_lengths": [1, 20], **protocol}, **results},
    }


SHORT = {"bits": 0.25, "bits_ci95": 0.5, "bit_error": 0.125}
LONG = {"bits": 1234.5, "bits_ci95": 10.0, "bit_error": 0.5}


def test_sequences_by_length(written):
    tests = {"length 20": SHORT, "length 40": LONG}
    folder = written("ntm", **of_sequence("ntm", {"test_lengths": [20, 40]}, **SHORT, tests=tests))
    written("other", experiment="optimizers", comparison={})
    heading, _, table = sequences_tables(folder).partition("\n\n")
    assert heading == "### copy, trained on lengths 1 to 20"
    _, _, row, longer = cells_of(table)
    bits = "[0.25 ± 0.5](../../experiments/results/ntm/results.json)"
    assert row == ["ntm", "20", bits, "12 %"]
    assert longer[1:] == ["40", bits.replace("0.25 ± 0.5", "1,234 ± 10"), "50 %"]


def test_a_single_length(written):
    folder = written("dnc", **of_sequence("dnc", {"test_lengths": [10]}, **SHORT))
    *_, row = cells_of(sequences_tables(folder))
    assert row[1:] == ["10", "[0.25 ± 0.5](../../experiments/results/dnc/results.json)", "12 %"]


@pytest.mark.parametrize(
    ("classes", "protocol"),
    [
        ("5", {"ways": 5, "labels": "one-hot"}),
        ("3", {"ways": 3, "labels": "one-hot"}),
        ("5, as strings", {"ways": 5, "labels": "strings"}),
    ],
)
def test_streams_by_instance_beside_what_is_published(classes, protocol, written):
    seen = {"accuracy": 0.75, "accuracy_2": 0.8125, "accuracy_2_ci95": 0.125}
    stream = of_sequence("mann", protocol, **seen, task="labels")
    _, _, ours, *published = cells_of(streams_table(written("mann", **stream)))
    figure = "[81.2 ± 12.5](../../experiments/results/mann/results.json)"
    assert ours[:4] == ["mann", classes, "–", figure]
    assert [row[2:4] for row in published] == [["36.4", "82.8"]] * (classes == "5")


def of_images(learner, accuracy, *, shuffled=False, shots=1, **results):
    return {
        **{"experiment": "few-shot", "learner": learner, "dataset": "omniglot", "ways": 5},
        **{"accuracy": accuracy, "accuracy_ci95": 0.0025, "shots": shots, **results},
        "protocol": {"shuffled_labels": shuffled, "query_statistics": "batch"},
    }


def test_classification_by_benchmark_the_best_first(written):
    written("maml-omniglot-5w1s", **of_images("maml", 0.9))
    written("maml-omniglot-5w1s-width-32", **of_images("maml", 0.875, seeds=[0, 1]))
    written("maml-omniglot-5w1s-shuffled", **of_images("maml", 0.2, shuffled=True))
    folder = written("anil-omniglot-5w1s", **of_images("anil", 0.95))
    written("anil-omniglot-5w5s", **of_images("anil", 0.98, shots=5))
    one_shot, five_shot = classification_tables(folder).split("\n\n###")
    heading, _, table = one_shot.partition("\n\n")
    assert heading == "### omniglot, 5-way 1-shot"
    _, _, *rows = cells_of(table)
    assert [row[0] for row in rows] == ["anil", "maml", "maml, width 32", "maml, shuffled"]
    link = "../../experiments/results/maml-omniglot-5w1s/results.json"
    assert rows[1] == ["maml", f"[90.0 ± 0.2]({link})", "98.7 ± 0.4", "–", "batch", "900"]
    assert rows[3][1] == "–" and "20.0 ± 0.2" in rows[3][3]
    assert "98.0 ± 0.2" in five_shot


def test_a_test_that_differs_from_most_says_in_what(written):
    few = of_images("maml", 0.9, queries=1)
    written("maml-omniglot-5w1s", **few)
    shifted = of_images("prototypical", 0.95, queries=15)
    shifted["protocol"]["test_views"] = "shifts"
    folder = written("prototypical-omniglot-fast", **shifted)
    _, _, *rows = cells_of(classification_tables(folder).partition("\n\n")[2])
    assert [row[0] for row in rows] == [
        "prototypical, fast, test views: shifts",
        "maml, queries per class: 1",
    ]


def test_tasks_within_a_group_have_a_table_of_their_own(written):
    written("prototypical-omniglot-20w1s", **of_images("prototypical", 0.9, ways=20))
    within = of_images("prototypical", 0.875, ways=20)
    of_lake = {"within_groups": "both", "split": "lake", "test_rotations": "none"}
    turned = {**within, "protocol": within["protocol"] | of_lake | {"test_rotations": "per-task"}}
    within["protocol"] = within["protocol"] | of_lake
    written("prototypical-omniglot-challenge", **within)
    folder = written("prototypical-turned", **turned)
    plain, challenge = classification_tables(folder).split("\n\n###")
    assert plain.count("/results.json") == 1 and "| 96.0 |" in plain
    assert challenge.startswith(" omniglot, 20-way 1-shot, within a group of lake")
    rows = {row[0]: row[2] for row in cells_of(challenge.partition("\n\n")[2])[2:]}
    assert rows["prototypical, challenge"] == "86.3"
    assert rows["prototypical, turned"] == "–"  # not the published tasks


def test_the_learners_have_the_figure_of_their_plain_run(written):
    written("maml-omniglot-5w1s-width-32", **of_images("maml", 0.96))
    folder = written("maml-omniglot-5w1s", **of_images("maml", 0.9))
    written("maml-omniglot-5w1s-shuffled", **of_images("maml", 0.2, shuffled=True))
    rows = {row[0]: row[1:] for row in cells_of(learners_table(folder))}
    assert rows["maml"][2:] == ["90.0", "98.7"]
    assert rows["ntm"][0] == "Graves et al. 2014"
    assert rows["ntm"][2:] == ["–", "–"]


def test_a_command_names_no_folder_of_its_own(written):
    folder = written("x", **of_images("maml", 0.9))
    again = {
        **of_images("maml", 0.9),
        "run": "x",
        "command": "python -m e.evaluate runs/x --ways 3",
    }
    (folder / "x" / "evaluation-3w1s.json").write_text(json.dumps(again))
    _, _, evaluated, trained = cells_of(commands_table(folder))
    assert evaluated[0].startswith("[x, 3w1s](")
    assert evaluated[1] == "`python -m e.evaluate experiments/results/x --ways 3`"
    assert trained[1] == "`python -m experiments.sequence ntm`"
