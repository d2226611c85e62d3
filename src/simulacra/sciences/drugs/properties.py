"""What is measured in one molecule: physicochemical properties, and the forms in which molecules are compared.

    logP          octanol-water partition by atomic contributions, Wildman & Crippen 1999, J. Chem. Inf. Comput. Sci. 39:868
    QED           desirability as an oral drug, 0 to 1, Bickerton et al. 2012, Nat. Chem. 4:90
    SA            synthetic accessibility, 1 (easy) to 10, Ertl & Schuffenhauer 2009, J. Cheminform. 1:8
    solubility    ESOL, log mol/L: .16 - .63 logP - .0062 MW + .066 rotatable bonds - .74 aromatic share, Delaney 2004,
                  J. Chem. Inf. Comput. Sci. 44:1000 (its calculated logP there was another one, so this is off by what they differ)
    TPSA          topological polar surface, square Angstrom, Ertl et al. 2000, J. Med. Chem. 43:3714

All by RDKit; `sa_score` comes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import QED, Crippen, Descriptors, rdMolDescriptors

from simulacra.sciences.drugs.reading import LONGEST

Array = NDArray[np.float64]


_logp: Any = Crippen.MolLogP  # type: ignore[attr-defined]
_weight: Any = Descriptors.MolWt  # type: ignore[attr-defined]


@cache
def _sa() -> Any:
    from rdkit.Contrib.SA_Score import sascorer

    return sascorer


def sa_score(mol: Any) -> float:
    """Synthetic accessibility, 1 to 10."""
    return float(_sa().calculateScore(mol))


def solubility(mol: Any) -> float:
    """ESOL, log10 of mol/L."""
    heavy = mol.GetNumHeavyAtoms()
    aromatic = sum(atom.GetIsAromatic() for atom in mol.GetAtoms()) / heavy if heavy else 0.0
    return esol(_logp(mol), _weight(mol), rdMolDescriptors.CalcNumRotatableBonds(mol), aromatic)


def esol(logp: float, weight: float, rotatable: float, aromatic: float) -> float:
    """Delaney's regression: log10 of mol/L from logP, g/mol, rotatable bonds and the share of heavy atoms that are aromatic."""
    return 0.16 - 0.63 * logp - 0.0062 * weight + 0.066 * rotatable - 0.74 * aromatic


MEASURES: Mapping[str, Callable[[Any], float]] = {
    "logP": _logp,
    "QED": QED.qed,
    "SA": sa_score,
    "weight": _weight,
    "TPSA": rdMolDescriptors.CalcTPSA,
    "solubility": solubility,
    "donors": rdMolDescriptors.CalcNumHBD,
    "acceptors": rdMolDescriptors.CalcNumHBA,
    "rotatable": rdMolDescriptors.CalcNumRotatableBonds,
    "rings": rdMolDescriptors.CalcNumRings,
}
UNITS: Mapping[str, str] = {"weight": "g/mol", "TPSA": "Å²", "solubility": "log mol/L"}


def molecule(smiles: str) -> Any | None:
    """The molecule that RDKit reads, or None: what is valid, here and everywhere. An empty string is none, nor is one with white space,
    behind which RDKit would look for a name, nor one of more than LONGEST characters."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles.split() == [smiles] and len(smiles) <= LONGEST else None
    return mol if mol is not None and mol.GetNumAtoms() and all(atom.GetAtomicNum() for atom in mol.GetAtoms()) else None


def measured(mols: Sequence[Any | None], names: Sequence[str]) -> Array:
    """Properties (n, len(names)) of molecules; nan where there is none."""
    rows = [[float(MEASURES[name](mol)) for name in names] if mol is not None else [np.nan] * len(names) for mol in mols]
    return np.array(rows, np.float64).reshape(len(mols), len(names))


@cache
def _uncharger() -> Any:
    from rdkit.Chem.MolStandardize import rdMolStandardize

    return rdMolStandardize.Uncharger()


def flat(smiles: str) -> str:
    """Canonical SMILES of the largest part, neutral, without isotopes and stereo: two strings of one drug are equal so.
    A string that is no molecule stays as it is."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        return smiles if mol is None else flattened(mol)


def flattened(mol: Any) -> str:
    """`flat` of a molecule that was read. Log messages of RDKit are not kept back."""
    parts = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
    if len(parts) > 1:
        mol = max(parts, key=lambda part: (part.GetNumHeavyAtoms(), Chem.MolToSmiles(part)))
    if any(atom.GetFormalCharge() for atom in mol.GetAtoms()):
        mol = _uncharger().uncharge(mol)
    if any(atom.GetIsotope() for atom in mol.GetAtoms()):
        mol = Chem.Mol(mol)
        for atom in mol.GetAtoms():
            atom.SetIsotope(0)
        mol = Chem.RemoveHs(mol)
    return str(Chem.MolToSmiles(mol, isomericSmiles=False))
