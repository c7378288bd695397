from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionforge.core.errors import DataError
from lesionforge.plugins.data.exporting import write_table
from lesionforge.plugins.data.layout import bare_id
from lesionforge.plugins.data.tables import read_captions, read_rows, read_table

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t"), max_size=12).map(str.strip)


@given(st.dictionaries(CELLS.filter(bool).filter(lambda text: bare_id(text) == text), st.tuples(CELLS, CELLS)))
def test_tables_are_read_as_they_were_written(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        written = [{"image_id": image_id, "label": a, "site": b} for image_id, (a, b) in rows.items()]
        write_table(path, ["image_id", "label", "site"], written)
        assert read_table(path) == {image_id: {"label": a, "site": b} for image_id, (a, b) in rows.items()}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_text_is_a_table_or_refused_in_one_line(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        path.write_text(text, encoding="utf-8", newline="")
        for read in (read_table, read_captions):
            try:
                read(path)
            except DataError as error:
                assert str(path) in str(error) and str(error).isprintable()


def test_byte_order_marks_tabs_blank_lines_and_suffixes(tmp_path):
    path = tmp_path / "table.tab"
    path.write_text('image_id\tdx\n\nISIC_1.jpg\t"nv"\n \t \n', encoding="utf-8-sig")
    assert read_table(path) == {"ISIC_1": {"dx": "nv"}}


def test_rows_may_repeat_where_no_id_is_asked_for(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("a,b\n1,2\n1,3\n")
    assert list(read_rows(path, required=["a", "b"])) == [(2, {"a": "1", "b": "2"}), (3, {"a": "1", "b": "3"})]


def test_captions_in_their_two_shapes(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text('{"a.jpg": "one", "b": {"caption": "two", "model": "x"}}')
    assert read_captions(path) == {"a": "one", "b": "two"}
    path.write_text('[{"image": "a", "caption": "one"}, {"image": "a.png", "caption": "other"}]')
    with pytest.raises(DataError, match="two captions for image id 'a'"):
        read_captions(path)


def test_an_unreadable_table_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_table(tmp_path)
    with pytest.raises(DataError, match=r"cannot read .*absent\.csv: No such file"):
        read_table(tmp_path / "absent.csv")
