#!/usr/bin/env python3
"""Take symbols and debug information out of all programs and libraries below some directories.

    strip.py DIR...

It runs inside the builder stage, with that image's python3 and strip: Python 3.6 and its standard library suffice.
Files are told by their first bytes, worked on by all cores, and left alone wherever stripping could do harm: other
architectures, object files and kernel modules, Go programs, programs with data behind their end (AppImage, frozen
Python), separate debug information. What strip made takes the file's place only when all that gets loaded is
still the same. Mode, owner, times, extended attributes and hard links stay.

One odd file fails nothing: it stays as it was and is named on stderr. Exit status: 0; 2 when a DIR is missing;
3 when strip is missing.
"""

import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Dict, Iterator, List, NamedTuple, Optional, TextIO, Tuple

ELF = b"\x7fELF"
ARCHIVE = b"!<arch>\n"
HEAD = 64
TIME_LIMIT = 900
NAMED = 20  # failures told one by one

ET_EXEC, ET_DYN = 2, 3
PT_LOAD = 1
SHT_SYMTAB, SHT_NOBITS = 2, 8
SHF_EXECINSTR = 4
DEBUG_SECTIONS = (b".debug", b".zdebug", b".stab", b".gnu.debuglto_")
GO_SECTIONS = (b".note.go.buildid", b".go.buildinfo", b".gopclntab")

Identity = Tuple[int, int, int]  # class, byte order, machine
STRIPPED, FAILED = "stripped", "failed"


class Found(NamedTuple):
    """One file to look at, with all the names it was met under."""

    names: List[str]
    info: os.stat_result
    archive: bool


class Result(NamedTuple):
    """What became of one file: STRIPPED, FAILED or why it was left alone."""

    name: str
    outcome: str
    before: int
    after: int
    message: str = ""


class LeftAlone(Exception):
    """The reason, in words that fit behind a number."""


def walk(top: str) -> Iterator[Tuple[str, "List[os.DirEntry[str]]"]]:
    """Every directory below ``top`` with its files; never through symbolic links or into another file system."""
    device = os.stat(top).st_dev
    pending = [top]
    while pending:
        folder = pending.pop()
        files = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        files.append(entry)
                    # Mounts (caches, /proc) are no part of the image. One lstat a directory, none a file.
                    elif entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == device:
                        pending.append(entry.path)
        except OSError as error:
            say(sys.stderr, f"strip: not searched: {error}")
        yield folder, files


def search(tops: List[str]) -> Tuple[List[Found], Dict[str, os.stat_result]]:
    """What can be stripped by its first bytes, each inode once, and the directories it lies in as they were."""
    found = {}  # type: Dict[Tuple[int, int], Found]
    folders = {}  # type: Dict[str, os.stat_result]
    for top in tops:
        for folder, entries in walk(top):
            for entry in entries:
                try:
                    look(entry.path, found)
                except OSError:
                    continue  # unreadable, or gone meanwhile
                if folder not in folders:
                    folders[folder] = os.stat(folder)
    return sorted(found.values(), key=lambda file: -file.info.st_size), folders


def look(path: str, found: Dict[Tuple[int, int], Found]) -> None:
    """Add the file to ``found`` if it is an ELF file or a static archive."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        head = os.read(descriptor, 8)
        if head[:4] != ELF and head != ARCHIVE:
            return
        info = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    known = found.setdefault((info.st_dev, info.st_ino), Found([], info, head == ARCHIVE))
    if path not in known.names:  # a DIR inside another DIR
        known.names.append(path)


class ElfFile:
    """The tables of an ELF file in memory. Raises struct.error, IndexError or OverflowError for what is broken."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.identity = identity(data[:HEAD])
        self.wide = data[4] == 2
        self.order = "<" if data[5] == 1 else ">"
        self.type = self.unpack("H", 16)[0]
        self.segments_at, self.sections_at = self.unpack("QQ" if self.wide else "II", 32 if self.wide else 28)
        sizes = self.unpack("HHHHH", 54 if self.wide else 42)
        self.segment_size, self.segment_count, self.section_size, self.section_count, self.names_index = sizes

    def unpack(self, layout: str, offset: int) -> Tuple[int, ...]:
        return struct.unpack_from(self.order + layout, self.data, offset)

    def segments(self) -> Iterator[Tuple[int, int, int, int, int, int]]:
        """Type, flags, offset, address, size in the file, size in memory."""
        for number in range(self.segment_count):
            at = self.segments_at + number * self.segment_size
            if self.wide:
                kind, flags, offset, address, _, size, memory = self.unpack("IIQQQQQ", at)
            else:
                kind, offset, address, _, size, memory, flags = self.unpack("IIIIIII", at)
            yield kind, flags, offset, address, size, memory

    def sections(self) -> List[Tuple[bytes, int, int, int, int]]:
        """Name, type, flags, offset and size of each."""
        raw = []
        for number in range(self.section_count):
            at = self.sections_at + number * self.section_size
            name, kind, flags, _, offset, size = self.unpack("IIQQQQ" if self.wide else "IIIIII", at)
            raw.append((name, kind, flags, offset, size))
        table = raw[self.names_index][3]
        return [
            (self.data[table + name : table + name + 256].partition(b"\0")[0], kind, flags, offset, size)
            for name, kind, flags, offset, size in raw
        ]

    def end(self, sections: List[Tuple[bytes, int, int, int, int]]) -> int:
        """Where the last thing that the tables name ends."""
        ends = [self.sections_at + self.section_count * self.section_size]
        ends += [offset + size for _, kind, _, offset, size in sections if kind != SHT_NOBITS]
        ends += [offset + size for _, _, offset, _, size, _ in self.segments()]
        return max(ends)


