"""Scores: known values of the oracles, what is refused, what a failing one costs."""

import math

import pytest
from rdkit import Chem
from rdkit.Chem import Crippen, rdMolDescriptors

from simulacra import study
from simulacra.sciences.drugs import scores
from simulacra.study import Refused

PARACETAMOL = "CC(=O)Nc1ccc(O)cc1"


def score(name, smiles):
    return scores.find(name)(Chem.MolFromSmiles(smiles))


def test_twenty_of_the_oracles_of_pmo_are_there_and_give_numbers_between_0_and_1():
    assert len(scores.PMO) + len(scores.LEFT_OUT) == 23
    for name in scores.PMO:
        for smiles in (PARACETAMOL, "CCO", scores.SILDENAFIL):
            assert 0 <= score(name, smiles) <= 1, name


def test_the_molecule_to_be_rediscovered_scores_1_and_others_less():
    for name, smiles in scores.REDISCOVERED.items():
        assert score(f"{name}_rediscovery", smiles) == pytest.approx(1)
        assert score(f"{name}_rediscovery", PARACETAMOL) < 0.3
    for name, (smiles, _) in scores.RESEMBLED.items():
        assert score(f"{name}_similarity", smiles) == 1


def test_counted_similarity_is_the_shared_counts_over_all():
    # Pentane and hexane by atom pairs: paths of 1 to 4 bonds, and of 1 to 5; ends differ from the middle. By hand, pairs by kind:
    # pentane EM(1) 2, MM(1) 2, EM(2) 2, MM(2) 1, EM(3) 2, EE(4) 1;
    # hexane  EM(1) 2, MM(1) 3, EM(2) 2, MM(2) 2, EM(3) 2, MM(3) 1, EM(4) 2, EE(5) 1
    shared = 2 + 2 + 2 + 1 + 2
    assert scores.similarity(Chem.MolFromSmiles("CCCCCC"), "CCCCC", "AP") == pytest.approx(shared / (10 + 15 - shared))


def test_medians_are_geometric_means_of_two_similarities():
    camphor = Chem.MolFromSmiles(scores.CAMPHOR)
    assert score("median1", scores.CAMPHOR) == pytest.approx(math.sqrt(scores.similarity(camphor, scores.MENTHOL)))


def test_an_isomer_scores_1_and_one_carbon_more_costs_what_the_gaussians_say():
    assert score("isomers_c7h8n2o2", "COc1ccc(NN=O)cc1") == pytest.approx(1)  # C7H8N2O2
    # One CH2 more: one carbon, two hydrogens, three atoms too many; five factors.
    expected = math.exp(-0.5 * (1 + 4 + (3 / 2) ** 2) / 5)
    assert score("isomers_c7h8n2o2", "CCOc1ccc(NN=O)cc1") == pytest.approx(expected)


def test_perindopril_has_its_similarity_and_lacks_two_aromatic_rings():
    assert score("perindopril_mpo", scores.PERINDOPRIL) == pytest.approx(math.sqrt(math.exp(-0.5 * (2 / 0.5) ** 2)))


def test_amlodipine_has_two_of_three_rings():
    assert score("amlodipine_mpo", scores.AMLODIPINE) == pytest.approx(math.sqrt(math.exp(-0.5 * (1 / 0.5) ** 2)))


def test_osimertinib_itself_is_penalised_by_hand():
    mol = Chem.MolFromSmiles(scores.OSIMERTINIB)
    logp, polar = Crippen.MolLogP(mol), rdMolDescriptors.CalcTPSA(mol)
    too_alike = math.exp(-0.5 * ((1 - 0.85) / 0.1) ** 2)
    parts = [math.exp(-0.5 * ((polar - 100) / 10) ** 2), math.exp(-0.5 * (logp - 1) ** 2), 1.0, too_alike]
    assert polar < 100
    assert logp > 1
    assert score("osimertinib_mpo", scores.OSIMERTINIB) == pytest.approx(math.prod(parts) ** 0.25)


def test_ranolazine_and_fexofenadine_by_hand():
    for name, smiles, polar_wish, logp_wish, width in (
        ("ranolazine_mpo", scores.RANOLAZINE, 95, 7, 20), ("fexofenadine_mpo", scores.FEXOFENADINE, 90, 4, 10),
    ):  # fmt: skip
        mol = Chem.MolFromSmiles(smiles)
        polar, logp = rdMolDescriptors.CalcTPSA(mol), Crippen.MolLogP(mol)
        parts = [math.exp(-0.5 * ((min(polar, polar_wish) - polar_wish) / width) ** 2), 1.0]
        if name == "ranolazine_mpo":  # no fluorine where one is wished for
            parts += [math.exp(-0.5 * (min(logp, logp_wish) - logp_wish) ** 2), math.exp(-0.5)]
        else:
            parts += [math.exp(-0.5 * (max(logp, logp_wish) - logp_wish) ** 2)]
        assert score(name, smiles) == pytest.approx(math.prod(parts) ** (1 / len(parts)))


def test_sitagliptin_has_its_own_properties_and_formula_but_is_too_like_itself():
    assert score("sitagliptin_mpo", scores.SITAGLIPTIN) == pytest.approx(math.exp(-0.5 * (1 / 0.1) ** 2) ** 0.25)


