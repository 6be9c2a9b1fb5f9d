"""Every table of the command line shows every number whole, at every width, with numbers as large as they come."""

import pytest
from rich.cells import cell_len

from frozen_glyph.cli.layout import FittedTable
from frozen_glyph.cli.tables import checkpoint_table, estimate_table, health_table, loss_table, merge_table, size
from frozen_glyph.cli.terminal import show
from frozen_glyph.health.measure import METRICS

BIG = 987_654_321_012
TEXTS = [f"{language}.of-a-long-name.valid.txt" for language in ("en", "ru", "zh")]
EXPERTS = [
    {
        "name": f"expert[{number}]",
        "layers": 100 + number,
        "shared_layers": 64,
        "weight": 0.125,
        "adapter": {"rank": 1024},
        "origin": {"name": f"organisation/a-model-of-a-long-name-{number}", "stage": 12},
    }
    for number in range(2)
]
FACTS = {
    "name": "ru[v2]",
    "kind": "growth",
    "task": None,
    "parameters": BIG,
    "bytes": 3 << 40,
    "stages": [
        {
            "stage": stage,
            "layers": 110 + stage,
            "parameters": BIG + stage,
            "trained_parameters": BIG - stage,
            "nats_per_character": dict.fromkeys(TEXTS, 1.5 + stage / 100),
            "control": dict.fromkeys(TEXTS, 2.5),
            "flops": 10**18 + stage * 10**16,
            "memory_bytes": (3 << 40) + (stage << 30),
            "bytes": (2 << 40) + (stage << 30),
            "own_bytes": (1 << 40) + (stage << 30),
        }
        for stage in range(1, 13)
    ],
    "experts": [],
    "recipe": {"name": "[/a]"},
    "seed": 7,
    "substrate_fingerprint": "sha256:" + 64 * "0",
    "vectors": "frozen, whitened, 4 long",
    "parents": [{"name": "ru", "weights_sha256": 64 * "1"}],
    "versions": {"python": "3.11"},
    "problems": {"head-2.safetensors": "is damaged"},
    "verified": True,
    "unrecorded": [],
}
PHASES = [
    {
        "stage": stage,
        "phase": phase,
        "num_hidden_layers": 100 + stage,
        "steps": 10_000_000 + stage,
        "tokens": BIG + stage * 10**11,
        "trainable_parameters": BIG + stage,
        "frozen_parameters": BIG - stage,
        "total_parameters": BIG,
        "substrate_entries": BIG,
        "flops_per_token": BIG,
        "flops": 6.5e23,
        "memory_bytes": {"optimizer": BIG, "total": 2 * BIG},
    }
    for stage in range(1, 7)
    for phase in ("blocks", "lora")
]
METRIC_VALUES = dict.fromkeys(METRICS, 0.000123) | {"constancy_low": 0.00321, "constancy_high": 0.00456}
HEALTH = {
    "examples": 32,
    "tokens": 2048,
    "loss": 2.5,
    "blocks": [
        {
            "name": f"model.layers.{number}",
            "metrics": dict.fromkeys(("move", "off_diagonal", "distance", "mixing_rank"), 0.000654),
            "linears": {"self_attn.q_proj": METRIC_VALUES},
            "flags": ["does not mix features (off-diag 0.000654)"],
        }
        for number in range(24)
    ],
}
INTERVAL = {"difference": -0.01234, "low": -0.02345, "high": 0.03456}
LOSSES = {
    text: {
        "experts": {f"expert {number}": 1.2345 + number for number in range(6)},
        "merged": 2.3456,
        "tuned": 3.4567,
        "change": INTERVAL,
        "against_best_expert": INTERVAL,
    }
    for text in TEXTS
}
MERGE = {
    "parameters": BIG,
    "bytes": 3 << 40,
    "rule": "mean",
    "experts": EXPERTS,
    "shared_bytes": {"substrate": 5 << 30},
    "saved_bytes": 7 << 30,
    "bytes_to_write": 9 << 30,
    "costs": "as stated",
}
MERGED = FACTS | {"kind": "merge", "stages": [], "experts": EXPERTS, "rule": "mean", "costs": "as stated"}
TABLES = {
    "stages": (
        checkpoint_table(FACTS),
        [f"{BIG + k:,}" for k in range(-12, 13)]
        + [f"{1.5 + k / 100:.4f}" for k in range(1, 13)]
        + [f"{-1 + k / 100:+.4f}" for k in range(1, 13)]
        + [f"{1 + k / 100:.3g}e+18" for k in range(1, 13)]
        + [f"{1024 * t + k:.1f} GiB" for t in (1, 2, 3) for k in range(1, 13)],
    ),
    "experts": (checkpoint_table(MERGED), [f"{BIG:,}", "3072.0 GiB", "100", "101", "64", "0.125", "rank 1024"]),
    "merge": (merge_table(MERGE), [f"{BIG:,}", "5.0 GiB", "7.0 GiB", "9.0 GiB", "101", "64", "0.125", "rank 1024"]),
    "losses": (loss_table(LOSSES), [f"{k}.2345" for k in range(1, 7)] + ["3.4567", "-0.0123 [-0.0234, +0.0346]"]),
    "estimate": (
        estimate_table("e", PHASES, 1e14),
        [f"{BIG + k:,}" for k in range(-6, 7)]
        + [f"{10**7 + k:,}" for k in range(1, 7)]
        + [f"{12 * 10**7 + 42:,}", "1.1T", "987.7G", "6.50e23", "7.52e+04", "7.80e24", "9.03e+05", "987.65", "1975.31"]
        + ["6 LoRA", "106"],
    ),
    "health": (health_table("ru", HEALTH), ["0.000123", "0.000123 (0.00321 to 0.00456)", "0.000654", "2.500"]),
}


@pytest.mark.parametrize("width", [60, 80, 120, 317])
@pytest.mark.parametrize("name", TABLES)
def test_every_number_is_found_whole_and_no_line_is_too_long(name, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    parts, numbers = TABLES[name]
    show(parts)
    shown = capsys.readouterr().out
    assert [number for number in numbers if number not in shown] == []
    assert "…" not in shown
    tables = [part for part in parts if isinstance(part, FittedTable)]
    lines = {str(table.title) for table in tables} | {str(part) for part in parts}  # the terminal breaks them
    assert max(cell_len(line) for line in shown.splitlines() if line not in lines) <= width


def test_a_checkpoint_shows_names_as_they_are_and_its_state(capsys):
    show(checkpoint_table(FACTS | {"problems": {}}))
    shown = capsys.readouterr().out
    for said in ("ru[v2]: growth", "recipe: [/a]", "seed: 7", "parents: ru 111111111111\n", "every byte as written"):
        assert said in shown
    assert "files: head-2.safetensors: is damaged" in checkpoint_table(FACTS)


def test_the_estimate_ends_with_sums_and_knows_days_where_the_speed_is_known():
    table = estimate_table("e", PHASES, 1e14)[0]
    assert isinstance(table, FittedTable)
    assert [header.plain for header in table.headers][-3:] == ["days", "Adam GB", "memory GB"]
    assert [row[0].plain for row in table.rows][:3] == ["1", "1 LoRA", "2"]
    assert [cell.plain for cell in table.totals][-4:] == ["7.80e24", "9.03e+05", "", "1975.31"]
    assert "days" not in [header.plain for header in estimate_table("e", PHASES)[0].headers]


@pytest.mark.parametrize(
    ("nbytes", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 40, "5120.0 GiB")]
)
def test_sizes_are_written_in_binary_units(nbytes, words):
    assert size(nbytes) == words
