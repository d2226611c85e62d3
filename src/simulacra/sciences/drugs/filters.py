"""The medicinal filters of MOSES (Polykovskiy et al. 2020, Front. Pharmacol. 11:565644): what its authors left out of their molecules.

    elements   only C, N, S, O, F, Cl, Br and H
    charge     no atom has a formal charge
    rings      none of eight atoms or more
    MCF        none of 22 substructures that react, are toxic or metabolised, or of which there are too many ("medicinal chemistry filters")
    PAINS      none of the substructures that answer to many assays (Baell & Holloway 2010, J. Med. Chem. 53:2719), as RDKit has them

The definitions of MCF are those of the file mcf.csv of github.com/molecularsets/moses (MIT licence). They speak of hydrogens as atoms, so
they are looked for in molecules that have them; and of single and double bonds, so that to RDKit, whose rings of that kind are aromatic,
hardly any furan, thiophene or aniline answers to them, there as here. The alerts of Brenk et al. 2008, ChemMedChem 3:435, are counted
beside them and are no part.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from rdkit import Chem
from rdkit.Chem.FilterCatalog import FilterCatalog, FilterCatalogParams

ALLOWED = frozenset({1, 6, 7, 8, 9, 16, 17, 35})  # atomic numbers
LARGEST_RING = 7  # atoms
MCF = {
    "acetal": "[#6&!H0](-&!@[#8])-&!@[#8]",
    "aldehyde": "[#6&!H0]=[#8]",
    "alkyl halide": "[H]C([H])([#6])[F,Cl,Br,I]",
    "aminal": "[#7]-&!@[#6&!H0&!H1]-&!@[#7]",
    "aniline": "[H][#7]([H])-[#6]-1=[#6]-[#6]=[#6]-[#6]=[#6]-1",
    "aromatic halide that may be substituted": "[#17,#35,#53]-c(:*):[!#1!#6]:*",
    "azide": "[#7]~&!@[#7]~&!@[#7]",
    "aziridine": "[#6]1-[#7]-[#6]-1",
    "azo": "[#7]=&!@[#7]",
    "disulfide": "[#16]~[#16]",
    "epoxide": "[#6]1-[#8]-[#6]-1",
    "furan": "[H][#6]-1=[#6]([H])-[#6]=[#6](-*)-[#8]-1",
    "hydrazine": "[#6]~&!@[#7]~&!@[#7]~&!@[#6]",
    "imine": "[#6](=&!@[#7&!H0])-&!@[#6,#7,#8,#16]",
    "isocyanate": "[#6]-[#7]=[#6]=[#8]",
    "Michael acceptor, acrylamide": "[#6]=&!@[#6&!H0]-&!@[#6](=[#8])-&!@[#7]",
    "Michael acceptor, acrylonitrile": "[#6]=&!@[#6]-[#6]#[#7]",
    "Michael acceptor, vinyl sulfone": "[#6]=&!@[#6]-[#16](=[#8])=[#8]",
    "more than two bromines": "[#35].[#35].[#35]",
    "more than three chlorines": "[#17].[#17].[#17].[#17]",
    "more than six fluorines": "[#9].[#9].[#9].[#9].[#9].[#9].[#9]",
    "thiophene": "[H][#6]-1=[#6]([H])-[#6]=[#6](-*)-[#16]-1",
}


def passes(mol: Any) -> bool:
    """Whether all five let an RDKit molecule pass."""
    if any(atom.GetFormalCharge() or atom.GetAtomicNum() not in ALLOWED for atom in mol.GetAtoms()):
        return False
    if any(len(ring) > LARGEST_RING for ring in mol.GetRingInfo().AtomRings()):
        return False
    return not medicinal(mol) and not _catalogue("PAINS").HasMatch(mol)


def medicinal(mol: Any) -> str:
    """The first of MCF that an RDKit molecule holds, "" where it holds none."""
    whole = Chem.AddHs(mol)
    return next((name for name, pattern in _patterns() if whole.HasSubstructMatch(pattern)), "")


def alerts(mol: Any) -> int:
    """Alerts of Brenk et al. that an RDKit molecule sets off."""
    return len(_catalogue("BRENK").GetMatches(mol))


@cache
def _patterns() -> list[tuple[str, Any]]:
    return [(name, Chem.MolFromSmarts(smarts)) for name, smarts in MCF.items()]


@cache
def _catalogue(name: str) -> Any:
    """One of the lists of substructures that come with RDKit."""
    chosen = FilterCatalogParams()
    chosen.AddCatalog(getattr(FilterCatalogParams.FilterCatalogs, name))
    return FilterCatalog(chosen)
