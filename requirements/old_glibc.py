"""Lets TFDV and ML Metadata load on a Linux host older than the one their wheels were built on.

Both come only as manylinux_2_39 wheels, and so refuse to load on Debian 12, Ubuntu 22.04 or RHEL 9, for the want of a
few symbols that either have an older twin there or are never called. `make setup` runs this in the environment it just
installed: each missing symbol is renamed to its twin. A symbol we do not know is refused by name, never guessed.

    python requirements/old_glibc.py            patch what needs it, then load and use both extensions
    python requirements/old_glibc.py check      only load and use them
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

BUILT_FOR = (2, 39)  # the glibc of the wheels
DISTRIBUTIONS = ("tensorflow-data-validation", "ml-metadata")

# What a host may lack, and what stands in for it.
TWINS = {
    # C23's number parsing also reads "0b101"; nothing else differs.
    "__isoc23_strtol": "strtol",
    "__isoc23_strtoul": "strtoul",
    "__isoc23_strtoll": "strtoll",
    "__isoc23_strtoull": "strtoull",
    # Only referenced, to demand a libstdc++ that sets up the iostreams by itself, and never called: neither extension
    # touches std::cout and its like. Any function without arguments will do.
    "_ZSt21ios_base_library_initv": "getpid",
    # An exception left a noexcept function: the process ends either way, here by std::terminate().
    "__cxa_call_terminate": "_ZSt9terminatev",
}

UNVERSIONED = 1  # VER_NDX_GLOBAL: the symbol binds to the host's default version
WEAK = 2  # VER_FLG_WEAK: the loader goes on when the host does not define this version


class RefusedError(Exception):
    """The host lacks something that has no known twin; the message names it."""


@cache
def host_versions(soname: str) -> set[str]:
    """The symbol versions (`GLIBC_2.36`, `CXXABI_1.3.13`, ...) that the host's copy of a library defines."""
    import lief

    # Asked of the loader, so that it is the copy the extension will get (conda brings its own libstdc++).
    link_map = ctypes.c_void_p()
    try:
        handle = ctypes.c_void_p(ctypes.CDLL(soname)._handle)
    except OSError as error:
        raise RefusedError(f"the host lacks a library: {error}") from error
    ctypes.CDLL(None).dlinfo(handle, 2, ctypes.byref(link_map))  # 2 is RTLD_DI_LINKMAP: {address, path, ...}
    path = os.fsdecode(ctypes.cast(link_map, ctypes.POINTER(ctypes.c_char_p))[1])
    library = lief.ELF.parse(path)
    if not isinstance(library, lief.ELF.Binary):
        raise RefusedError(f"{path} is not an ELF file")
    return {str(aux.name) for definition in library.symbols_version_definition for aux in definition.auxiliary_symbols}


def patch(extension: Path, defined: Callable[[str], set[str]] = host_versions) -> list[str]:
    """Makes one extension loadable and returns the symbols it renamed: none when the host lacks nothing.

    Args:
        extension: The ELF file; replaced by a new file, never written into (uv hard-links it to its cache).
        defined: Gives the versions that the host defines for a library name.

    Raises:
        RefusedError: The file needs a version that the host lacks, for something that is not in `TWINS`.
    """
    import lief

    binary = lief.ELF.parse(str(extension))
    if not isinstance(binary, lief.ELF.Binary):
        raise RefusedError(f"{extension} is not an ELF file")
    missing = {
        aux.other: aux  # the index by which symbols refer to it: two libraries may share a version's name
        for needed in binary.symbols_version_requirement
        for aux in needed.get_auxiliary_symbols()
        if not aux.flags & WEAK and aux.name not in defined(str(needed.name))
    }
    if not missing:
        return []

    versions = [(symbol, symbol.symbol_version) for symbol in binary.dynamic_symbols]
    affected = [(symbol, version) for symbol, version in versions if version and version.value in missing]

    unknown = [
        f"{symbol.name!s}@{missing[version.value].name!s}" for symbol, version in affected if symbol.name not in TWINS
    ]
    # A version without symbols stands for a loader feature (GLIBC_ABI_DT_RELR): there is no way round that one.
    unknown += [str(missing[index].name) for index in missing.keys() - {version.value for _, version in affected}]
    if unknown:
        lacking = ", ".join(sorted(unknown))
        raise RefusedError(f"{extension.name} needs {lacking}, which this host lacks and nothing stands in for")

    renamed = sorted(str(symbol.name) for symbol, _ in affected)
    for symbol, version in affected:
        symbol.name = TWINS[str(symbol.name)]
        version.value = UNVERSIONED
    for requirement in missing.values():
        requirement.flags = WEAK
    replacement = extension.with_suffix(".patched")
    binary.write(str(replacement))
    shutil.copymode(extension, replacement)
    replacement.replace(extension)
    return renamed


