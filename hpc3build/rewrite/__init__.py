"""Rewriting an image's annotations: first a plan that can be shown, then its writing, the tag last.

Rules of oci.md §8: byte-true edits, the same pairs twice give no write, Docker types are converted to OCI before they
get annotations, nothing but configurations and manifests is written. ``target`` says what is meant in an index,
``tree`` reads it and folds changes upwards, ``survey`` looks for what refers to it, ``plan`` decides, ``diff`` shows,
``write`` writes in place and ``transfer`` elsewhere, ``receipt`` takes back, ``attach`` leaves the image as it is.
"""

from hpc3build.rewrite.attach import Attachment, attach, plan_attachment
from hpc3build.rewrite.diff import changes
from hpc3build.rewrite.plan import ImageWish, Policy, Rewrite, plan, read
from hpc3build.rewrite.target import DEFAULT, Platform, Target
from hpc3build.rewrite.transfer import transfer
from hpc3build.rewrite.tree import Reader
from hpc3build.rewrite.write import Result, apply, would

__all__ = [
    "DEFAULT",
    "Attachment",
    "ImageWish",
    "Platform",
    "Policy",
    "Reader",
    "Result",
    "Rewrite",
    "Target",
    "apply",
    "attach",
    "changes",
    "plan",
    "plan_attachment",
    "read",
    "transfer",
    "would",
]
