import pytest
import yaml

from pipeline.settings import load
from pipeline.settings.strict_yaml import MOST_BYTES, UnsupportedYamlError, YamlSyntaxError, dump, parse, read


def test_values_are_those_of_yaml_1_2_and_the_setting_decides_about_text():
    text = "a: 7\nb: 1e-3\nc: true\nd: ~\ne: [x, -2]\nf: 010\ng: 1:30\nh: no\ni: 2024-01-01\n"
    assert parse(text).value == {
        "a": 7,
        "b": 0.001,
        "c": True,
        "d": None,
        "e": ["x", -2],
        "f": "010",
        "g": "1:30",
        "h": "no",
        "i": "2024-01-01",
    }
    assert load("sample", ["augment.flip=yes", "name=no", "training.epochs=010"], {}).augment.flip is True
    assert load("sample", ["name=no"], {}).name == "no"
    assert load("sample", ["name=2024-01-01"], {}).name == "2024-01-01"
    assert load("sample", ["training.epochs=010"], {}).training.epochs == 10


def test_every_value_has_its_line():
    assert parse("a:\n  b: 1\n  c:\n  - x\n  - y\n").lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "3:1: a appears again, after line 1"),
        ("g:\n  a: 1\n  a: 1", "3:3: g.a appears again, after line 2"),
        ("{a: 1, a: 2}", "1:8: a appears again"),
        ("a: &x [1]\nb: *x", "1:4: anchors"),
        ("a: !!python/object/apply:os.system [ls]", "1:4: tags"),
        ("a: !!int 3", "1:4: tags"),
        ("a: 1\n---\nb: 2", "2:1: a second document"),
        ("[" * 5000, "more than 16 levels of nesting"),
        ("- " * 5000, "more than 16 levels of nesting"),
        ("? [a]\n: 1", "1:3: a key must be text"),
        ("a:\n- " + "9" * 5000, "2:3: a number of 5,000 characters"),
        ("a: 0." + "9" * 5000, "1:4: a number of 5,002 characters"),
        (r'a: "x\0y"', r"1:4: character U\+0000"),
        (r'a: "\e[31m"', r"1:4: character U\+001B"),
        (r'a: "\ud800"', r"1:4: character U\+D800"),
        ("a" * (MOST_BYTES + 1), "more than 65,536 characters"),
    ],
)
def test_unsupported_yaml_is_rejected_with_its_line(text, message):
    with pytest.raises(UnsupportedYamlError, match=f"^{message}|^[0-9:]+ {message}"):
        parse(text)


@pytest.mark.parametrize(
    "text", ["a: 1\nb: [", "a: b: c", "a:\n\tb: 1", "a: 'x", '"\\UFFFFFFFF"', '"\\xzz"', "@", "%YAML 9\n---\na: 1"]
)
def test_invalid_yaml_is_reported_with_its_line(text):
    with pytest.raises(YamlSyntaxError, match=r"^\d+(:\d+)?: "):
        parse(text)


def test_bytes_that_are_not_utf_8_are_reported_and_a_byte_order_mark_is_skipped(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(YamlSyntaxError, match=r"^2: byte 0xe9 is not UTF-8: save the file as UTF-8"):
        read(file)
    file.write_bytes("\ufeffa: 1".encode())
    assert read(file).value == {"a": 1}


@pytest.mark.parametrize(
    "text", ["1e5", "-1e-3", "1.", "no", "010", "1:30", "2024-01-01", "~", "0x1f", ".inf", "\u2028"]
)
def test_text_that_looks_like_another_type_stays_text(text):
    assert parse(dump({"name": text})).value == {"name": text} == yaml.safe_load(dump({"name": text}))
