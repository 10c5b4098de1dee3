"""This host: raw sources are collected (``collect``, or the shell script of ``script``) and then interpreted, apart.

``sources`` lists what is read, ``Probe`` holds it, ``interpret`` turns it into a ``Fingerprint``. A recorded probe of
another host is interpreted in the same way.
"""

from hpc3build.host.fingerprint import Fingerprint
from hpc3build.host.probe import Probe

__all__ = ["Fingerprint", "Probe"]
