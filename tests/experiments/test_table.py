"""The README's tables, from result files written by hand."""

import json

import pytest

from experiments.table import processes_table, sequences_table

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
    assert header[4:6] == ["log-likelihood a target", "exact"]
    assert header[6:8] == ["exact − learned", "of which floor of σ"]
    assert first[1:4] == ["Garnelo et al. 2018", "gp rbf", "3 to 10"]
    assert first[4] == "[-0.250 ± 0.062](experiments/results/a/results.json)"
    assert first[5:9] == ["0.500 ± 0.125", "0.750 ± 0.031", "0.125 ± 0.016", "800"]
    assert first[9] == "`python -m experiments.sequence ntm`"
    assert over_seeds[4].endswith("(2 seeds)")
    assert over_seeds[5:9] == ["–", "–", "–", "900"]


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
    _, _, row, longer = cells_of(sequences_table(folder))
    assert row[1:5] == ["Graves et al. 2014", "copy", "1 to 20", "20"]
    assert row[5] == "[0.25 ± 0.5](experiments/results/ntm/results.json)"
    assert row[6:8] == ["12 %", "700"]
    assert longer[4:7] == ["40", "[1,234 ± 10](experiments/results/ntm/results.json)", "50 %"]


def test_a_single_length(written):
    folder = written("dnc", **of_sequence("dnc", {"test_lengths": [10]}, **SHORT))
    _, _, row = cells_of(sequences_table(folder))
    assert row[4:7] == ["10", "[0.25 ± 0.5](experiments/results/dnc/results.json)", "12 %"]


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
    table = sequences_table(written("mann", **stream))
    bits, streams = table.split("\n\n")
    assert len(bits.splitlines()) == 2  # the header alone
    header, _, ours, *published = cells_of(streams)
    assert header[4] == "instance 2 (%)"
    assert ours[2:5] == [classes, "–", "[81.2 ± 12.5](experiments/results/mann/results.json)"]
    assert [row[2:5] for row in published] == [["5, published", "36.4", "82.8"]] * (classes == "5")
