"""The additive layer beside a matrix product, AdderNet's layer and remedies: speed, gradients, mixing, loss by depth.

    python -m eval.studies.additive --data DIR --out eval/results/additive-study

DIR holds text/en.txt and en.valid.txt. The same command resumes a study that was stopped. It puts a number to every
statement of the postmortem of layers y_j = sum_i (x_i + W_ji), and says which of them is not exact. Runs:

    KIND   models of 1 to 4 blocks whose Linears are all of that kind, trained on real text; loss and health
    layer  one layer of every kind on random inputs: time of both passes, gradients, rank
    sick   the health of a trained model of two blocks, and of the same one with its upper block made sick
"""

from eval.studies.additive.layers import study_layers
from eval.studies.additive.report import as_markdown, summarise
from eval.studies.additive.runs import DEPTHS, KINDS, SMOKE, Scale, make_sick, prepare, train
from eval.studies.common.jobs import carry_out, study_arguments


def main() -> None:
    arguments = study_arguments("additive-study", __doc__, "text/en.txt and en.valid.txt").parse_args()
    scale, data, work = SMOKE if arguments.smoke else Scale(), arguments.data, arguments.work

    def run(kind: str, seed: str) -> dict[str, object]:
        if kind == "layer":
            return study_layers(scale)
        if kind == "sick":
            return make_sick(int(seed), scale, work)
        return train(kind, int(seed), scale, work)

    seeds = range(arguments.seeds)
    carry_out(
        arguments,
        prepare=lambda: prepare(scale, data, work),
        phases=[
            [("layer", 0), *((kind, seed) for seed in seeds for kind in KINDS)],
            [("sick", seed) for seed in seeds],  # of trained models
        ],
        run=run,
        summarise=lambda results: summarise(results, scale, arguments.seeds, KINDS, DEPTHS),
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
