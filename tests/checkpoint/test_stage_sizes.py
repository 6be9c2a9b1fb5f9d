"""How many bytes all stages of the published recipes take together: exact, by the code that decides on shards."""

import pytest
import torch

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM
from frozen_glyph.checkpoint.stages import assign_shards

ABS_BVV = {"hidden_size": 4096, "vocab_size": 131072, "substrate_bits": 4096}
GROWING = {"hidden_size": 1024, "vocab_size": 65536, "substrate_bits": 1024}


def shard_bytes(ladder: list[int], changed_below: set[int], fields: dict) -> tuple[dict[str, int], list[int]]:
    """Bytes of every shard that the stages write, and of the whole model after each stage."""
    weight_map: dict[str, str] = {}
    written: dict[str, int] = {}
    models = []
    for stage in range(1, len(ladder) + 1):
        with torch.device("meta"):
            state = FrozenGlyphForCausalLM(
                FrozenGlyphConfig(num_hidden_layers=ladder[stage - 1], **fields)
            ).state_dict()
        own, shared = assign_shards(state, ladder[:stage], weight_map, 0 if stage in changed_below else None)
        weight_map = own | shared
        assert weight_map.keys() == state.keys()
        for shard in set(own.values()):
            assert shard not in written
            written[shard] = sum(state[name].nbytes for name in own if own[name] == shard)
        models.append(sum(tensor.nbytes for tensor in state.values()))
        assert models[-1] == sum(written[shard] for shard in set(weight_map.values()))
    return written, models


@pytest.mark.parametrize(
    ("ladder", "fields", "limit", "separate", "expected"),
    [
        # (all stages, deepest model) in bytes; limit and separate repositories as multiples of the deepest model
        ([1, 2, 3, 4, 5, 6], ABS_BVV, 2.6, 4.3, (17_788_080_128, 7_047_876_608)),
        ([3, 6, 9], GROWING, 1.8, 2.4, (1_267_823_616, 730_412_032)),
    ],
    ids=["abs-bvv", "growing"],
)
def test_stages_share_what_they_can(ladder, fields, limit, separate, expected):
    written, models = shard_bytes(ladder, set(), fields)
    assert (sum(written.values()), models[-1]) == expected
    assert sum(written.values()) <= limit * models[-1]
    assert round(sum(models) / models[-1], 1) == separate


def test_a_merged_lora_phase_writes_all_blocks_again():
    """From the fifth stage: 3.6 times the deepest model; adapters kept beside the blocks avoid that."""
    written, models = shard_bytes([1, 2, 3, 4, 5, 6], {5, 6}, ABS_BVV)
    assert round(sum(written.values()) / models[-1], 1) == 3.6
