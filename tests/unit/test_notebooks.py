"""The example notebooks as files: clean, with typed and explained parameters, and the language table."""

import csv
import importlib.util
import json
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from atelier.records import Work
from atelier.works.finding import inspect_work

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, 4)


def test_there_are_two():
    assert {path.name for path in NOTEBOOKS} == {"tensorflow_image_cnn.ipynb", "pytorch_text_lstm.ipynb"}


def test_it_is_valid_and_carries_no_results(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "/home/" not in json.dumps(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_has_a_type_a_default_and_a_sentence(path):
    parameters = inspect_work(lambda name: (FOLDER / name).read_bytes(), Work(kind="notebook", target=path.name))
    assert {"epochs", "batch_size", "learning_rate", "seed", "formats", "model_name"} <= {
        one.name for one in parameters
    }
    for one in parameters:
        assert one.type != "any", one
        assert one.help, one
        assert not one.required, one


def test_it_says_what_it_does_first_and_ends_in_an_export(notebook):
    assert notebook.cells[0].source.startswith("# ")
    exports = [cell for cell in notebook.cells if "atelier.export(" in cell.source and cell.cell_type == "code"]
    assert len(exports) == 1
    assert all(
        len(line) <= 130 for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines()
    )


def test_the_architectures_are_the_ones_that_are_asked_for():
    keras = "".join((FOLDER / "tensorflow_image_cnn.ipynb").read_text().split())
    order = [
        "Conv2D(32,(3,3)",
        "MaxPooling2D((2,2))",
        "Conv2D(64,(3,3)",
        "MaxPooling2D((2,2))",
        "Flatten()",
        "Dense(10",
    ]
    places = [keras.find(part) for part in order[:2]] + [keras.rfind(part) for part in order[2:]]
    assert places == sorted(places)
    assert places[0] > 0
    torch = (FOLDER / "pytorch_text_lstm.ipynb").read_text()
    assert "def __init__(self, input_size, hidden_size, num_layers, num_classes)" in torch
    assert "batch_first=True" in torch


@pytest.fixture(scope="module")
def rows():
    with (FOLDER / "data" / "languages.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_language_table_is_balanced_clean_and_without_repeats(rows):
    counts = Counter(row["language"] for row in rows)
    assert len(counts) == 12
    assert set(counts.values()) == {378}
    assert all(12 <= len(row["text"]) <= 80 for row in rows)
    assert len({row["text"].casefold() for row in rows}) == len(rows)
    assert not any(mark in row["text"] for row in rows for mark in ("%(", "<", "{", "http"))


def test_the_table_names_its_licence():
    licence = (FOLDER / "data" / "LICENSE").read_text()
    assert "Django Software Foundation" in licence
    assert "Redistributions" in licence


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_languages", FOLDER / "data" / "make_languages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CATALOGUE = """
#: models.py:3
msgid "Change password"
msgstr "Passwort ändern"

#, fuzzy
msgid "unsure"
msgstr "unsicher"

msgid "one"
msgid_plural "many"
msgstr[0] "eins"

#~ msgid "old"
#~ msgstr "alt"

msgid ""
"Two lines, "
"one message"
msgstr ""
"Zwei Zeilen, "
"eine \\"Nachricht\\""
"""


def test_the_maker_reads_catalogues(maker):
    assert list(maker.read_catalogue(CATALOGUE)) == [
        ("Change password", "Passwort ändern"),
        ("Two lines, one message", 'Zwei Zeilen, eine "Nachricht"'),
    ]


def test_the_maker_cleans_what_is_the_same_in_every_language(maker):
    assert maker.clean("“%(name)s” ist <b>kein</b> g&uuml;ltiger Wert: {value}.") == "ist kein gültiger Wert"


def test_the_table_is_made_of_the_makers_languages(maker, rows):
    assert sorted(maker.LANGUAGES) == sorted({row["language"] for row in rows})
