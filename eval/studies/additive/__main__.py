"""The additive layer beside a matrix product, AdderNet's layer and remedies: speed, gradients, mixing, loss by depth.

    python -m eval.studies.additive --data DIR --out eval/results/additive-study

DIR holds text/en.txt and en.valid.txt. The same command resumes a study that was stopped. It puts a number to every
statement of the postmortem of layers y_j = sum_i (x_i + W_ji), and says which of them is not exact. Runs:

    KIND-DEPTH  a model of 1 to 4 blocks whose Linears are all of that kind, trained on real text; loss and health; each
                at three learning rates at seed 0, and at its best one on development text at the other seeds
    layer       one layer of every kind on random inputs: time of both passes, gradients, rank
    sick        the health of a trained model of two blocks, and of the same one with its upper block made sick
"""

from eval.studies.additive.layers import study_layers
from eval.studies.additive.report import as_markdown, summarise
from eval.studies.additive.runs import ARMS, SICK, SMOKE, Scale, make_sick, prepare, train
from eval.studies.common.arms import arm_phases, chosen_rates
from eval.studies.common.jobs import Job, Results, carry_out, study_arguments


def main() -> None:
    arguments = study_arguments("additive-study", __doc__, "text/en.txt and en.valid.txt").parse_args()
    scale, data, work = SMOKE if arguments.smoke else Scale(), arguments.data, arguments.work

    seeds = range(arguments.seeds)

    def run(kind: str, *parts: str) -> dict[str, object]:
        if kind == "layer":
            return study_layers(scale)
        rate, seed = float(parts[0]), int(parts[1])
        return make_sick(rate, seed, scale, work) if kind == "sick" else train(kind, rate, seed, scale, data, work)

    def sick(results: Results) -> list[Job]:
        rates = chosen_rates(results, [SICK], scale)
        return [("sick", rate, seed) for rate in rates.values() for seed in seeds]

    carry_out(
        arguments,
        prepare=lambda: prepare(scale, data, work),
        phases=[[("layer", 0)], *arm_phases(ARMS, scale, seeds), sick],
        run=run,
        summarise=lambda results: summarise(results, scale, seeds),
        as_markdown=as_markdown,
    )


if __name__ == "__main__":
    main()
