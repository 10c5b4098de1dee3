"""Kernel, modules, what the site puts into every container, and the vocabulary's own version."""

from __future__ import annotations

from hpc3build.facts import vocabulary as voc
from hpc3build.findings import Finding
from hpc3build.host.fingerprint import Fingerprint
from hpc3build.match.judgement import Judgement, at_least, degraded, fails, ok, unknown


def kernel(values: tuple[str | None, ...], host: Fingerprint) -> Judgement:
    """``values``: least kernel, kernel modules. An image that names none needs none."""
    least, modules = values
    findings = [] if least is None else [_version(least, host.kernel.version)]
    for name in modules.split(",") if modules else ():
        if (found := _module(name, host)) is not None:
            findings.append(found)
    return Judgement(tuple(findings))


def _version(least: str, have: str | None) -> Finding:
    key = voc.KERNEL_VERSION
    if have is None:
        return unknown("kernel.version", key, f"needs Linux {least}, and this host's kernel could not be read")
    if at_least(have, least):
        return ok("kernel.version", key, f"needs Linux {least}, this host has {have}")
    return fails(
        "kernel.version", key, f"needs Linux {least} or newer, this host has {have}: its libc would refuse to start"
    )


def _module(name: str, host: Fingerprint) -> Finding | None:
    rule, key = "kernel.module", voc.KERNEL_MODULES
    optional, name = name.endswith("?"), name.rstrip("?")
    if name in (host.kernel.modules or ()):
        return ok(rule, key, f"the kernel module {name} is there")
    if optional:
        return degraded(rule, key, f"would use the kernel module {name}, which this host has not loaded")
    if host.kernel.modules_complete:
        return fails(
            rule, key, f"needs the kernel module {name}, which this host has not loaded", f"modprobe {name}, as root"
        )
    return unknown(rule, key, f"needs the kernel module {name}, and this host's modules could not all be read")


def injected(values: tuple[str | None, ...], host: Fingerprint) -> Judgement:
    """``values``: libc provider, glibc. Libraries that the site binds into every container need their glibc there."""
    provider, glibc = values
    findings = []
    for library in host.injected:
        what = f"this site puts {library.path or 'a library'} into every container"
        if provider == "musl":
            findings.append(fails("glibc.injected", voc.LIBC_PROVIDER, f"{what}, and the image is of musl"))
        elif library.glibc is None:
            continue
        elif glibc is None:
            message = f"{what}, which needs glibc {library.glibc}, and the image does not say which it ships"
            findings.append(unknown("glibc.injected", voc.GLIBC, message))
        elif not at_least(glibc, library.glibc):
            message = f"{what}, which needs glibc {library.glibc}, and the image ships {glibc}"
            findings.append(fails("glibc.injected", voc.GLIBC, message))
        else:
            findings.append(ok("glibc.injected", voc.GLIBC, f"{what}: glibc {glibc} of the image suffices"))
    return Judgement(tuple(findings))


def vocabulary(values: tuple[str | None, ...], host: Fingerprint) -> Judgement:
    """``values``: the vocabulary's version. A newer one may mean other things by the same keys."""
    (version,) = values
    if version is None or version == voc.VERSION:
        return Judgement(())
    message = f"annotated by version {version} of the vocabulary, and this hpc3build reads {voc.VERSION}"
    return Judgement((unknown("vocabulary", voc.VOCABULARY, message, "a newer hpc3build reads it"),))
