"""Every text source: the bundled pair and its hashes, files good and bad, and what is said without a hub."""

import json
from pathlib import Path

import pytest

from salq.core.errors import ConfigError, TextError
from salq.core.settings import texts_dir
from salq.data import bundled
from salq.data.bundled import bundled_text, read_manifest, record
from salq.data.names import check_source, text_sources
from salq.data.sources import auto_source, load_text
from salq.data.text import ROLES, Role, sha256_of

WORDS = "The quick brown fox jumps over the lazy dog, and nobody minds.\n" * 40


@pytest.mark.parametrize("role", ROLES)
def test_bundled_texts_are_what_the_manifest_says(role: Role) -> None:
    text, entry = bundled_text(role), read_manifest()[role]
    assert text.sha256 == entry["sha256"] == sha256_of(text.content)
    assert entry["bytes"] == len(text.content.encode()) > 60_000
    assert text.licence
    assert text.origin
    assert "\ufffd" not in text.content
    assert "\r" not in text.content


def test_bundled_texts_share_no_line() -> None:
    lines = [{line for line in bundled_text(role).content.splitlines() if len(line) > 20} for role in ROLES]
    assert not lines[0] & lines[1]


def test_auto_is_bundled_without_a_hub() -> None:
    assert auto_source() == "bundled"
    assert load_text("auto", "evaluation") == load_text("bundled", "evaluation") == bundled_text("evaluation")


def test_auto_is_wikitext2_once_it_is_here() -> None:
    texts_dir().mkdir(parents=True)
    (texts_dir() / "wikitext2-test.txt").write_text(WORDS)
    assert (auto_source("evaluation"), auto_source("calibration")) == ("wikitext2", "bundled")
    text = load_text("auto", "evaluation")
    assert (text.name, text.licence) == ("wikitext2 (test)", "CC BY-SA 3.0")


@pytest.mark.parametrize(("source", "title"), [("wikitext2", "WikiText-2"), ("c4", "C4")])
def test_corpora_without_a_hub_say_so(source: str, title: str) -> None:
    with pytest.raises(TextError, match=rf"^{title}.*hub cannot be reached; use the bundled text, or your own UTF-8 file"):
        load_text(source, "evaluation")


def test_listed_sources_start_with_auto_and_are_all_understood() -> None:
    sources = dict(text_sources())
    assert list(sources) == ["auto", "bundled", "wikitext2", "c4", "self:20000", "chats:20000"]
    with pytest.raises(TextError, match="without a model"):
        load_text("self:20000")


