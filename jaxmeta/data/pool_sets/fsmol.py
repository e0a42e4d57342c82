"""FS-Mol (Stanley et al. 2021): the activity of molecules in assays, from their fingerprints.

A pool is an assay; its examples are molecules, active (1) or not (0). The inputs are the counts of
2048 Morgan fragments.

The public form is https://github.com/microsoft/FS-Mol: `fs-mol.tar` unpacks to the folders train,
valid and test with one `ASSAY.jsonl.gz` each (CC BY-SA 3.0, from ChEMBL). A smaller form is read
too: `fsmol_{train,valid,test}.csv.gz` beside the sparse `fsmol_fingerprints.npz`. Either is in the
folder `fsmol` of `JAXMETA_DATA_DIR`.
"""

import csv
import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxmeta.data.cache import cached_arrays, data_folder, fingerprint
from jaxmeta.data.pool_sets.baselines import random_forest, tanimoto_neighbours
from jaxmeta.data.pool_sets.dataset import PoolSet, class_metrics
from jaxmeta.data.pool_sets.registry import pool_source
from jaxmeta.data.pools import Pools, pools_by
from jaxmeta.data.reading import listed
from jaxmeta.files import naming, read_arrays, shown

_BITS = 2048
_PARTS = ("train", "valid", "test")


@pool_source(
    "fsmol",
    kind="classification",
    test_support=(16, 32, 64, 128, 256),
    train_support=(8, 32),  # half of the training assays have fewer than 47 molecules
)
def fsmol(folder: str | Path | None = None) -> PoolSet:
    """Reads FS-Mol from `folder`; see the module.

    Raises:
      OSError, ValueError: files are missing or damaged.
    """
    place = data_folder("fsmol", folder)
    if (place / "fsmol_fingerprints.npz").is_file():
        parts = _condensed(place)
    elif (place / "train").is_dir():
        parts = _public(place)
    else:
        raise FileNotFoundError(
            f"{shown(place)} holds no FS-Mol; unpack fs-mol.tar of "
            "https://github.com/microsoft/FS-Mol there, so that it has the folders train, valid "
            "and test, or set JAXMETA_DATA_DIR to the folder that has fsmol"
        )
    return PoolSet(
        "fsmol",
        "classification",
        *parts,
        metrics=class_metrics,
        figure="average_precision_gain",
        order="stratified",
        ways=2,
        baselines={
            "random forest": random_forest(2),
            "nearest neighbours": tanimoto_neighbours(),
        },
        published=published,
        protocol={"split": "published", "inputs": "log(1 + count) of 2048 Morgan fragments"},
        licence="CC BY-SA 3.0",
        source="https://github.com/microsoft/FS-Mol",
    )


def _condensed(place: Path) -> list[Pools]:
    arrays = read_arrays(place / "fsmol_fingerprints.npz")
    inputs = _dense(arrays["indptr"], arrays["indices"], arrays["counts"])
    found = []
    for name in _PARTS:
        path = place / f"fsmol_{name}.csv.gz"
        with naming(path), gzip.open(path, "rt", newline="") as file:
            rows = [
                (row["assay_id"], int(row["molecule_index"]), int(float(row["label"])))
                for row in csv.DictReader(file)
            ]
        assays, molecules, labels = map(np.array, zip(*rows))
        found.append(pools_by(inputs, labels, assays, rows=molecules))
    return found


def _public(place: Path) -> list[Pools]:
    paths = [
        place / name / entry
        for name in _PARTS
        for entry in listed(place / name)
        if entry.endswith(".jsonl.gz")
    ]
    # The files have several gigabytes of text: they are parsed once.
    arrays = cached_arrays(f"fsmol-{fingerprint(paths)}", lambda: _parsed(paths))
    inputs = _dense(arrays["indptr"], arrays["indices"], arrays["counts"])
    found = []
    for name in _PARTS:
        of_part = arrays["part"] == name
        if not of_part.any():
            raise FileNotFoundError(f"{shown(place / name)} holds no *.jsonl.gz of FS-Mol")
        own = [arrays[column][of_part] for column in ("labels", "assays", "molecules")]
        found.append(pools_by(inputs, own[0], own[1], rows=own[2]))
    return found


def _parsed(paths: list[Path]) -> dict[str, np.ndarray]:
    """The molecules, each once by its SMILES, as a sparse matrix, and the examples of all parts."""
    molecules: dict[str, int] = {}
    indices, counts, examples = [], [], []
    for path in paths:
        with naming(path), gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if row["SMILES"] not in molecules:
                    bits = np.asarray(row["fingerprints"])
                    if bits.shape != (_BITS,):
                        raise ValueError(f"a fingerprint of {bits.size} counts, not {_BITS}")
                    molecules[row["SMILES"]] = len(molecules)
                    (where,) = np.nonzero(bits)
                    indices.append(where.astype(np.uint16))
                    counts.append(np.minimum(bits[where], 255).astype(np.uint8))
                label = int(float(row["Property"]))
                examples.append(
                    (path.parent.name, row["Assay_ID"], molecules[row["SMILES"]], label)
                )
    part, assays, rows, labels = map(np.array, zip(*examples))
    return {
        "indptr": np.cumsum([0, *map(len, indices)]),
        "indices": np.concatenate(indices),
        "counts": np.concatenate(counts),
        "part": part,
        "assays": assays,
        "molecules": rows,
        "labels": labels,
    }


def _dense(indptr: np.ndarray, indices: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The matrix of counts, uint8 `[molecules, 2048]`."""
    dense = np.zeros((len(indptr) - 1, _BITS), np.uint8)
    dense[np.repeat(np.arange(len(dense)), np.diff(indptr)), indices] = counts
    return dense


def published(size: int) -> Mapping[str, Mapping[str, float]]:
    """The published gain in average precision of each test assay, by method.

    Read from `METHOD_summary.csv` in the folder `fsmol_published` of `JAXMETA_DATA_DIR`, in the
    form of the results of FS-Mol's repository; empty if there is none.
    """
    place = data_folder("fsmol_published")
    found = {}
    for name in listed(place) if place.is_dir() else []:
        if not name.endswith("_summary.csv"):
            continue
        with naming(place / name), open(place / name, newline="") as file:
            rows = {
                row["TASK_ID"]: float(row[f"{size}_train"].split("+/-")[0])
                - float(row["fraction_positive_test"])
                for row in csv.DictReader(file)
                if row.get(f"{size}_train")
            }
        method = name.removesuffix("_summary.csv").removesuffix("_classification")
        if rows:
            found[_METHODS.get(method, method)] = rows
    return found


# The methods whose files have another name than the papers.
_METHODS = {
    "random_forest": "random forest",
    "GNN-Multitask": "GNN-MT",
    "MAML-Support16": "GNN-MAML",
    "ProtoNet-gnn+ecfp+fc-Support64": "ProtoNet",
    "clamp": "CLAMP",
    "lp": "linear probe",
    "mhnfs": "MHNfs",
    "qprobe": "quadratic probe",
}