def identity(head: bytes) -> Optional[Identity]:
    """Class, byte order and machine of an ELF file; None for anything else."""
    if len(head) < 20 or head[:4] != ELF:
        return None
    order = ">" if head[5] == 2 else "<"
    return head[4], head[5], struct.unpack_from(order + "H", head, 18)[0]


def own_identity() -> Optional[Identity]:
    """What this Python runs on is what the image is for."""
    for path in (os.path.realpath(sys.executable or ""), "/proc/self/exe"):
        try:
            with open(path, "rb") as file:
                mine = identity(file.read(HEAD))
        except OSError:
            continue
        if mine:
            return mine
    return None


def check_elf(data: mmap.mmap, mine: Optional[Identity]) -> None:
    """Raise LeftAlone unless this is a program or shared library that strip can make smaller without harm."""
    elf = ElfFile(data)
    if mine and elf.identity != mine:
        raise LeftAlone("of another architecture")
    if elf.type not in (ET_EXEC, ET_DYN):
        raise LeftAlone("object files")
    if not elf.section_count or not elf.sections_at:
        raise LeftAlone("already stripped")
    sections = elf.sections()
    if any(name in GO_SECTIONS for name, _, _, _, _ in sections):
        raise LeftAlone("of Go")
    if any(kind == SHT_NOBITS and flags & SHF_EXECINSTR for _, kind, flags, _, _ in sections):
        raise LeftAlone("debug information")
    end = elf.end(sections)
    if end != len(data):
        raise LeftAlone("with data behind their end" if end < len(data) else "broken")
    if not any(kind == SHT_SYMTAB or name.startswith(DEBUG_SECTIONS) for name, kind, _, _, _ in sections):
        raise LeftAlone("already stripped")


def members(data: mmap.mmap) -> List[Tuple[bytes, bytes]]:
    """Name and first bytes of each member of a static archive."""
    found = []
    at = len(ARCHIVE)
    while at < len(data):
        header = data[at : at + 60]
        if len(header) < 60 or header[58:] != b"`\n":
            raise LeftAlone("archives of another kind")
        found.append((header[:16].rstrip(), data[at + 60 : at + 60 + HEAD]))
        size = int(header[48:58])
        at += 60 + size + size % 2
    return found


def check_archive(data: mmap.mmap, mine: Optional[Identity]) -> None:
    """Raise LeftAlone unless all members are objects for this machine, with debug information."""
    for name, head in members(data):
        if name in (b"/", b"//", b"/SYM64/"):
            continue
        its = identity(head)
        if its is None:
            raise LeftAlone("archives of another kind")  # Rust's metadata, LLVM's bitcode
        if mine and its != mine:
            raise LeftAlone("of another architecture")
    if data.find(b".gnu.lto_") >= 0:
        raise LeftAlone("archives for link-time optimization")  # strip takes what the linker still needs
    if not any(data.find(name) >= 0 for name in DEBUG_SECTIONS):
        raise LeftAlone("already stripped")


def loaded(elf: ElfFile) -> Iterator[Tuple[Tuple[int, ...], int, int]]:
    """What is loaded: where to and how, and from which bytes, without the headers, which strip may rewrite."""
    table = elf.segments_at, elf.segments_at + elf.segment_count * elf.segment_size
    for kind, flags, offset, address, size, memory in elf.segments():
        if kind != PT_LOAD:
            continue
        at, end = offset, offset + size
        for start, stop in sorted([(0, HEAD), table]):
            if start < end and stop > at:
                if start > at:
                    yield (flags, address, size, memory, at - offset, start - offset), at, start
                at = min(stop, end)
        yield (flags, address, size, memory, at - offset, end - offset), at, end


def same_program(old: ElfFile, new: ElfFile) -> bool:
    """Whether the kernel and the loader get the same from both; patched files are where strip may err."""
    first, second = list(loaded(old)), list(loaded(new))
    if [place for place, _, _ in first] != [place for place, _, _ in second]:
        return False
    step = 1 << 20
    for number, (_, one, end) in enumerate(first):
        other = second[number][1]
        for at in range(0, end - one, step):
            stop = min(at + step, end - one)
            if old.data[one + at : one + stop] != new.data[other + at : other + stop]:
                return False
    return True


