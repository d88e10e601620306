"""A report's files: whole or not there, and for their owner alone."""

import json
import os
import stat
from pathlib import Path

import pytest

from runbooks.reports import files, html, markdown
from tests.unit import postmortem


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_document_becomes_three_files_with_one_name(tmp_path: Path) -> None:
    made = postmortem.ran()
    page = files.write(made, tmp_path)
    assert page.name == f"{made['run']['id']}.html"
    assert page.read_text(encoding="utf-8") == html.render(made)
    assert page.with_suffix(".md").read_text(encoding="utf-8") == markdown.render(made)
    assert json.loads(page.with_suffix(".json").read_text(encoding="utf-8")) == made
    assert len(list(tmp_path.iterdir())) == 3


def test_its_owner_alone_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "reports"
    before = os.umask(0)
    try:
        files.write(postmortem.audit(), folder)
    finally:
        os.umask(before)
    assert _mode(folder) == 0o700
    assert {_mode(path) for path in folder.iterdir()} == {0o600}


def test_a_later_report_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    made = postmortem.ran()
    page = files.write(made, tmp_path)
    page.write_text("torn")
    assert files.write(made, tmp_path) == page
    assert page.read_text(encoding="utf-8") == html.render(made)


def test_nothing_half_written_is_left_where_a_file_cannot_be_put(tmp_path: Path) -> None:
    made = postmortem.ran()
    (tmp_path / f"{made['run']['id']}.json").mkdir()
    with pytest.raises(OSError):
        files.write(made, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    page = files.write({**postmortem.audit(), "audit": "../../escaped"}, folder)
    assert page == folder / "escaped.html"