def test_zaleplon_lacks_two_carbons_two_hydrogens_two_nitrogens_and_has_an_oxygen_less():
    # Zaleplon is C17H15N5O, the goal C19H17N3O2: by 2, 2, 2 and 1; 38 atoms instead of 41.
    isomer = math.exp(-0.5 * (4 + 4 + 4 + 1 + (3 / 2) ** 2) / 5)
    assert score("zaleplon_mpo", scores.ZALEPLON) == pytest.approx(math.sqrt(isomer))


def test_valsartan_without_its_part_scores_0_and_hops_are_means_of_what_holds():
    assert score("valsartan_smarts", scores.SITAGLIPTIN) == 0
    assert score("valsartan_smarts", "CN(C=O)Cc1ccc(-c2ccccc2)cc1") >= 0
    # The molecule itself: its pharmacophores and scaffold, and both decorations that are not wished for.
    assert score("deco_hop", scores.PHARMACOPHORE) == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert score("scaffold_hop", scores.PHARMACOPHORE) == pytest.approx((1 + 1 + 0) / 3)


def test_fingerprints_are_those_that_the_published_code_calls():
    """TDC asks RDKit's older functions; the counts behind them must give the same similarities."""
    from rdkit import DataStructs, rdBase

    mols = [Chem.MolFromSmiles(s) for s in (scores.ZALEPLON, scores.SILDENAFIL, PARACETAMOL)]
    with rdBase.BlockLogs():
        older = {
            "ECFP4": lambda m: rdMolDescriptors.GetMorganFingerprint(m, 2), "ECFP6": lambda m: rdMolDescriptors.GetMorganFingerprint(m, 3),
            "FCFP4": lambda m: rdMolDescriptors.GetMorganFingerprint(m, 2, useFeatures=True),
            "AP": lambda m: rdMolDescriptors.GetAtomPairFingerprint(m, maxLength=10),
        }  # fmt: skip
        for kind, fingerprint in older.items():
            target = fingerprint(Chem.MolFromSmiles(scores.OSIMERTINIB))
            for mol in mols:
                expected = DataStructs.TanimotoSimilarity(target, fingerprint(mol))
                assert scores.similarity(mol, scores.OSIMERTINIB, kind) == pytest.approx(expected)


def test_a_property_within_a_range_scores_1_and_falls_off_outside():
    assert score("weight:140:160", PARACETAMOL) == 1  # 151.2 g/mol
    assert score("weight:100:131.165", PARACETAMOL) == pytest.approx(math.exp(-0.5 * (20 / 31.165) ** 2), rel=1e-3)
    assert score(f"similarity:{PARACETAMOL}", PARACETAMOL) == 1


def test_scores_that_are_not_known_are_refused_with_those_that_are():
    for wrong, why in (
        ("qedd", "not known"), ("jnk3", "pickled"), ("drd2", "pickled"), ("logP:3:2", "lower first"), ("logP:a:b", "two numbers"),
        ("similarity:xx", "no molecule"), ("__import__('os').system:x", "not known"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=why):
            scores.find(wrong)


def test_a_function_of_a_module_that_was_not_trusted_is_refused_before_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "my_scores_of_a_test.py").write_text("raise RuntimeError('this ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Refused, match="--trust my_scores_of_a_test"):
        scores.find("my_scores_of_a_test:nitrogens")


def test_a_trusted_function_is_used_and_one_that_is_not_there_refused(tmp_path, monkeypatch):
    (tmp_path / "my_trusted_scores.py").write_text("def nitrogens(smiles):\n    return min(smiles.upper().count('N') / 4, 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(study, "_trusted", set())
    study.trust("my_trusted_scores")
    assert score("my_trusted_scores:nitrogens", "NCCN") == 0.5
    with pytest.raises(Refused, match="no function 'carbons'"):
        scores.find("my_trusted_scores:carbons")
    with pytest.raises(Refused, match="no module is called"):
        study.trust("a_module_that_is_nowhere")


def _failing(smiles):
    if "N" in smiles:
        raise ValueError("no nitrogen, please")
    return math.nan if "O" in smiles else 0.5


def _oracle(monkeypatch, function):
    monkeypatch.setattr(scores, "find", lambda name: lambda mol: function(Chem.MolToSmiles(mol)))
    return scores.Oracle("mine", patience=2)


def test_a_score_that_raises_or_is_no_number_counts_0_and_is_told_once(monkeypatch):
    oracle = _oracle(monkeypatch, _failing)
    with pytest.warns(UserWarning, match="CN: ValueError: no nitrogen") as told:
        assert oracle(["CC", "CN", "CO", "CCN"]) == [0.5, 0, 0, 0]
    assert len(told) == 1
    assert (oracle.asked, oracle.failed) == (4, 3)
    assert oracle(["CO", "C"]) == [0, 0.5]  # and nothing more is said


def test_a_score_that_fails_for_all_molecules_is_refused_with_the_first_error(monkeypatch):
    oracle = _oracle(monkeypatch, _failing)
    with pytest.warns(UserWarning, match="counted as 0"), pytest.raises(Refused, match=r"all of the first 2 molecules.*CN: ValueError"):
        oracle(["CN", "CCO"])


def test_scores_outside_of_0_to_1_are_failures_not_clipped_silently(monkeypatch):
    oracle = _oracle(monkeypatch, lambda smiles: 7.0 if smiles == "CC" else 1.0)
    with pytest.warns(UserWarning, match="expected a number from 0 to 1"):
        assert oracle(["C", "CC"]) == [1, 0]
