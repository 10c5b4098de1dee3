"""archspec's names of CPU features as NFD's ``cpu.cpuid`` has them.

Sources: klauspost/cpuid cpuid.go (the constants' names are the flags; the same in v2.2.9, which NFD 0.17 has, and
v2.4.0, which 0.19 has), kubernetes-sigs/node-feature-discovery source/cpu/cpuid_linux_arm64.go (the kernel's hwcap
names in capitals). The flags X86_64_V1 to V4 came with NFD 0.19 (source/cpu/cpu.go, microarchLevelFlags): a rule that
asks for one would tell nodes with an older NFD that they are too old, so levels are asked for by their features.
"""

from __future__ import annotations

from types import MappingProxyType

# The formatter would give every name its own line.
# fmt: off

_X86 = MappingProxyType({
    "3dnow": "AMD3DNOW", "3dnowext": "AMD3DNOWEXT", "abm": "LZCNT", "aes": "AESNI", "flush_l1d": "FLUSH_L1D",
    "fma": "FMA3", "lahf_lm": "LAHF", "pclmulqdq": "CLMUL", "sha_ni": "SHA", "sm3": "SM3_X86", "sm4": "SM4_X86",
    "sse4_1": "SSE4", "sse4_2": "SSE42",
})
#: Those of archspec's that are the same in capitals and without underscores.
_X86_SAME = frozenset({
    "adx", "amx_bf16", "amx_int8", "amx_tile", "avx", "avx2", "avx512_bf16", "avx512_bitalg", "avx512_fp16",
    "avx512_vbmi2", "avx512_vnni", "avx512_vp2intersect", "avx512_vpopcntdq", "avx512bw", "avx512cd", "avx512dq",
    "avx512er", "avx512f", "avx512ifma", "avx512pf", "avx512vbmi", "avx512vl", "avx_ifma", "avx_ne_convert",
    "avx_vnni", "avx_vnni_int16", "avx_vnni_int8", "bmi1", "bmi2", "cldemote", "clzero", "cmpccxadd", "cx16",
    "f16c", "fma4", "gfni", "mmx", "movbe", "movdir64b", "movdiri", "popcnt", "rdrand", "rdseed", "serialize",
    "sse", "sse2", "sse3", "sse4a", "ssse3", "tbm", "vaes", "vpclmulqdq", "waitpkg", "xop", "xsave", "xsavec",
    "xsaveopt",
})
_ARM = frozenset({
    "aes", "afp", "asimd", "asimddp", "asimdfhm", "asimdhp", "asimdrdm", "atomics", "bf16", "bti", "cpuid", "crc32",
    "dcpodp", "dcpop", "dgh", "dit", "ebf16", "ecv", "evtstrm", "fcma", "flagm", "flagm2", "fp", "fphp", "frint",
    "i8mm", "ilrcpc", "jscvt", "lrcpc", "mte", "mte3", "paca", "pacg", "pmull", "rng", "rpres", "sb", "sha1",
    "sha2", "sha3", "sha512", "sm3", "sm4", "sme", "ssbs", "sve", "sve2", "sveaes", "svebf16", "svebitperm",
    "svef32mm", "svef64mm", "svei8mm", "svepmull", "svesha3", "svesm4", "uscat", "wfxt",
})

# fmt: on


def flag(family: str, feature: str) -> str | None:
    """NFD's flag for a feature of an archspec ``family``; None where it has none."""
    if family == "x86_64":
        return _X86.get(feature) or (feature.replace("_", "").upper() if feature in _X86_SAME else None)
    if family == "aarch64":
        return feature.upper() if feature in _ARM else None
    return None
