"""HPC container images that describe themselves: from spack.yaml and easyconfigs, and for images that exist."""

# A literal: importlib.metadata alone doubles the start-up time.
__version__ = "0.1.0"
