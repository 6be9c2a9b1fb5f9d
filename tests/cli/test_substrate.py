"""`frozen-glyph substrate build`, `name`, `inspect`, `show` and `neighbors`: what they write, list and refuse."""

import json


def test_build_from_text_and_from_tokenizer_give_one_substrate(files, run, font_file):
    build = ("substrate", "build", "--font", font_file, "--width", "48")
    code, from_text, _ = run(*build, "--text", "text.txt", "--vocab", "300", "-o", "built")
    again, from_tokenizer, _ = run(*build, "--tokenizer", "built", "-o", "again")
    assert (code, again) == (0, 0)
    assert from_text.split()[-1] == from_tokenizer.split()[-1] != ""


def test_inspect_show_and_neighbors(files, run, font_file):
    build = ("substrate", "build", "--font", font_file, "--width", "48", "--text", "text.txt", "--vocab", "300")
    run(*build, "-o", "built")
    facts = json.loads(run("substrate", "inspect", "built")[1])
    assert facts["collisions"]["remaining"] == 0 and facts["width"] == 48
    listed = run("substrate", "neighbors", "built", "a", "--count", "3")[1].splitlines()
    assert len(listed) == 3


def test_text_and_tokenizer_exclude_each_other(refused, files):
    assert refused("substrate", "build", "-o", "x").startswith("give either --text")
    both = ("substrate", "build", "--text", "text.txt", "--tokenizer", "glyphs", "-o", "x")
    assert refused(*both).startswith("give either --text")


def test_font_that_is_not_a_font(refused, files):
    (files / "bad.hex").write_text("no font", "utf-8")
    assert "bad.hex" in refused("substrate", "build", "--text", "text.txt", "--font", "bad.hex", "-o", "x")
    assert not (files / "x").exists()


def test_options_go_before_the_config(files, run, refused, font_file):
    (files / "small.yaml").write_text(f"vocab: 300\nwidth: 48\nfont: {font_file}\n")
    code, out, _ = run("substrate", "build", "--config", "small.yaml", "--text", "text.txt", "-o", "a")
    assert code == 0 and out.startswith("a: 300 tokens x 48, ")
    code, out, _ = run(
        "substrate", "build", "--config", "small.yaml", "--text", "text.txt", "--width", "1024", "--pca", "-o", "b"
    )
    assert code == 0 and out.startswith("b: 300 tokens x 1024, ")
    (files / "bad.yaml").write_text("widht: 48")
    assert "Did you mean 'width'?" in refused("substrate", "build", "--config", "bad.yaml", "-o", "c")
    assert not (files / "c").exists()


def test_layout_trainable_is_set_elsewhere(files, refused):
    message = refused("substrate", "build", "--tokenizer", "glyphs", "--layout", "trainable", "-o", "x")
    assert "set where a model is made, as substrate.layout in a growth recipe" in message


def test_substrate_of_missing_text(refused, tmp_path):
    message = refused("substrate", "build", "--text", tmp_path / "absent.txt", "-o", tmp_path / "glyphs")
    assert "absent.txt' does not exist" in message
    assert not (tmp_path / "glyphs").exists()


def test_reserved_ids_are_named(files, run, refused):
    code, out, _ = run("substrate", "build", "--text", "text.txt", "--vocab", "300", "--reserved", "8", "-o", "chat")
    fingerprint = out.split()[-1]
    last = json.loads((files / "chat" / "tokenizer.json").read_text("utf-8"))["added_tokens"][-1]["id"]
    code, out, _ = run("substrate", "name", "chat", "<|plan|>", f"<|idea|>={last}")
    assert (code, out.splitlines()) == (0, [f"{last - 1}  <|plan|>", f"{last}  <|idea|>"])
    assert json.loads(run("substrate", "inspect", "chat")[1])["fingerprint"] == fingerprint
    assert refused("substrate", "name", "chat", "plan").startswith("name 'plan' is not allowed")
    assert refused("substrate", "name", "absent", "<|plan|>").startswith("'absent/tokenizer.json' does not exist")