def strip_file(file: Found, strip: str, mine: Optional[Identity]) -> Result:
    """Strip one file, whatever it is like."""
    name, size = file.names[0], file.info.st_size
    new = ""
    try:
        with open(name, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            (check_archive if file.archive else check_elf)(data, mine)
            descriptor, new = tempfile.mkstemp(prefix=".hpc3-strip-", dir=os.path.dirname(name))
            os.close(descriptor)
            call_strip(strip, name, new, file.archive)
            check_result(data, new, file.archive)
        after = os.stat(new).st_size
        put(new, file)
        return Result(name, STRIPPED, size, after)
    except LeftAlone as reason:
        return Result(name, str(reason), size, size)
    except (struct.error, IndexError, OverflowError):
        return Result(name, "broken", size, size)
    except Exception as error:  # whatever it is, one odd file fails no build
        return Result(name, FAILED, size, size, str(error))
    finally:
        if new and os.path.lexists(new):
            os.unlink(new)


def call_strip(strip: str, name: str, new: str, archive: bool) -> None:
    option = "--strip-debug" if archive else "--strip-unneeded"
    done = subprocess.run(
        [strip, "-p", option, "-o", new, os.path.abspath(name)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ, LC_ALL="C"),
        timeout=TIME_LIMIT,
    )
    if done.returncode:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        raise ValueError(f"strip ended with {done.returncode}: {lines[-1]}")


def check_result(old: mmap.mmap, new: str, archive: bool) -> None:
    """Raise unless what strip made is smaller and does the same."""
    with open(new, "rb") as opened:
        if not 0 < os.fstat(opened.fileno()).st_size < len(old):
            raise LeftAlone("not made smaller")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            same = len(members(old)) == len(members(data)) if archive else same_program(ElfFile(old), ElfFile(data))
    if not same:
        raise LeftAlone("that strip would have changed")


def put(new: str, file: Found) -> None:
    """Give ``new`` the file's place under all its names, and its attributes."""
    name, info = file.names[0], file.info
    made = os.stat(new)
    if (made.st_uid, made.st_gid) != (info.st_uid, info.st_gid):
        os.chown(new, info.st_uid, info.st_gid)
    shutil.copystat(name, new)  # after chown, which clears set-user-id and capabilities
    os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
    if len(file.names) < info.st_nlink:
        overwrite(new, name)
        return
    for other in file.names[1:]:
        link = tempfile.mktemp(prefix=".hpc3-strip-", dir=os.path.dirname(other))  # link refuses to overwrite
        os.link(new, link)
        os.replace(link, other)
    os.replace(new, name)


def overwrite(new: str, name: str) -> None:
    """Change the content in place: the file has names outside the directories given, which must stay the same file."""
    if not os.access(name, os.W_OK):
        os.chmod(name, 0o600 | os.stat(name).st_mode & 0o7777)
    with open(new, "rb") as source, open(name, "r+b") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        target.truncate()
    shutil.copystat(new, name)


def say(stream: TextIO, text: str) -> None:
    """Print, with file names that no encoding knows."""
    encoding = stream.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def report(results: List[Result], cores: int) -> None:
    failed = [result for result in results if result.outcome == FAILED]
    for result in failed[:NAMED]:
        say(sys.stderr, f"strip: left as it was: {result.name}: {result.message}")
    if len(failed) > NAMED:
        say(sys.stderr, f"strip: and {len(failed) - NAMED} more")
    before = sum(result.before for result in results)
    saved = before - sum(result.after for result in results)
    outcomes = Counter(result.outcome for result in results)
    done = outcomes.pop(STRIPPED, 0)
    outcomes.pop(FAILED, 0)
    text = f"strip: {done} of {len(results)} files stripped on {cores} cores"
    text += f", {megabytes(saved)} saved of {megabytes(before)}"
    if outcomes:
        text += "; left alone: " + ", ".join(f"{count} {why}" for why, count in outcomes.most_common())
    if failed:
        text += f"; {len(failed)} failed"
    say(sys.stdout, text)


def main(tops: List[str]) -> int:
    missing = [top for top in tops if not os.path.isdir(top)]
    if missing or not tops:
        say(sys.stderr, "strip: no such directory: " + ", ".join(missing) if missing else "usage: strip.py DIR...")
        return 2
    strip = shutil.which("strip")
    if not strip:
        say(sys.stderr, "strip: the command strip is missing: install binutils in the builder, or set strip: false")
        return 3
    command, mine, cores = strip, own_identity(), len(os.sched_getaffinity(0))
    found, folders = search([os.path.realpath(top) for top in tops])
    with ThreadPoolExecutor(cores) as pool:  # threads suffice: strip's processes do the work
        results = list(pool.map(lambda file: strip_file(file, command, mine), found))
    for folder, info in folders.items():
        if os.stat(folder).st_mtime_ns != info.st_mtime_ns:
            os.utime(folder, ns=(info.st_atime_ns, info.st_mtime_ns))
    report(results, cores)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
