"""No name and no link of a folder leads out of it: not into what is merged, copied, linked, pushed or loaded."""

import json
import os
import shutil

import pytest
from transformers import AutoModelForCausalLM

from frozen_glyph import FrozenGlyphForCausalLM, GlyphSubstrate, extract_expert, merge_experts
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import CheckpointError, inside
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.candidates import find_candidates
from frozen_glyph.export.dense import export_dense
from frozen_glyph.growth.parent import adopt_parent
from frozen_glyph.health.checkpoint import measure_health
from frozen_glyph.hub import files_to_push
from frozen_glyph.merge.reweigh import reweigh_experts

INDEX = "model.safetensors.index.json"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "home" / "id_rsa"
    path.parent.mkdir()
    path.write_text("a secret")
    return path


@pytest.fixture
def ru(experts, tmp_path):
    """A run of its own, with a card."""
    folder = shutil.copytree(experts[0], tmp_path / "ru")
    (folder / "README.md").write_text("# ru")
    return folder


@pytest.fixture
def merged(merged_folder, tmp_path):
    return shutil.copytree(merged_folder, tmp_path / "mixed")


@pytest.mark.parametrize("name", [
    "", ".", "..", "/etc/passwd", "../x", "a/../../x", "a/..", "//server/x", "C:\\x", "C:x", "..\\x", "a\\b", "a\0b",
    "a\nb", "\x1b[31mx", "x" * 300, None, 5, ["x"],
])  # fmt: skip
def test_names_that_are_none(tmp_path, name):
    (tmp_path / "a").mkdir()
    with pytest.raises(CheckpointError):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", ["x", "a/x", "missing", ".hidden", "файл", "a b", "x..y"])
def test_names_of_files_inside(tmp_path, name):
    (tmp_path / "a").mkdir()
    for made in ("x", "a/x"):
        (tmp_path / made).touch()
    assert inside(tmp_path, name) == tmp_path / name


def link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def test_links_and_what_is_no_regular_file(tmp_path, secret):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "x").touch()
    (folder / "within").symlink_to("x")
    assert inside(folder, "within") == folder / "within"
    (tmp_path / "folder-link").symlink_to(folder)
    assert inside(tmp_path / "folder-link", "x")  # the folder itself was named by the user
    (folder / "out").symlink_to(secret)
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    (folder / "elsewhere").symlink_to(secret.parent)
    (folder / "twice").symlink_to("out")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    for name in ("out", "dangling", "elsewhere/id_rsa", "twice", "circle", "pipe", "sub"):
        with pytest.raises(CheckpointError, match=r"leads out of its folder|is no regular file|cannot be opened"):
            inside(folder, name)


def test_only_the_layout_of_the_hubs_cache_may_lead_out(tmp_path, secret):
    repository = tmp_path / "hub" / "models--user--ru"
    snapshot = repository / "snapshots" / "abc"
    (snapshot / "lora").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "etag").touch()
    shared = tmp_path / "hub" / "blobs" / "0f" / ("0f" * 32)
    shared.parent.mkdir(parents=True)
    shared.touch()
    (repository / "blobs" / "linked").symlink_to(shared)  # one file of several repositories
    (repository / "blobs" / "stolen").symlink_to(secret)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").touch()
    for blob in ("etag", "linked", "stolen"):
        (snapshot / blob).symlink_to(f"../../blobs/{blob}")
        (snapshot / "lora" / blob).symlink_to(f"../../../blobs/{blob}")
    (snapshot / "main").symlink_to("../../refs/main")
    (snapshot / "out").symlink_to(secret)
    for blob in ("etag", "linked"):
        assert inside(snapshot, blob) and inside(snapshot, f"lora/{blob}") and inside(snapshot / "lora", blob)
    for name in ("stolen", "lora/stolen", "main", "out"):
        with pytest.raises(CheckpointError, match="leads out of its folder"):
            inside(snapshot, name)
    (tmp_path / "plain" / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "plain" / "blobs").mkdir()
    (tmp_path / "plain" / "blobs" / "x").touch()
    (tmp_path / "plain" / "snapshots" / "abc" / "x").symlink_to("../../blobs/x")
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        inside(tmp_path / "plain" / "snapshots" / "abc", "x")


def lead_out_by_index(folder, target, index):
    content = json.loads((folder / index).read_text())
    first = next(iter(content["weight_map"]))
    content["weight_map"][first] = target
    (folder / index).write_text(json.dumps(content))


