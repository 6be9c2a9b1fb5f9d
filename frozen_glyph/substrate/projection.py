"""Geometry of a substrate: centre, projection and gains of its bits, and the proof that no two vectors are equal.

The projection is a principal component analysis (arXiv 2507.04886) rounded to int8, so that ``y`` in
``(16 * bits - center) @ projection`` is an integer below 2**24 that float32 computes exactly in any order of summation.
Whitened, each component is divided by its standard deviation, as far as int8 and a gain, a power of two, can say that.

Shapes: V vocabulary, S substrate bits (1024), D width.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.model.embedding_frozen_glyph import CENTER_SCALE, FrozenGlyphEmbedding

EXACT_LIMIT = 2**24  # integers below it are exact in float32
EXACT_SQUARES = 2**53  # and in float64, which sums the squares of a vector
# Of a component over the first one: what varies less is drawn by few tokens. Not tuned: of 4,096 ids only components
# beyond the 250th reach it, where the variance soon ends.
LARGEST_GAIN = 32.0
SAMPLE = 16_384  # tokens, evenly spaced, that say how pictures vary, where whitening needs it
FIRST = 16  # numbers of a vector that tell most tokens apart
CHUNK = 8192  # tokens unpacked at a time
BLOCK = 1024  # tokens compared with all others at a time
FLOAT32_DOUBT = 1e-5  # more than a float32 cosine can be off
ROUNDING = 1e-6  # more than rounding to float32 changes a ratio of two numbers of a vector, in relation to it


def unpack(packed_bits: torch.Tensor) -> np.ndarray:
    """Packed bits [V, S // 8] -> zeros and ones, uint8 [V, S]."""
    return np.unpackbits(packed_bits.numpy(), axis=1)


def bit_center(packed_bits: torch.Tensor) -> torch.Tensor:
    """Mean of each bit over the vocabulary, in sixteenths: uint8 [S]."""
    counts = sum(unpack(chunk).sum(axis=0, dtype=np.int64) for chunk in packed_bits.split(BLOCK))
    return torch.round(CENTER_SCALE * torch.as_tensor(counts).double() / len(packed_bits)).to(torch.uint8)


def bit_covariance(packed_bits: torch.Tensor) -> torch.Tensor:
    """Covariance of the bits over the vocabulary, float64 [S, S]."""
    vocab_size, bits = packed_bits.shape[0], packed_bits.shape[1] * 8
    together = torch.zeros(bits, bits, dtype=torch.float64)  # how often two bits are set in the same token
    for chunk in packed_bits.split(CHUNK):
        ones = unpack(chunk).astype(np.float32)
        together += torch.from_numpy(ones.T @ ones)  # counts, hence exact; NumPy computes one half and mirrors it
    counts = together.diagonal()
    return together / vocab_size - torch.outer(counts, counts) / vocab_size**2


@contextmanager
def one_thread() -> Iterator[None]:
    """The same bytes from a solver whatever the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def principal_directions(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit eigenvectors as columns, float64 [S, S], by falling variance; the largest entry of each is positive.

    Beside them their variances. Directions without variance are zero: which ones a solver returns is arbitrary.
    """
    with one_thread():
        variances, directions = torch.linalg.eigh(covariance)
    variances, directions = variances.flip(0), directions.flip(1)
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    directions = directions * torch.where(largest < 0, -1.0, 1.0)
    return directions * (variances > 1e-9 * variances[0]), variances.clamp_min(0)


def to_int8(directions: torch.Tensor) -> torch.Tensor:
    """Scale [S, D] by one common factor so that the largest entry is 127, and round."""
    return torch.round(directions * (127 / directions.abs().max())).to(torch.int8)


def sampled(packed_bits: torch.Tensor) -> torch.Tensor:
    """At most ``SAMPLE`` of the rows of ``packed_bits``, evenly spaced."""
    count = len(packed_bits)
    return packed_bits if count <= SAMPLE else packed_bits[torch.arange(SAMPLE) * count // SAMPLE]


def whitened(directions: torch.Tensor, variances: torch.Tensor, power: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal ``directions`` [S, D] times ``deviation ** -power``, as int8 [S, D] and gains that are powers of two.

    Gains are int32 [D]. A component's deviation counts as no less than a ``LARGEST_GAIN``-th of the first one's.
    """
    deviations = variances[: directions.shape[1]].sqrt()
    wanted = directions * deviations.clamp_min(deviations[0] / LARGEST_GAIN) ** -power
    tops = wanted.abs().amax(dim=0)
    least = tops[tops > 0].min()
    gain = torch.where(tops > 0, tops / least, 1.0).log2().ceil().exp2()
    return torch.round(wanted / gain * (127 / least)).to(torch.int8), gain.to(torch.int32)


def check_exact(center: torch.Tensor, projection: torch.Tensor | None) -> None:
    """Raise unless every partial sum of ``y`` stays below 2**24 whatever the bits are."""
    reach = torch.maximum(center.long(), CENTER_SCALE - center.long())
    largest = int(reach.max() if projection is None else (reach @ projection.long().abs()).max())
    if largest >= EXACT_LIMIT:
        raise FrozenGlyphError(f"substrate vectors reach {largest}; exact float32 sums need less than {EXACT_LIMIT}")


def largest_squares(embedding: FrozenGlyphEmbedding) -> float:
    """A bound of the sum of the squares of a vector, before lengths are made equal, whatever its bits are.

    The squares are those of the centred bits times at most the largest eigenvalue of ``A.T @ A``, where ``A`` makes the
    vector of them, and that is at most the largest sum of absolute values of a row (Gershgorin).
    """
    center = embedding.center.long()
    squares = float(torch.maximum(center, CENTER_SCALE - center).double().square().sum())
    if embedding.projection is not None:
        rows = embedding.projection.double().T
        rows = rows if embedding.gain is None else rows * embedding.gain.double()[:, None]
        squares *= float((rows @ rows.T).abs().sum(dim=1).max())
    return squares * max(1, embedding.embedding_dim // embedding.substrate_bits)


def check_squares(embedding: FrozenGlyphEmbedding) -> None:
    """Raise unless ``largest_squares`` lie below 2**53."""
    squares = largest_squares(embedding)
    if squares >= EXACT_SQUARES:
        raise FrozenGlyphError(f"squares of substrate vectors reach {squares:.3g}; exact sums need less than 2**53")


def first_numbers(embedding: FrozenGlyphEmbedding, ids: torch.Tensor) -> torch.Tensor:
    """``FIRST`` numbers at most of ``(16 * bits - center) @ projection``: whole ones, float32.

    Summed over bytes, whose 256 values are tabulated, rather than over bits: few columns, so the unpacking would cost
    more than the rest.
    """
    assert embedding.projection is not None
    projection = embedding.projection[:, :FIRST].float()
    values = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)).float()
    table = (values @ projection.unflatten(0, (-1, 8))).flatten(0, 1)  # of each byte of a token, its 256 values
    starts = 256 * torch.arange(embedding.packed_bits.shape[1], dtype=torch.int32)
    rows = (embedding.packed_bits[chunk].int() + starts for chunk in ids.split(CHUNK))
    sums = torch.cat([torch.nn.functional.embedding_bag(chunk, table, mode="sum") for chunk in rows])
    return CENTER_SCALE * sums - embedding.center.float() @ projection


def alike_at_first(embedding: FrozenGlyphEmbedding, ids: torch.Tensor) -> torch.Tensor:
    """Those of ``ids`` whose vectors may equal another's by their first numbers: the signs are the same, and the share
    of the first one in the sum of their absolute values is, but for rounding."""
    if embedding.projection is None:
        return ids
    numbers = first_numbers(embedding, ids).double().numpy()
    signs = np.packbits(np.pad(numbers > 0, ((0, 0), (0, FIRST - numbers.shape[1]))), axis=1).view(np.uint16)[:, 0]
    share = numbers[:, 0] / np.abs(numbers).sum(axis=1).clip(1)
    order = np.lexsort((share, signs))
    near = np.diff(share[order]) <= ROUNDING * np.abs(share[order][1:])
    near &= np.diff(signs[order].astype(np.int32)) == 0
    alike = np.zeros(len(ids), dtype=bool)
    alike[order[1:]] |= near
    alike[order[:-1]] |= near
    return ids[torch.from_numpy(alike)]


def first_repeat(embedding: FrozenGlyphEmbedding, ids: torch.Tensor | None = None) -> tuple[int, int] | None:
    """Two of the tokens ``ids`` (default: all) with the same float32 vector, bit for bit, or None if there are none."""
    ids = torch.arange(embedding.num_embeddings) if ids is None else ids
    seen: dict[bytes, int] = {}
    for chunk in alike_at_first(embedding, ids).split(CHUNK):
        for token_id, row in zip(chunk.tolist(), embedding.compute(chunk).numpy(), strict=True):
            other = seen.setdefault(hashlib.blake2b(row.tobytes(), digest_size=32).digest(), token_id)
            if other != token_id:
                return other, token_id
    return None


def smallest_distance(vectors: torch.Tensor) -> float:
    """Euclidean distance of the two nearest of some unit vectors [V, D], by comparing all pairs.

    Float32 cosines find the candidates, float64 ones decide, so that the order of summation cannot show.
    """
    largest = torch.full((len(vectors),), -1.0)  # cosine of each vector with its nearest
    for start in range(0, len(vectors), BLOCK):
        stop = start + BLOCK
        cosines = vectors[start:stop] @ vectors[start:].T
        cosines.fill_diagonal_(-1.0)
        largest[start:stop] = largest[start:stop].maximum(cosines.max(dim=1).values)
        largest[start:] = largest[start:].maximum(cosines.max(dim=0).values)
    candidates = vectors[largest >= largest.max() - FLOAT32_DOUBT].double()
    candidates /= candidates.norm(dim=1, keepdim=True)
    closest = -1.0
    for start in range(0, len(candidates), BLOCK):
        exact = candidates[start : start + BLOCK] @ candidates[start:].T
        exact.fill_diagonal_(-1.0)
        closest = max(closest, float(exact.max()))
    return math.sqrt(max(0.0, 2 - 2 * closest))
