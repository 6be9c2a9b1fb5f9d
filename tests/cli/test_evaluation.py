"""`frozen-glyph eval`: what it refuses before it measures; `show-experts`: what it prints and writes."""

import re


def test_missing_data_folder_is_named_and_no_report_written(refused, experts, tmp_path):
    message = refused("eval", experts[0], "--data", tmp_path / "absent", "-o", tmp_path / "report")
    assert message.startswith(f"data folder '{tmp_path / 'absent'}' does not exist")
    assert not (tmp_path / "report").exists()


def test_show_experts_prints_the_text_and_writes_a_page(run, merged_folder, tmp_path):
    """The text and its legend, whole; the page holds them too."""
    code, out, err = run("show-experts", merged_folder, "The cat [on] <it>", "-o", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert "The cat [on] <it>" in out
    assert "under evidence:  ru   zh" in out
    page = re.sub("<[^>]*>", "", (tmp_path / "page.html").read_text("utf-8"))
    assert "The cat [on] &lt;it&gt;" in page
