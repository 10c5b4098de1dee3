"""Rewriting an image's annotations: first a plan that can be shown, then its writing, the tag last.

Rules of oci.md §8: byte-true edits, the same pairs twice give no write, Docker types are converted to OCI before they
get annotations, nothing but configurations and manifests is written. ``target`` says what is meant in an index,
``tree`` reads it and folds changes upwards, ``plan`` decides, ``write`` writes, ``attach`` leaves the image as it is.
"""

from hpc3build.rewrite.attach import ARTIFACT_TYPE, Attachment, attach, plan_attachment
from hpc3build.rewrite.plan import Rewrite, plan
from hpc3build.rewrite.target import DEFAULT, Platform, Target
from hpc3build.rewrite.write import Result, apply

__all__ = [
    "ARTIFACT_TYPE",
    "DEFAULT",
    "Attachment",
    "Platform",
    "Result",
    "Rewrite",
    "Target",
    "apply",
    "attach",
    "plan",
    "plan_attachment",
]
