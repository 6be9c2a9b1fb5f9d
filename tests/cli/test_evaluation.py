"""`frozen-glyph eval`: what it refuses before it measures."""


def test_missing_data_folder_is_named_and_no_report_written(refused, experts, tmp_path):
    message = refused("eval", experts[0], "--data", tmp_path / "absent", "-o", tmp_path / "report")
    assert message.startswith(f"data folder '{tmp_path / 'absent'}' does not exist")
    assert not (tmp_path / "report").exists()
