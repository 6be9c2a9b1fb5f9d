"""The report of the study of additive layers: losses, health, single layers, and each statement of the postmortem."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.studies.additive.runs import ARMS, DEPTHS, KINDS, SAME
from eval.studies.common.arms import finished, rates_line
from eval.studies.common.jobs import Results
from eval.studies.common.losses import difference_of, loss_of
from eval.studies.common.tables import circumstances_line, intervals_line, loss_cell, signed, table
from frozen_glyph.health.measure import METRICS, flags

HELPS = "depth helps"


def summarise(results: Results, scale: Any, seeds: Sequence[int]) -> dict[str, Any]:
    """Losses by kind and depth with intervals, health of every kind and of sick blocks, and facts of single layers; of
    the kinds whose models have all finished every seed."""
    runs = finished(results, ARMS, scale, seeds)
    kinds = [kind for kind in KINDS if all(f"{kind}-{depth}" in runs for depth in DEPTHS)]
    if not {"matmul", "additive"} <= set(kinds) or ("layer", 0) not in results:
        raise SystemExit("matmul and additive have not finished every depth and seed; run the study first")

    def own(kind: str, depth: int) -> list[dict[str, Any]]:
        return runs[f"{kind}-{depth}"]

    def nats(kind: str, depth: int) -> np.ndarray:
        return np.array([run["nats"] for run in own(kind, depth)])

    shallow, deep = DEPTHS[0], DEPTHS[-1]
    text = own("matmul", shallow)[0]
    losses: dict[str, Any] = {}
    for kind in kinds:
        losses[kind] = {
            str(depth): {
                **loss_of(nats(kind, depth), text),
                "minus_matmul": difference_of(nats("matmul", depth), nats(kind, depth), text),
                "nats_per_token": float(np.mean([run["health"]["loss"] for run in own(kind, depth)])),
                "seconds": float(np.mean([run["seconds"] for run in own(kind, depth)])),
                "block_parameters": own(kind, depth)[0]["block_parameters"],
            }
            for depth in DEPTHS
        }
        losses[kind]["deepest_minus_shallowest"] = difference_of(nats(kind, shallow), nats(kind, deep), text)
    blocks = {
        kind: [block for depth in DEPTHS for run in own(kind, depth) for block in run["health"]["blocks"]]
        for kind in kinds
    }
    sick = [result for (name, *_), result in results.items() if name == "sick"]
    return {
        "scale": asdict(scale),
        "seeds": list(seeds),
        "rates": rates_line(results, ARMS, scale, seeds),
        "characters": sum(text["characters"]),
        "documents": len(set(text["documents"])),
        "uniform_nats_per_token": math.log(scale.vocab_size),
        "losses": losses,
        "health": {kind: ranges(found) for kind, found in blocks.items()},
        "sick": {name: ranges(run[name]["blocks"][1] for run in sick) for name in (sick[0] if sick else [])},
        "layers": results["layer", 0],
        "logit_difference": {
            same: max(run["logit_difference"][same] for depth in DEPTHS for run in own("matmul", depth))
            for same in SAME
        },
    }


def ranges(blocks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Lowest and highest value of every metric over ``blocks`` and their Linears, and how many blocks are flagged."""
    blocks = list(blocks)
    found: dict[str, Any] = {"blocks": len(blocks), "flagged": sum(is_flagged(block) for block in blocks)}
    for key in METRICS:
        values = [values[key] for block in blocks for values in parts_of(block) if values.get(key) is not None]
        found[key] = [min(values), max(values)] if values else None
    return found


