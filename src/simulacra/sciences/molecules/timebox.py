"""Chemistry that may never end, in a process that is ended for it.

RDKit's bond perception can freeze or exhaust the memory from about 32 atoms on (rdkit issues 5902, 7922, 8006, 9227); a force field
or a conformer search can take minutes. C++ code cannot be interrupted from Python, so such a question is put to one worker process
over pipes, as a line of JSON, and a worker that does not answer within the limit is killed; the next question starts a new one.
Nothing is pickled. This module imports neither torch nor anything of the package, so that a worker starts in a fraction of a second.

The worker is this same file: python -m simulacra.sciences.molecules.timebox
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

START = 60.0  # seconds that a worker may take to import its libraries, on a slow disc
MEMORY = 8 * 2**30  # bytes of address space of a worker, where the system can limit it
WORKER = (sys.executable, "-P", "-m", "simulacra.sciences.molecules.timebox")  # -P: what lies in the working folder is no library


class Unanswered(RuntimeError):
    """A question that got no answer: why, in words for a report."""


class TimeBox:
    """One worker process that is asked one question at a time, each within `seconds` by the clock. Use as a context manager."""

    def __init__(self, seconds: float, command: Sequence[str] = WORKER) -> None:
        self.seconds, self.command = seconds, tuple(command)
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's answer to {"task": name, ...}. Raises Unanswered where it took too long, died or failed."""
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({**question, "seconds": self.seconds}) + "\n")
            process.stdin.flush()
        except OSError:  # it has died: the empty answer says so
            pass
        answer = json.loads(self._next(self.seconds, f"took longer than {self.seconds:g} s"))
        if "failed" in answer:
            raise Unanswered(str(answer["failed"]))
        found: dict[str, Any] = answer
        return found

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
            surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=nowhere, text=True, env=surroundings)
            self._answers = queue.Queue()
            threading.Thread(target=_collect, args=(self._process.stdout, self._answers), daemon=True).start()
            self._next(START, f"the worker did not start within {START:g} s")
        return self._process

    def _next(self, seconds: float, otherwise: str) -> str:
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            self._end()
            raise Unanswered(otherwise) from None
        if not line:
            self._end()
            raise Unanswered("the process that worked on it ended (out of memory or time, or a fault in the library)")
        return line

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(OSError):  # what was still to be written has no reader
                self._process.stdin.close()
        self._process = None


def _collect(lines: Any, answers: queue.Queue[str]) -> None:
    """Lines of a worker, and an empty one when there will be no more."""
    with lines:
        for line in lines:
            answers.put(line)
    answers.put("")


# --------------------------------------------------------------------------------------------------------------- the worker


def _molecule(question: Mapping[str, Any], bonded: bool) -> Any:
    from rdkit import Chem
    from rdkit.Geometry import Point3D

    made = Chem.RWMol()
    shape = Chem.Conformer(len(question["numbers"]))
    for i, (number, place) in enumerate(zip(question["numbers"], question["positions"], strict=True)):
        atom = Chem.Atom(number)
        if bonded:
            atom.SetFormalCharge(question["charges"][i])
            atom.SetNoImplicit(True)
        made.AddAtom(atom)
        shape.SetAtomPosition(i, Point3D(*place))
    kinds = (Chem.BondType.ZERO, Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)
    for i, j, order in question["bonds"] if bonded else ():
        made.AddBond(i, j, kinds[order])
        if kinds[order] == Chem.BondType.AROMATIC:
            made.GetBondBetweenAtoms(i, j).SetIsAromatic(True)
            made.GetAtomWithIdx(i).SetIsAromatic(True)
            made.GetAtomWithIdx(j).SetIsAromatic(True)
    made.AddConformer(shape, assignId=True)
    return made.GetMol()


def bonds(question: Mapping[str, Any]) -> dict[str, Any]:
    """Bonds and formal charges that fit the geometry and the total charge (Kim & Kim 2015, in RDKit as rdDetermineBonds)."""
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds

    mol = _molecule(question, bonded=False)
    rdDetermineBonds.DetermineBonds(mol, charge=question["charge"])
    code = {Chem.BondType.SINGLE: 1, Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3, Chem.BondType.AROMATIC: 4}
    return {
        "charges": [atom.GetFormalCharge() for atom in mol.GetAtoms()],
        "bonds": [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), code[bond.GetBondType()]) for bond in mol.GetBonds()],
    }


def strain(question: Mapping[str, Any]) -> dict[str, Any]:
    """MMFF94 energy as drawn and after relaxation into the nearest minimum, kcal/mol; None where MMFF94 lacks a parameter."""
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers as mmff

    mol = _molecule(question, bonded=True)
    Chem.SanitizeMol(mol, Chem.SanitizeFlags.SANITIZE_ALL ^ Chem.SanitizeFlags.SANITIZE_CLEANUP)
    if not mmff.MMFFHasAllMoleculeParams(mol):
        return {"drawn": None, "relaxed": None}
    field = mmff.MMFFGetMoleculeForceField(mol, mmff.MMFFGetMoleculeProperties(mol, mmffVariant="MMFF94"))
    field.Initialize()
    drawn = field.CalcEnergy()
    for _ in range(50):
        if field.Minimize(maxIts=200) == 0:
            break
    return {"drawn": drawn, "relaxed": field.CalcEnergy()}


def posebusters(question: Mapping[str, Any]) -> dict[str, Any]:
    """The checks of PoseBusters' configuration "mol" by name, True where passed."""
    from posebusters import PoseBusters

    table = PoseBusters(config="mol").bust([_molecule(question, bonded=True)])
    return {"checks": {str(name): bool(value) for name, value in table.iloc[0].items()}}


TASKS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"bonds": bonds, "strain": strain, "posebusters": posebusters}


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _end_after(seconds: float) -> None:
    """Let the system end this process after so long (0: never), so that a stuck worker does not outlive whoever asked."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def main() -> None:
    """Answer questions from standard input on standard output until it closes. Modules named as arguments are loaded first."""
    from rdkit import rdBase

    for name in ("rdkit.Chem.rdDetermineBonds", "rdkit.Chem.rdForceFieldHelpers", *sys.argv[1:]):
        importlib.import_module(name)  # loading is no part of the time that a molecule has
    rdBase.DisableLog("rdApp.*")
    _limit_memory()
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not come between the answers
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        _end_after(question["seconds"] + 1)
        try:
            answer = TASKS[question["task"]](question)
        except Exception as error:  # whatever a library raises is this molecule's reason, not the end of the others
            answer = {"failed": (str(error).strip() or type(error).__name__).splitlines()[0]}
        _end_after(0)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
