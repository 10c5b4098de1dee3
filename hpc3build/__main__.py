"""``python -m hpc3build``."""

from hpc3build.cli import main

raise SystemExit(main())
