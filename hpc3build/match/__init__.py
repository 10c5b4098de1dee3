"""Image facts against host facts: values in, findings out. No rule reads a registry, a disk or this machine.

``matcher`` runs the rules of ``cpu``, ``gpu`` (``cuda``, ``rocm``), ``mpi`` and ``system``; the numbers they stand on
are in ``tables``, each with its source.
"""

from hpc3build.match.judgement import Verdict
from hpc3build.match.matcher import DISCRIMINATING, Match, Matcher

__all__ = ["DISCRIMINATING", "Match", "Matcher", "Verdict"]
