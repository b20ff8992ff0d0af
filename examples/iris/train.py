"""Trains the iris model of this example and writes what is committed beside it.

How to run it: README.md, "Train it again".

Writes data/iris.csv, model/iris.onnx and model/model-card.md. Nothing is downloaded: the data set comes inside
scikit-learn. Seeded, so with the versions of requirements.txt the same bytes come out every time.
"""

import csv
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
from onnx.checker import check_model
from onnx.helper import make_opsetid
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score, train_test_split
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

HERE = Path(__file__).resolve().parent
SEED = 20250101
TREES = 40
DEPTH = 4
COLUMNS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
# Fixed, so that an export made with a newer skl2onnx still runs on the runtime the example uses.
OPSET = {"": 17, "ai.onnx.ml": 3}


def write_csv(path, x, species, test_rows):
    """One line a flower; `split` says which rows the model has never seen."""
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*COLUMNS, "species", "split"])
        for row in range(len(x)):
            cells = [f"{value:.1f}" for value in x[row]]
            out.writerow([*cells, species[row], "test" if row in test_rows else "train"])


def new_forest():
    return RandomForestClassifier(n_estimators=TREES, max_depth=DEPTH, random_state=SEED)


def export(forest):
    """Bytes of the ONNX model: input `input` float [N,4]; outputs `label` string [N], `probabilities` float [N,3]."""
    model = to_onnx(
        forest,
        name="iris",
        initial_types=[("input", FloatTensorType([None, 4]))],
        options={id(forest): {"zipmap": False}},
        target_opset=OPSET,
    )
    # The default names say how the converter works; these say what the values are.
    renamed = {model.graph.output[0].name: "label"}
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = renamed.get(name, name)
    model.graph.output[0].name = "label"
    # skl2onnx names the main opset twice and the tree one at a version it does not mean.
    del model.opset_import[:]
    model.opset_import.extend(make_opsetid(domain, number) for domain, number in OPSET.items())
    check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def table(*rows):
    """A Markdown table with its columns aligned, as the repository's formatter has it."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(cells[0]))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells
    )


def card(facts):
    """The model card; model.test.ts holds the model to its table of accuracies."""
    classes = facts["classes"]
    signature = table(
        ["", "name", "type", "meaning"],
        ["in", "`input`", "float32 [N,4]", "sepal length, sepal width, petal length, petal width, in centimetres"],
        ["out", "`label`", "string [N]", ", ".join(f"`{name}`" for name in classes)],
        ["out", "`probabilities`", "float32 [N,3]", "of the classes in that order; each row sums to 1"],
    )
    accuracies = table(
        ["rows", "count", "accuracy"],
        ["test", facts["rows_test"], f"{facts['accuracy_test']:.4f}"],
        ["train", facts["rows_train"], f"{facts['accuracy_train']:.4f}"],
        ["all", facts["rows_train"] + facts["rows_test"], f"{facts['accuracy_all']:.4f}"],
    )
    confusion = table(["", *classes], *([name, *counts] for name, counts in zip(classes, facts["confusion"])))
    packages = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "skl2onnx", "onnx", "numpy"))
    return f"""# Iris species classifier

Written by `train.py`; do not edit by hand.

## What it is

A random forest ({TREES} trees, depth at most {DEPTH}) that tells the species of an iris from four measures of its flower.
It exists to give this example a real model to serve. Do not use it to identify plants.

{signature}

## Data

Fisher's iris data set, 150 flowers, 50 of each species, no missing values: R. A. Fisher, "The use of multiple
measurements in taxonomic problems", Annals of Eugenics 7 (1936). The copy is the one inside scikit-learn
(`sklearn.datasets.load_iris`, BSD-3-Clause), which follows Fisher's paper; the UCI repository's copy, offered under
CC BY 4.0, differs in two rows. `../data/iris.csv` is that copy with the split used here as a column.

## How good it is

Split: stratified, {facts["rows_train"]} rows to train, {facts["rows_test"]} never seen. Seed {SEED}.

{accuracies}

{facts["rows_test"]} rows are few, and this split happens to be an easy one. Ten rounds of 5-fold cross-validation of the same recipe give
{facts["accuracy_cv"]:.4f} (standard deviation between folds {facts["accuracy_cv_std"]:.4f}): expect that of new flowers.

Test rows, true species down, predicted across:

{confusion}

Limits: 150 flowers of three species, measured by one botanist in the 1930s. Anything else, a rose or a row of zeros, still
gets one of the three names. The forest cannot extrapolate; watch the inputs, not only the answers.

## How it was made

`train.py` with Python {platform.python_version()}, {packages}.
ONNX opset {OPSET[""]} (ai.onnx.ml {OPSET["ai.onnx.ml"]}), {facts["bytes"]:,} bytes. Licence: that of this repository.
"""


def main():
    iris = load_iris()
    x = iris.data.astype(np.float32)
    species = np.array([str(iris.target_names[target]) for target in iris.target])
    train, test = train_test_split(np.arange(len(x)), test_size=0.3, stratify=species, random_state=SEED)

    forest = new_forest()
    forest.fit(x[train], species[train])
    onnx = export(forest)

    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=10, random_state=SEED)
    cross_validated = cross_val_score(new_forest(), x, species, cv=folds)
    facts = {
        "accuracy_cv": cross_validated.mean(),
        "accuracy_cv_std": cross_validated.std(),
        "classes": [str(name) for name in forest.classes_],
        "accuracy_train": accuracy_score(species[train], forest.predict(x[train])),
        "accuracy_test": accuracy_score(species[test], forest.predict(x[test])),
        "accuracy_all": accuracy_score(species, forest.predict(x)),
        "confusion": confusion_matrix(species[test], forest.predict(x[test]), labels=forest.classes_),
        "rows_train": len(train),
        "rows_test": len(test),
        "bytes": len(onnx),
    }
    write_csv(HERE / "data" / "iris.csv", iris.data, species, set(test.tolist()))
    (HERE / "model" / "iris.onnx").write_bytes(onnx)
    (HERE / "model" / "model-card.md").write_text(card(facts))
    print(f"held-out accuracy {facts['accuracy_test']:.4f} on {len(test)} rows; {len(onnx)} bytes written")


if __name__ == "__main__":
    main()