def parts_of(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Metrics of a block and of each of its Linears."""
    yield block["metrics"]
    yield from block["linears"].values()


def is_flagged(block: dict[str, Any]) -> bool:
    """By today's thresholds, whatever they were when it was measured."""
    return any(flags(values) for values in parts_of(block))


def span(values: list[float] | None) -> str:
    return "-" if values is None else f"{values[0]:.3g} to {values[1]:.3g}"


def statements(report: dict[str, Any]) -> list[list[str]]:
    """Each statement of the postmortem, the number that tests it, and what holds."""
    facts, layers, losses = report["layers"]["additive"], report["layers"]["kinds"], report["losses"]
    additive, matmul = layers["additive"], layers["matmul"]
    whole = losses["additive"]["deepest_minus_shallowest"]
    deepest = max(depth for depth in losses["additive"] if depth.isdigit())
    ranks = report["health"]["additive"]["mixing_rank"]
    gains = {kind: told(losses[kind]["deepest_minus_shallowest"]) for kind in ("additive", "matmul")}
    defined = layers["additive, as defined"]
    learns = losses["additive"][deepest]["nats_per_token"] < report["uniform_nats_per_token"]
    flagged = report["health"]["additive"]["flagged"] == report["health"]["additive"]["blocks"]
    return [
        [
            "It equals sum(x) + sum_i W_ij",
            f"largest deviation of the fast form {facts['fast_against_naive']:.0e} of the largest output",
            "exact, up to rounding",
        ],
        [
            "Every unit gets the same input-dependent scalar plus a constant",
            f"without their constants units differ by {facts['units_differ_by']:.0e}",
            "exact. Behind a layer norm of unit gain it is less: features add up to 0, so the scalar is 0 "
            f"(outputs vary by {facts['after_layer_norm_outputs_vary_by']:.0e} of what they would without it)",
        ],
        [
            "Rank one",
            f"effective rank of outputs about their mean {additive['output_rank']:.4f}, of the Jacobian "
            f"{additive['mixing_rank']:.4f} (matmul {matmul['output_rank']:.0f}; {matmul['mixing_rank']:.1f} of 32)",
            "exact for the layer as a function of x, without its constant; blocks and layers of trained models: "
            f"{span(ranks)}",
        ],
        [
            "d out / d W is 1 everywhere",
            f"{facts['gradient_of_output_at_its_weights']:.0f} at the weights of the same output, "
            f"{facts['gradient_of_output_at_other_weights']:.0f} at all others; constancy over inputs "
            f"{additive['constancy_of_output']:.3f} (matmul {matmul['constancy_of_output']:.3f})",
            "imprecise: d out_j / d W_ik is 1 for k = j, else 0. The gradient of the loss is not 1: it is "
            "sum over tokens of dL/d out_j, equal for all inputs i (they differ by "
            f"{facts['gradient_of_loss_differs_between_inputs']:.0e}), and here spreads by "
            f"{facts['gradient_of_loss_std']:.1f} around {facts['gradient_of_loss_mean']:.1f} over outputs j",
        ],
        [
            "The gradient carries no information about the input",
            f"effective rank of the gradient {additive['gradient_rank']:.4f} (matmul {matmul['gradient_rank']:.0f}); "
            f"constancy over examples, in trained models {span(report['health']['additive']['constancy'])} "
            f"(matmul {span(report['health']['matmul']['constancy'])})",
            "imprecise: true of the factor d out / d W. The loss's gradient does change with the text, through "
            "dL/d out_j: one number an output instead of one a weight. So constancy alone does not expose the layer; "
            "the ranks do",
        ],
        [
            "Depth adds nothing",
            f"nats per character, {deepest} blocks minus 1: additive {signed(whole)}, "
            f"matmul {signed(losses['matmul']['deepest_minus_shallowest'])}",
            "; ".join(f"{kind}: {found}" for kind, found in gains.items())
            + ("" if gains["matmul"] == HELPS else ": this scale does not show what additive layers miss by it"),
        ],
        [
            "It is cheap",
            f"forward {additive['forward_ratio']:.3f}, backward {additive['backward_ratio']:.3f} of matmul's time; as "
            f"defined, with all sums, {defined['forward_ratio']:.0f} and {defined['backward_ratio']:.0f}",
            f"the fast form {cheaper(additive)}, the definition {cheaper(defined)}",
        ],
        [
            'It "trains", which hides the collapse',
            f"nats per token {losses['additive'][deepest]['nats_per_token']:.2f} (uniform guess "
            f"{report['uniform_nats_per_token']:.2f}, matmul {losses['matmul'][deepest]['nats_per_token']:.2f}); "
            f"{report['health']['additive']['flagged']} of {report['health']['additive']['blocks']} blocks flagged",
            f"{'below' if learns else 'not below'} a uniform guess; {'all' if flagged else 'not all'} blocks flagged",
        ],
    ]


def told(entry: dict[str, Any]) -> str:
    """What both intervals of deep minus shallow say together."""
    ends = [entry[end] for end in ("low", "high", "seeds_low", "seeds_high")]
    if None in ends:
        return "too few documents or seeds to tell"
    if max(ends) < 0:
        return HELPS
    return "depth harms" if min(ends) > 0 else "not told from no difference"


def cheaper(entry: dict[str, Any]) -> str:
    return "is cheaper" if max(entry["forward_ratio"], entry["backward_ratio"]) < 1 else "is not"


def as_markdown(report: dict[str, Any]) -> str:
    """The report as tables, with the protocol above them."""
    scale, losses, layers = report["scale"], report["losses"], report["layers"]["kinds"]
    depths = [depth for depth in losses["matmul"] if depth.isdigit()]
    loss_rows = [
        [
            kind,
            *(loss_cell(entry[depth]) for depth in depths),
            signed(entry["deepest_minus_shallowest"]),
            signed(entry[depths[-1]]["minus_matmul"]),
            f"{entry[depths[-1]]['block_parameters']:,}",
            f"{entry[depths[-1]]['seconds']:.0f}",
        ]
        for kind, entry in losses.items()
    ]
    layer_rows = [
        [
            kind,
            f"{entry['forward_ratio']:.3f}",
            f"{entry['backward_ratio']:.3f}",
            *(
                f"{entry[name]:.3f}" if name in entry else "-"
                for name in ("constancy_of_output", "constancy_of_loss", "gradient_rank", "mixing_rank", "output_rank")
            ),
        ]
        for kind, entry in layers.items()
    ]
    health = {f"{kind}, trained": entry for kind, entry in report["health"].items()} | report["sick"]
    health_rows = [
        [name, f"{entry['flagged']} of {entry['blocks']}", *(span(entry[key]) for key in METRICS)]
        for name, entry in health.items()
    ]
    limits = [
        f"{f'below {metric.low:g}' if metric.low > -math.inf else ''}"
        f"{' or ' if metric.low > -math.inf and metric.high < math.inf else ''}"
        f"{f'above {metric.high:g}' if metric.high < math.inf else ''}"
        for metric in METRICS.values()
    ]
    lines = [
        "# Layers that add, beside layers that multiply",
        "",
        f"{scale['hidden_size']} wide, {scale['vocab_size']} tokens of one glyph substrate, English; every model reads "
        f"{scale['tokens']:,} tokens in windows of {scale['context_length']}. {report['rates']} All Linears of the "
        f"blocks are of one kind; the head is a matrix product. Held out: {report['characters']:,} characters, "
        f"{report['documents']} documents; nats per character, mean of {len(report['seeds'])} seeds. "
        f"{intervals_line(report)} Seeds one by one: the JSON file.",
        "",
        "## The postmortem, statement by statement",
        "",
        *table(["statement", "measured", "what holds"], statements(report)),
        "## Held-out loss by depth",
        "",
        *table(
            [
                "kind",
                *(f"{depth} block{'s' if depth != '1' else ''}" for depth in depths),
                f"{depths[-1]} minus 1",
                f"minus matmul, {depths[-1]}",
                "parameters of the blocks",
                "seconds",
            ],
            loss_rows,
        ),
        "`compiled` and `fused` compute what `matmul` computes: the logits of the trained models differ by at most "
        + " and ".join(f"{value:.1g}" for value in report["logit_difference"].values())
        + ". They were not trained again.",
        "",
        f"## One layer, {scale['layer_features']} to {4 * scale['layer_features']} features, {scale['layer_tokens']} "
        "tokens",
        "",
        "Times over those of `matmul` (least of "
        f"{scale['repeats']} turns; `fused`: query, key and value together, over three of `matmul`). Constancy of the "
        "gradient of the summed outputs and of a loss with random gradients at the outputs, over 64 random inputs. "
        "Effective ranks: of the gradient, of the Jacobian (at most 32), of the outputs about their mean.",
        "",
        *table(
            ["kind", "forward", "backward", "constancy: outputs", "loss", "gradient", "Jacobian", "outputs"], layer_rows
        ),
        "## Health: healthy against collapsed",
        "",
        "Lowest and highest value over all blocks, Linears, depths and seeds. The last rows are one trained block of "
        "`matmul` and what becomes of it. Flagged: "
        + "; ".join(f"{metric.title} {limit}" for metric, limit in zip(METRICS.values(), limits, strict=True))
        + ".",
        "",
        *table(["blocks", "flagged", *(metric.title for metric in METRICS.values())], health_rows),
        circumstances_line(report),
        "",
    ]
    return "\n".join(lines)
