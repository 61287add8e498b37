"""Patch TFDV and ML Metadata so that they load on a Linux host older than the one their wheels were built on.

Both are published only as manylinux_2_39 wheels. Debian 12, Ubuntu 22.04 and RHEL 9 cannot load them, because these
systems lack a few symbols. Each of these symbols has an older equivalent there, or is never called. `make setup` runs
this script in the environment that it has just installed. The script renames each missing symbol to its equivalent. If
a missing symbol has no known equivalent, the script changes nothing and reports the symbol.

    python requirements/old_glibc.py            patch the extensions that need it, then load and use both
    python requirements/old_glibc.py check      only load and use both
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

# Symbols that a host may lack, with their equivalents.
TWINS = {
    # The C23 version also parses binary numbers such as "0b101". There is no other difference.
    "__isoc23_strtol": "strtol",
    "__isoc23_strtoul": "strtoul",
    "__isoc23_strtoll": "strtoll",
    "__isoc23_strtoull": "strtoull",
    # This symbol is referenced to require a libstdc++ that initialises the iostreams by itself. It is never called,
    # because neither extension uses iostreams such as std::cout. Any function without arguments can replace it.
    "_ZSt21ios_base_library_initv": "getpid",
    # It is called when an exception leaves a noexcept function, and ends the process, as std::terminate() does.
    "__cxa_call_terminate": "_ZSt9terminatev",
}

UNVERSIONED = 1  # VER_NDX_GLOBAL: the symbol binds to the host's default version
WEAK = 2  # VER_FLG_WEAK: the loader ignores that the host does not define this version


class RefusedError(Exception):
    """An extension cannot be patched, because the host lacks something that has no known equivalent."""


@cache
def host_versions(soname: str) -> set[str]:
    """Return the symbol versions (`GLIBC_2.36`, `CXXABI_1.3.13`, ...) that the host's copy of a library defines.

    Raises:
        RefusedError: if the host does not have the library.
    """
    import lief

    # The loader finds the same copy that the extension will use. It need not be that of the system: conda has its own
    # libstdc++.
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
    """Make one extension loadable on this host.

    Args:
        extension: the ELF file. It is replaced by a new file and never changed in place, because uv hard-links
            installed files to its cache.
        defined: returns the symbol versions that the host defines for the name of a library.

    Returns:
        The names of the renamed symbols; empty if the host lacks none.

    Raises:
        RefusedError: if the host lacks a symbol that is not in `TWINS`.
    """
    import lief

    binary = lief.ELF.parse(str(extension))
    if not isinstance(binary, lief.ELF.Binary):
        raise RefusedError(f"{extension} is not an ELF file")
    missing = {
        aux.other: aux  # the key is the index that symbols use, because two libraries may use the same version name
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
    # A version without symbols stands for a feature of the loader, such as GLIBC_ABI_DT_RELR, which cannot be replaced.
    unknown += [str(missing[index].name) for index in missing.keys() - {version.value for _, version in affected}]
    if unknown:
        lacking = ", ".join(sorted(unknown))
        raise RefusedError(f"{extension.name} needs {lacking}, which this host lacks and which has no known equivalent")

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
    """Return the extension modules of the two distributions in this environment."""
    files = (file for name in DISTRIBUTIONS for file in distribution(name).files or [])
    return [Path(str(file.locate())) for file in files if file.suffix == ".so"]


def is_old_host(system: str, machine: str, glibc: str) -> bool:
    """Return whether the wheels may fail to load on a host. They exist only for x86-64 Linux with glibc.

    Args:
        system: the operating system, as `platform.system` returns it.
        machine: the architecture, as `platform.machine` returns it.
        glibc: the version of glibc; empty for another C library.
    """
    version = tuple(int(part) for part in glibc.split(".")[:2]) if glibc else BUILT_FOR
    return system == "Linux" and machine == "x86_64" and version < BUILT_FOR


def use_tfdv(extension: Path) -> None:
    """Check both functions of TFDV's extension: infer a schema, and find a feature that the schema does not contain.

    The extension is loaded without its package, which would also import TensorFlow and Beam. That takes half a minute
    on a small machine, and does not test what was patched.
    """
    from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

    spec = importlib.util.spec_from_file_location(extension.stem, extension)
    if spec is None or spec.loader is None:
        raise ImportError(f"{extension} is not an extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def statistics(*features: str) -> bytes:
        dataset = statistics_pb2.DatasetFeatureStatistics(num_examples=3)
        for name in features:
            common = statistics_pb2.CommonStatistics(num_non_missing=3, min_num_values=1, max_num_values=1)
            number = statistics_pb2.NumericStatistics(common_stats=common, max=2)
            dataset.features.add(name=name, type=statistics_pb2.FeatureNameStatistics.INT, num_stats=number)
        return dataset.SerializeToString()

    schema = module.validation.InferSchema(statistics("label"), 0, False)
    unset = b""  # environment, previous span, serving, previous version, features needed, configuration
    found = module.validation.ValidateFeatureStatistics(statistics("label", "other"), schema, *[unset] * 6, False)
    if list(anomalies_pb2.Anomalies.FromString(found).anomaly_info) != ["other"]:
        raise RuntimeError("TFDV does not find the unknown feature")


def use_mlmd() -> None:
    """Check that ML Metadata can write a type to a store in memory and read it back."""
    from ml_metadata.metadata_store import MetadataStore
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.fake_database.SetInParent()
    store = MetadataStore(config)
    number = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="probe"))
    if [kind.id for kind in store.get_artifact_types()] != [number]:
        raise RuntimeError("ML Metadata does not return the type that was written")


def main() -> None:
    """Run the script."""
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
            sys.exit(f"old_glibc: {extension.name} was not changed: {error}")
        done = f"patched for glibc {glibc}: {', '.join(renamed)}" if renamed else "nothing to do, it loads unmodified"
        print(f"old_glibc: {extension.name}: {done}")
    # The check runs even if nothing was patched now, because an earlier run may have been stopped before the check.
    check = subprocess.run([sys.executable, __file__, "check"], capture_output=True, text=True)
    if check.returncode:
        sys.exit(f"old_glibc: the patched extensions do not work (exit {check.returncode}):\n{check.stderr[-2000:]}")
    print("old_glibc: TFDV and ML Metadata load and work")


if __name__ == "__main__":
    main()
