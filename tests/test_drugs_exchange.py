"""Drawn strings as files: nothing is lost, nothing is left out, and what stands beside a molecule is right."""

import csv
import io
import math

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit", reason='rdkit is not installed: pip install "simulacra[chem]"')
from rdkit import Chem

from simulacra.sciences.drugs import exchange, pictures, properties
from simulacra.sciences.drugs.data import compounds, prompts, texts
from simulacra.sciences.drugs.simulate import simulated
from simulacra.study import Refused

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
STRINGS = (ASPIRIN, "c1ccccc", "", "C[C@H](N)C(=O)[O-]", "OCC")
NAN = math.nan


@pytest.fixture
def drawn():
    return compounds(STRINGS)


@pytest.fixture
def wished():
    wish = torch.tensor([[1.0, NAN, -2.0], [2.0, NAN, -2.0], [2.0, NAN, -2.0], [1.0, NAN, -2.0], [1.0, NAN, -2.0]])
    return compounds(STRINGS, ["OC(=O)c1ccccc1", "", "", "", "CCO"], wish)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_every_drawn_string_stands_in_a_smi_file_in_order(drawn, tmp_path):
    exchange.export(drawn, tmp_path / "a.smi", None)
    assert (tmp_path / "a.smi").read_text().splitlines() == [ASPIRIN, "c1ccccc", "None", STRINGS[3], "OCC"]
    assert texts(exchange.read(tmp_path / "a.smi")) == [ASPIRIN, "c1ccccc", "None", STRINGS[3], "OCC"]


def test_a_string_cannot_leave_its_line_or_its_cell(tmp_path):
    nasty = compounds(["CC\nCCO", "C,C", 'C"C', "C C", "=1+1"])
    for ending in (".smi", ".csv"):
        exchange.export(nasty, tmp_path / f"a{ending}", None)
    assert (tmp_path / "a.smi").read_text().splitlines() == ["CC?CCO", "C,C", 'C"C', "C?C", "=1+1"]
    found = rows((tmp_path / "a.csv").read_text())
    assert [row["smiles"] for row in found] == ["CC?CCO", "C,C", 'C"C', "C C", "=1+1"]
    assert [row["valid"] for row in found] == ["no"] * 5


def test_a_table_has_a_row_for_every_draw_and_the_properties_of_the_molecules(drawn, tmp_path):
    exchange.export(drawn, tmp_path / "a.csv", None)
    found = rows((tmp_path / "a.csv").read_text())
    assert list(found[0]) == list(exchange.PLAIN)
    assert [row["smiles"] for row in found] == list(STRINGS)
    assert [row["valid"] for row in found] == ["yes", "no", "no", "yes", "yes"]
    assert found[4]["canonical"] == "CCO"
    assert not any(found[1][name] for name in exchange.PLAIN[2:])
    names = exchange.PLAIN[3:]
    expected = properties.measured([Chem.MolFromSmiles(ASPIRIN)], names)[0]
    assert [float(found[0][name]) for name in names] == pytest.approx(expected, abs=0.006)
    assert texts(exchange.read(tmp_path / "a.csv")) == list(STRINGS)


def test_prompts_and_wishes_stand_beside_what_came_of_them(wished, tmp_path):
    exchange.export(wished, tmp_path / "a.csv", None)
    found = rows((tmp_path / "a.csv").read_text())
    assert list(found[0])[len(exchange.PLAIN) :] == ["prompt", "asked logP", "asked solubility"]
    assert [row["prompt"] for row in found] == prompts(wished)
    assert [float(row["asked logP"]) for row in found] == [1, 2, 2, 1, 1]


def test_what_is_known_is_found_in_whatever_form(drawn, tmp_path):
    (tmp_path / "known.smi").write_text("OC(=O)c1ccccc1OC(C)=O\nC[C@@H]([NH3+])C(=O)O\nbroken(\nCCCCCCCC\n")
    exchange.export(drawn, tmp_path / "a.csv", tmp_path / "known.smi")
    found = rows((tmp_path / "a.csv").read_text())
    assert [row["novel"] for row in found] == ["no", "", "", "no", "yes"]
    assert float(found[0]["similarity"]) == 1
    assert 0 < float(found[4]["similarity"]) < 1
    (tmp_path / "nothing.smi").write_text("broken(\n")
    with pytest.raises(Refused, match="no molecule to compare"):
        exchange.export(drawn, tmp_path / "b.csv", tmp_path / "nothing.smi")
    with pytest.raises(Refused, match=r"choose \.csv or \.sdf"):
        exchange.export(drawn, tmp_path / "b.smi", tmp_path / "known.smi")


def test_an_sdf_holds_the_molecules_alone_flat_and_with_their_tags(drawn, tmp_path):
    exchange.export(drawn, tmp_path / "a.sdf", None)
    found = list(Chem.SDMolSupplier(str(tmp_path / "a.sdf")))
    assert [Chem.MolToSmiles(mol) for mol in found] == [Chem.CanonSmiles(STRINGS[i]) for i in (0, 3, 4)]
    assert [mol.GetProp("_Name") for mol in found] == ["row 0", "row 3", "row 4"]
    assert found[0].GetProp("weight") == "180.16"
    assert not found[0].GetConformer().Is3D()
    assert np.ptp(found[0].GetConformer().GetPositions()[:, 0]) > 3
    assert len(exchange.read(tmp_path / "a.sdf")) == 3