def test_a_file_is_split_between_the_roles(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xef\xbb\xbf" + WORDS.encode())  # with a byte order mark, as some editors write
    calibration, evaluation = load_text(str(path), "calibration"), load_text(str(path), "evaluation")
    assert calibration.content + evaluation.content == WORDS
    assert evaluation.content.startswith("\nThe quick")
    assert 0.15 < len(evaluation.content) / len(WORDS) < 0.25
    assert (calibration.name, evaluation.name) == ("mine.txt (first 80 %)", "mine.txt (last 20 %)")


def test_a_file_that_nothing_was_calibrated_on_is_evaluated_whole(tmp_path: Path) -> None:
    mine, copied, other = tmp_path / "mine.txt", tmp_path / "copy.txt", tmp_path / "other.txt"
    for path, content in ((mine, WORDS), (copied, WORDS), (other, "Something else. " + WORDS)):
        path.write_text(content)
    for seen in ([], ["bundled"], ["self:100", "chats:100", "wikitext2"], [str(other)]):
        text = load_text(str(mine), "evaluation", calibrated_on=seen)
        assert (text.name, text.content) == ("mine.txt", WORDS)
    for seen in ([str(mine)], ["bundled", str(copied)], [str(tmp_path / "gone.txt")]):
        assert load_text(str(mine), "evaluation", calibrated_on=seen).name == "mine.txt (last 20 %)"
    assert load_text(str(mine), "calibration", calibrated_on=[]).name == "mine.txt (first 80 %)"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "mine.txt is empty"),
        (b" \n\t\n", "mine.txt is empty"),
        (b"caf\xe9 au lait", r"is not UTF-8 \(byte 3 is 0xe9\)"),
        (b"\xff\xfeh\x00", "is not UTF-8"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    for role in ROLES:
        for use in (load_text, check_source, check_source):  # a bad file stays bad when it is asked again
            with pytest.raises(TextError, match=complaint):
                use(str(path), role)


@pytest.mark.parametrize("source", ["no/such/file.txt", ".", "wikitext-103", "", "nul\0byte", "x" * 5000, "~nobody/x"])
def test_what_is_no_source_lists_the_sources(source: str) -> None:
    with pytest.raises(TextError, match=r"neither a readable file nor a known text source \(auto, bundled, wikitext2, c4"):
        load_text(source, "calibration")
    with pytest.raises(TextError, match=r"neither a readable file nor a known text source \(auto, bundled, wikitext2, c4"):
        check_source(source, "evaluation")


def test_what_can_be_used_is_nothing_to_complain_about_and_a_file_is_looked_at_again_when_it_changed(tmp_path: Path) -> None:
    for source, _ in text_sources():
        check_source(source, "calibration")
    path = tmp_path / "mine.txt"
    path.write_text(WORDS)
    for role in ROLES:
        check_source(str(path), role)
    path.write_bytes(b"caf\xe9")
    with pytest.raises(TextError, match="is not UTF-8"):
        check_source(str(path), "calibration")
    path.unlink()
    with pytest.raises(TextError, match="neither a readable file"):
        check_source(str(path), "calibration")


@pytest.mark.parametrize("source", ["self:0", "self:-3", "self:many", "self:1e3", "self:99999999999", "chats:0", "chats:many"])
def test_absurd_counts_of_own_words(source: str, tiny: object) -> None:
    with pytest.raises(TextError, match="write (self|chats):N with N from 1 to 1000000"):
        load_text(source, "calibration", tiny)  # type: ignore[arg-type]
    with pytest.raises(TextError, match="write (self|chats):N with N from 1 to 1000000"):
        check_source(source, "calibration")


def test_own_words_are_for_calibration_and_need_a_model() -> None:
    with pytest.raises(TextError, match="for calibration only"):
        load_text("self:100", "evaluation")
    with pytest.raises(TextError, match="for calibration only"):
        check_source("chats", "evaluation")
    with pytest.raises(TextError, match="without a model"):
        load_text("self:100", "calibration")


def test_unknown_role() -> None:
    with pytest.raises(ConfigError, match="use calibration or evaluation"):
        load_text("auto", "training")  # type: ignore[arg-type]


def test_a_public_host_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(WORDS)
    monkeypatch.setenv("SPACE_ID", "someone/salq")
    for source in (str(path), "/etc/passwd", "missing.txt"):
        with pytest.raises(TextError, match="files cannot be opened on a public host"):
            load_text(source, "calibration")


@pytest.fixture
def own_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Assets of this test's own, with both texts recorded."""
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    monkeypatch.setattr(bundled, "MANIFEST", tmp_path / "manifest.json")
    for role in ROLES:
        (tmp_path / f"{role}.txt").write_text(WORDS + role)
        record(role, title=f"{role} text", licence="CC0-1.0", made="by hand")
    return tmp_path


def test_a_changed_bundled_text_is_noticed(own_assets: Path) -> None:
    assert bundled_text("evaluation").content == WORDS + "evaluation"
    (own_assets / "evaluation.txt").write_text(WORDS)
    with pytest.raises(TextError, match="was changed"):
        bundled_text("evaluation")
    record("evaluation")
    assert bundled_text("evaluation").title == "evaluation text"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"calibration": {}, "evaluation": {}}'])
def test_a_damaged_manifest_is_one_sentence(own_assets: Path, content: str) -> None:
    (own_assets / "manifest.json").write_text(content)
    with pytest.raises(TextError, match="restore the assets folder"):
        bundled_text("calibration")


def test_a_missing_bundled_text_is_one_sentence(own_assets: Path) -> None:
    (own_assets / "calibration.txt").unlink()
    with pytest.raises(TextError, match="restore the assets folder"):
        bundled_text("calibration")
    assert json.loads((own_assets / "manifest.json").read_text())["evaluation"]["bytes"] > 0
