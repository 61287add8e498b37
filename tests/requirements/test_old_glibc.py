"""Small shared objects that are linked against newer libraries than the host has, which old_glibc.py patches."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "requirements" / "old_glibc.py"
spec = importlib.util.spec_from_file_location("old_glibc", SCRIPT)
old_glibc = importlib.util.module_from_spec(spec)
spec.loader.exec_module(old_glibc)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="ELF files are Linux's"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="builds its shared objects with gcc"),
]

# Two libraries of the host. Their new versions define the functions below, with the version name NEW_1.
LIBRARIES = {
    "liba.so.1": "long __isoc23_strtol(const char *s, char **e, int b) { return -1; } int future(void) { return -1; }",
    "libb.so.1": "unsigned long __isoc23_strtoul(const char *s, char **e, int b) { return 1; }",
}
SUM = """
long __isoc23_strtol(const char *, char **, int); unsigned long __isoc23_strtoul(const char *, char **, int);
long sum(const char *a, const char *b) { return __isoc23_strtol(a, 0, 10) + (long)__isoc23_strtoul(b, 0, 10); }
"""
SUM_OF_THE_FUTURE = SUM + "int future(void); int tomorrow(void) { return future(); }"
POINTERS = "int abs(int); static int x, y; int *pointers[] = {&x, &y}; int use(void) { return abs(x); }"


def compile_shared(source: str, target: Path, *options: object) -> Path:
    command = ["gcc", "-shared", "-fPIC", "-fno-builtin", "-x", "c", "-", "-o", target, *options]
    subprocess.run(list(map(str, command)), input=source, text=True, check=True)
    return target


def host_libraries(folder: Path, version: str) -> list[Path]:
    """Compile the two libraries, with all functions under this version name. OLD_1 has none of the functions."""
    script = folder / "versions"
    script.write_text(f"{version} {{ global: *; }};")
    sources = LIBRARIES.items() if version == "NEW_1" else ((name, "int old(void) { return 0; }") for name in LIBRARIES)
    return [
        compile_shared(source, folder / name, f"-Wl,-soname,{name}", f"-Wl,--version-script={script}", "-x", "none")
        for name, source in sources
    ]


@pytest.fixture
def build(tmp_path):
    """Function that builds an extension with the new libraries, and then replaces them with the old ones."""

    def build_extension(source: str) -> Path:
        libraries = host_libraries(tmp_path, "NEW_1")
        options = ["-x", "none", *libraries, "-Wl,-rpath,$ORIGIN", "-Wl,-z,now"]
        extension = compile_shared(source, tmp_path / "extension.so", *options)
        host_libraries(tmp_path, "OLD_1")
        return extension

    return build_extension


def old_host(soname: str) -> set[str]:
    return {"OLD_1"} if soname in LIBRARIES else old_glibc.host_versions(soname)


def new_host(soname: str) -> set[str]:
    return {"NEW_1"} if soname in LIBRARIES else old_glibc.host_versions(soname)


def identity(file: Path) -> tuple[int, int, bytes]:
    """Return values that change if the file is written to or replaced."""
    return file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes()


def load_and_sum(extension: Path) -> subprocess.CompletedProcess:
    code = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).sum(b'40', b'2'))"
    return subprocess.run([sys.executable, "-c", code, str(extension)], capture_output=True, text=True)


def test_a_patched_extension_loads_and_calls_the_older_twins(build):
    extension = build(SUM)
    assert "version `NEW_1' not found" in load_and_sum(extension).stderr

    assert old_glibc.patch(extension, old_host) == ["__isoc23_strtol", "__isoc23_strtoul"]

    assert load_and_sum(extension).stdout == "42\n"


def test_a_second_run_changes_nothing(build):
    extension = build(SUM)
    old_glibc.patch(extension, old_host)
    before = identity(extension)

    assert old_glibc.patch(extension, old_host) == []

    assert identity(extension) == before


def test_an_unknown_symbol_is_refused_by_name_and_the_file_left(build):
    extension = build(SUM_OF_THE_FUTURE)
    content, files = extension.read_bytes(), sorted(extension.parent.iterdir())

    with pytest.raises(old_glibc.RefusedError, match=r"extension\.so needs future@NEW_1, which this host lacks"):
        old_glibc.patch(extension, old_host)

    assert extension.read_bytes() == content
    assert sorted(extension.parent.iterdir()) == files


def test_a_missing_loader_feature_is_refused(tmp_path):
    extension = compile_shared(POINTERS, tmp_path / "extension.so", "-Wl,-z,pack-relative-relocs")
    if b"GLIBC_ABI_DT_RELR" not in extension.read_bytes():
        pytest.skip("this linker cannot pack relative relocations")
    content = extension.read_bytes()

    with pytest.raises(old_glibc.RefusedError, match="needs GLIBC_ABI_DT_RELR"):
        old_glibc.patch(extension, lambda soname: old_glibc.host_versions(soname) - {"GLIBC_ABI_DT_RELR"})

    assert extension.read_bytes() == content


def test_a_host_that_lacks_nothing_is_left_alone(build):
    extension = build(SUM_OF_THE_FUTURE)
    before = identity(extension)

    assert old_glibc.patch(extension, new_host) == []

    assert identity(extension) == before


def test_the_other_end_of_a_hard_link_keeps_its_content(build, tmp_path):
    extension = build(SUM)
    extension.chmod(0o755)
    cached = tmp_path / "cached.so"
    cached.hardlink_to(extension)
    content = cached.read_bytes()

    old_glibc.patch(extension, old_host)

    assert cached.read_bytes() == content
    assert extension.read_bytes() != content
    assert extension.stat().st_mode == cached.stat().st_mode


def test_something_else_than_an_elf_file_is_refused(tmp_path):
    text = tmp_path / "extension.so"
    text.write_text("not an ELF file")
    with pytest.raises(old_glibc.RefusedError, match="is not an ELF file"):
        old_glibc.patch(text)


def test_host_versions_are_those_of_the_loaded_library(tmp_path):
    library, _ = host_libraries(tmp_path, "NEW_1")
    assert old_glibc.host_versions(str(library)) >= {"NEW_1"}
    assert any(version.startswith("GLIBC_2.") for version in old_glibc.host_versions("libc.so.6"))
    with pytest.raises(old_glibc.RefusedError, match=r"libnowhere\.so\.7"):
        old_glibc.host_versions("libnowhere.so.7")


@pytest.mark.parametrize(
    ("system", "machine", "glibc", "old"),
    [
        ("Linux", "x86_64", "2.36", True),
        ("Linux", "x86_64", "2.9", True),
        ("Linux", "x86_64", "2.39", False),
        ("Linux", "x86_64", "2.41", False),
        ("Linux", "x86_64", "", False),  # musl
        ("Linux", "aarch64", "2.36", False),
        ("Darwin", "x86_64", "", False),
    ],
)
def test_which_hosts_are_old(system, machine, glibc, old):
    assert old_glibc.is_old_host(system, machine, glibc) is old


def test_the_installed_extensions_need_nothing_more_and_work():
    run = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "nothing to do" in run.stdout
    assert "patched" not in run.stdout
