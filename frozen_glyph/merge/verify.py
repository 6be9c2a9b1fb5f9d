"""What was read of experts, by hash: it is what their folders recorded, on the substrate that their fingerprints name.

``digests`` holds the sha256 of what each window read; what is missing in it is read.
"""

from collections.abc import Iterable, Sequence

from frozen_glyph.checkpoint.files import CheckpointError, hash_contents
from frozen_glyph.checkpoint.streaming import Window, hash_window
from frozen_glyph.checkpoint.tensors import fingerprint
from frozen_glyph.checkpoint.verify import verify_shards
from frozen_glyph.merge.experts import Expert


def hash_substrates(experts: Iterable[Expert], digests: dict[Window, str]) -> None:
    """Read the substrate of every expert, and check it against the fingerprint that is to be shared.

    Raises:
        CheckpointError: a substrate is another than its ``config.json`` says.
    """
    for expert in experts:
        substrate, config = expert.substrate(), expert.checkpoint.config
        digests |= {window: hash_window(window) for window in substrate.values() if window not in digests}
        found = fingerprint({name: digests[window] for name, window in substrate.items()}, config["tokenizer_sha256"])
        if found != config["substrate_fingerprint"]:
            raise CheckpointError(
                f"the substrate in {expert.checkpoint.label!r} has fingerprint {found}, its config.json names "
                f"{config['substrate_fingerprint']}; fetch or write the folder again"
            )


def verify_experts(experts: Sequence[Expert], digests: dict[Window, str]) -> None:
    """Compare what was read of every expert with what its folder recorded when it was written; complete ``digests``.

    Raises:
        CheckpointError: a file has other contents, or a substrate another fingerprint; the message names it.
    """
    hash_substrates(experts, digests)
    for expert in experts[1:]:  # blocks that all share were read from the first one only, and have the same bytes
        for name, window in expert.tensors.items():
            if window not in digests:
                digests[window] = digests[experts[0].tensors[name]]
    for checkpoint in {id(expert.checkpoint): expert.checkpoint for expert in experts}.values():
        verify_shards(checkpoint.folder, checkpoint.shards, digests)
    for expert in experts:
        if expert.adapter and expert.adapter.folder:
            verify_shards(expert.adapter.folder, expert.adapter.shards, digests)


def expert_sha256(expert: Expert, digests: dict[Window, str]) -> str:
    """Hash of an expert's tensors, adapters included, by the names they have in a model of its own."""
    return hash_contents(
        (name, window.dtype, window.shape, digests[window]) for name, window in expert.all_tensors.items()
    )