def test_our_own_file_gives_everything_back(wished, tmp_path):
    exchange.write(wished, tmp_path / "a.npz")
    again = exchange.read(tmp_path / "a.npz")
    for name, value in wished.fields().items():
        assert torch.equal(value.nan_to_num(9), again.fields()[name].nan_to_num(9)), name


def test_files_that_are_no_samples_are_refused_in_words(tmp_path):
    np.savez(tmp_path / "other.npz", spins=np.ones(3))
    (tmp_path / "broken.npz").write_bytes(b"PK no zip")
    np.savez(tmp_path / "pickled.npz", text=np.array([{}], dtype=object), prompt=np.zeros((1, 0), np.uint8), wish=np.zeros((1, 3)))
    for name in ("other", "broken", "pickled", "missing"):
        words = "expected the arrays" if name == "other" else "cannot be read"
        with pytest.raises(Refused, match=words):
            exchange.read(tmp_path / f"{name}.npz")


def test_lines_written_in_blocks_are_the_table(drawn, wished, tmp_path):
    whole = exchange.header(".csv") + exchange.lines(wished, ".csv")
    blocks = exchange.header(".csv") + exchange.lines(wished[:2], ".csv") + exchange.lines(wished[2:], ".csv")
    assert whole == blocks
    exchange.export(wished, tmp_path / "a.csv", None)
    exported = rows((tmp_path / "a.csv").read_text())
    assert [{name: row[name] for name in exported[0]} for row in rows(whole)] == exported
    assert exchange.header(".smi") == ""
    assert exchange.lines(drawn, ".smi").count("\n") == len(drawn)
    assert exchange.tally(drawn) == {"are molecules": 3}


def test_the_summary_counts_failures_and_holds_what_was_asked_against_what_came(wished):
    told = exchange.summary(wished, compounds([ASPIRIN, "broken(", "", "CCO", "CCO"]))
    assert told[0].startswith("3 of 5 strings are molecules (60.0%), 2 of them different")
    errors = np.abs(np.array([1.3101, -0.0014, -0.0014]) - 1).mean()
    assert told[1] == f"logP: asked for 1, drawn 0.436 ± 0.62, mean error {errors:.2g}"
    assert told[2].startswith("solubility: asked for -2 log mol/L")
    assert told[3].startswith("similarity to the prompt")
    plain = exchange.summary(compounds([""] * 2), compounds(["", "CC"]))
    assert plain == ["1 of 2 strings are molecules (50.0%), 1 of them different; no row was left out"]


def test_similarity_is_that_to_the_own_prompt():
    samples = compounds(["CCO", "c1ccccc1", "CCO", "broken("], ["OCC", "CCO", "", "CCO"])
    assert exchange.similarity(samples) == pytest.approx([1, 0, NAN, NAN], nan_ok=True)


# ---------------------------------------------------------------------------------------------------------------- pictures


def test_pictures_show_molecules_on_white_and_failures_in_red(drawn):
    shown = pictures.picture(drawn)
    assert shown.shape == (5, pictures.HEIGHT, pictures.WIDTH, 3)
    assert (shown.min(), shown.max()) == (0, 1)
    assert (shown[0] == shown[0].min(axis=-1, keepdims=True)).all(axis=-1).mean() > 0.5  # mostly black, grey and white
    dark = shown.min(axis=-1) < 0.5
    assert dark.mean(axis=(1, 2)).min() > 0.001
    red = (shown[..., 0] > 0.6) & (shown[..., 2] < 0.4)
    assert red[1].any()
    assert red[2].any()
    assert pictures.picture(drawn[:0]).shape == (0, pictures.HEIGHT, pictures.WIDTH, 3)


def test_captions_say_what_it_is(drawn):
    said = pictures.caption(drawn)
    assert said[0] == f"{ASPIRIN}: logP 1.3, QED 0.55"
    assert said[1] == "c1ccccc: no molecule"
    assert said[2] == "empty: no molecule"


def test_figures_show_both_sides_and_only_text_where_nothing_is_a_molecule():
    nature = compounds(simulated(40, seed=1))
    found = pictures.figures(nature, compounds([*simulated(30, seed=2), "<broken & (", ""]), 0)
    assert [figure.title for figure in found] == ["Structures", "Properties", "Chemical space"]
    assert isinstance(found[0].image, str)
    from xml.etree import ElementTree

    assert ElementTree.fromstring(found[0].image).tag.endswith("svg")
    assert all(isinstance(figure.image, bytes) and figure.image.startswith(b"\x89PNG") for figure in found[1:])
    broken = pictures.figures(nature, compounds(["<broken & ("] * 20), 0)
    assert [figure.title for figure in broken] == ["Structures"]
    assert "&lt;broken &amp; (" in str(broken[0].image)
    assert ElementTree.fromstring(str(broken[0].image)) is not None