@pytest.mark.parametrize("how", ["absolute", "relative", "link", "circle"])
def test_weights_that_lie_elsewhere(ru, experts, merged, tmp_path, how):
    """No verb takes them, from_pretrained included, which transformers alone would let follow the path."""
    shutil.copytree(experts[0], tmp_path / "elsewhere")
    elsewhere = tmp_path / "elsewhere" / "head-1.safetensors"
    target = {"absolute": str(elsewhere), "relative": "../elsewhere/head-1.safetensors"}.get(how)
    for folder in (ru, merged):
        for path in folder.glob("*.index.json") if target else ():
            lead_out_by_index(folder, target, path.name)
        for path in () if target else list(folder.glob("head*.safetensors")):
            link(path, elsewhere if how == "link" else path)
    for call in (
        lambda: merge_experts([ru, experts[1]], tmp_path / "out"),
        lambda: merge_experts([experts[1], ru], tmp_path / "out"),
        lambda: merge_experts([merged, experts[1]], tmp_path / "out"),
        lambda: extract_expert(merged, "ru", tmp_path / "out"),
        lambda: export_dense(ru, tmp_path / "out"),
        lambda: adopt_parent(Source(str(ru)), tmp_path / "out"),
        lambda: files_to_push(ru),
        lambda: files_to_push(merged),
        lambda: AutoModelForCausalLM.from_pretrained(ru),
        lambda: FrozenGlyphForCausalLM.from_pretrained(ru, growth_stage=1),
        lambda: AutoModelForCausalLM.from_pretrained(merged),
    ):
        with pytest.raises(ValueError, match=r"(?s)leads out|no name of a file inside|cannot be opened"):
            call()
    assert describe_checkpoint(ru)["problems"] and describe_checkpoint(merged)["problems"]
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", [
    "growth.png", "README.md", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json",
    "generation_config.json", "metrics-1.jsonl", "recipe.yaml", "LICENSE", "provenance.json", "notes_frozen_glyph.py",
    "additional_chat_templates/x.jinja",
])  # fmt: skip
def test_a_link_is_never_pushed(ru, secret, name):
    (ru / name).parent.mkdir(exist_ok=True)
    if (ru / name).exists():
        shutil.copyfile(ru / name, secret)
    link(ru / name, secret)
    with pytest.raises(FrozenGlyphError, match="leads out of its folder"):
        files_to_push(ru)


def test_the_secret_in_an_index_is_never_pushed(ru, secret):
    (ru / "x.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": str(secret)}}))
    with pytest.raises(CheckpointError, match="no name of a file inside its folder"):
        files_to_push(ru)


@pytest.mark.parametrize("name", ["/etc/passwd", "../home/id_rsa"])
def test_a_file_that_only_the_provenance_names_is_never_pushed_or_linked(ru, secret, tmp_path, name):
    provenance = json.loads((ru / "provenance.json").read_text())
    provenance["stages"][0]["files"][name] = "0" * 64
    (ru / "provenance.json").write_text(json.dumps(provenance))
    with pytest.raises(CheckpointError, match="no name of a file inside its folder"):
        files_to_push(ru)
    with pytest.raises(CheckpointError, match="no name of a file inside its folder"):
        adopt_parent(Source(str(ru)), tmp_path / "child")
    assert secret.read_text() == "a secret"


def test_hidden_files_and_folders_stay_at_home(ru):
    (ru / ".token.yaml").write_text("secret")
    (ru / "LICENSES").mkdir()
    assert not {".token.yaml", "LICENSES"} & set(files_to_push(ru))


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json", "substrate.json", "README.md"])
def test_a_link_is_never_copied_into_what_is_written(ru, merged, experts, secret, tmp_path, name):
    """Not even where the tokenizer's own loader would follow it."""
    for folder in (ru, merged):
        if (folder / name).exists():
            shutil.copyfile(folder / name, secret)
        link(folder / name, secret)
    calls = [
        lambda: merge_experts([ru, experts[1]], tmp_path / "out"),
        lambda: extract_expert(merged, "ru", tmp_path / "out"),
        lambda: export_dense(ru, tmp_path / "out"),
        lambda: adopt_parent(Source(str(ru)), tmp_path / "child"),
        lambda: find_candidates([str(ru)]),
        lambda: measure_health(ru, secret),
    ]
    if name != "README.md":
        calls.append(lambda: FrozenGlyphForCausalLM.from_pretrained(ru).save_pretrained(tmp_path / "saved"))
    for call in calls:
        with pytest.raises(ValueError, match="leads out of its folder"):
            call()
    assert not (tmp_path / "out").exists()


def test_a_substrate_with_a_link(substrate, secret, tmp_path):
    substrate.save_pretrained(tmp_path / "glyphs")
    link(tmp_path / "glyphs" / "chat_template.jinja", secret)
    with pytest.raises(FrozenGlyphError, match="leads out of its folder"):
        GlyphSubstrate.from_pretrained(tmp_path / "glyphs")


def test_a_configuration_that_is_a_link(merged, secret):
    shutil.copyfile(merged / "config.json", secret)
    link(merged / "config.json", secret)
    for call in (lambda: reweigh_experts(merged, "weighted"), lambda: describe_checkpoint(merged)):
        with pytest.raises(CheckpointError, match="leads out of its folder"):
            call()