def extensions() -> list[Path]:
    """The extension modules that the running interpreter has of the two distributions."""
    files = (file for name in DISTRIBUTIONS for file in distribution(name).files or [])
    return [Path(str(file.locate())) for file in files if file.suffix == ".so"]


def is_old_host(system: str, machine: str, glibc: str) -> bool:
    """Whether the wheels may fail to load here: they exist for x86-64 Linux with glibc only."""
    version = tuple(int(part) for part in glibc.split(".")[:2]) if glibc else BUILT_FOR
    return system == "Linux" and machine == "x86_64" and version < BUILT_FOR


def use_tfdv(extension: Path) -> None:
    """Infers a schema and finds a feature that it does not know: the two things the extension does.

    The extension is loaded by itself. Its package would bring in TensorFlow and Beam, half a minute of imports on a
    small machine, and none of that is what was patched.
    """
    from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

    spec = importlib.util.spec_from_file_location(extension.stem, extension)
    if spec is None or spec.loader is None:
        raise ImportError(f"{extension} is not an extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def statistics(*features: str) -> bytes:
        one = statistics_pb2.DatasetFeatureStatistics(num_examples=3)
        for name in features:
            common = statistics_pb2.CommonStatistics(num_non_missing=3, min_num_values=1, max_num_values=1)
            number = statistics_pb2.NumericStatistics(common_stats=common, max=2)
            one.features.add(name=name, type=statistics_pb2.FeatureNameStatistics.INT, num_stats=number)
        return one.SerializeToString()

    schema = module.validation.InferSchema(statistics("label"), 0, False)
    unset = b""  # environment, previous span, serving, previous version, features needed, configuration
    found = module.validation.ValidateFeatureStatistics(statistics("label", "other"), schema, *[unset] * 6, False)
    if list(anomalies_pb2.Anomalies.FromString(found).anomaly_info) != ["other"]:
        raise RuntimeError("TFDV does not find the unknown feature")


def use_mlmd() -> None:
    """Puts a type into a store in memory and reads it back."""
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.fake_database.SetInParent()
    store = MetadataStore(config)
    number = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="probe"))
    if [kind.id for kind in store.get_artifact_types()] != [number]:
        raise RuntimeError("ML Metadata does not give back what was put")


def main() -> None:
    if sys.argv[1:] == ["check"]:
        use_tfdv(next(path for path in extensions() if path.stem == "tensorflow_data_validation_extension"))
        use_mlmd()
        return
    libc, glibc = platform.libc_ver()
    if not is_old_host(platform.system(), platform.machine(), glibc if libc == "glibc" else ""):
        print(f"old_glibc: nothing to do on {platform.system()} {platform.machine()} {libc} {glibc}".rstrip())
        return
    for extension in extensions():
        try:
            renamed = patch(extension)
        except RefusedError as error:
            sys.exit(f"old_glibc: refused, file left as it was: {error}")
        done = f"patched for glibc {glibc}: {', '.join(renamed)}" if renamed else "nothing to do, loads as it is"
        print(f"old_glibc: {extension.name}: {done}")
    # Also when nothing was patched just now: an earlier run may have been stopped before this line.
    check = subprocess.run([sys.executable, __file__, "check"], capture_output=True, text=True)
    if check.returncode:
        sys.exit(f"old_glibc: patched, yet they do not work (exit {check.returncode}):\n{check.stderr[-2000:]}")
    print("old_glibc: TFDV and ML Metadata load and work")


if __name__ == "__main__":
    main()
