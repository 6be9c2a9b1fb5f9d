"""Does depth help a trained reader? A span head fine-tuned on SQuAD on every growth stage of one model, F1 by stage.

    python -m eval.studies.squad_heads --model runs/en --data DIR --out eval/results/squad-heads
    python -m eval.studies.squad_heads --model runs/en --data DIR --arms grown grown-thawed --rates 1e-3 --seeds 5
    python -m eval.studies.squad_heads --model runs/en --data DIR --smoke --out runs/smoke

DIR holds squad/train-v1.1.subset.json and squad/dev-v1.1.json, ``--model`` is a folder of ``frozen-glyph grow``. One
run for each arm, stage, rate and seed, in a process of its own; the same command resumes a study that was stopped.
Each arm and stage is reported at the rate that scores best on articles kept from training. Only questions whose
paragraph fits the model's positions are asked. Writes OUT.json, OUT.md and the picture OUT.png.

Arms, all with the same new head on ``AutoModelForQuestionAnswering``:
    grown          the model after each stage; the blocks of its newest stage, the last norm and the head train
    random         the control: the same blocks with random weights, the same of them trained
    grown-thawed   as grown, with all blocks trained; random-thawed is its control
Baselines without a model: the paragraph's first words, and a random span as long as a random answer of the training.
"""

import json
from pathlib import Path

from eval.studies.common.jobs import carry_out, study_arguments
from eval.studies.squad_heads.report import as_markdown, draw, summarise
from eval.studies.squad_heads.runs import ARMS, SMOKE, Scale, baselines, fine_tune, stages_of


def main() -> None:
    parser = study_arguments("squad-heads", __doc__, "squad/train-v1.1.subset.json and squad/dev-v1.1.json")
    parser.add_argument("--model", type=Path, required=True, help="folder of a grown model")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS[:2], help="what is fine-tuned")
    parser.add_argument("--rates", nargs="+", type=float, default=[3e-4, 1e-3, 3e-3], help="learning rates to try")
    arguments = parser.parse_args()
    model, data, scale = arguments.model, arguments.data, SMOKE if arguments.smoke else Scale()
    arguments.work /= f"{model.resolve().name}{'-smoke' if arguments.smoke else ''}"
    seeds, stages = range(arguments.seeds), [] if arguments.run else stages_of(model)
    carry_out(
        arguments,
        prepare=lambda: None,
        phases=[
            [(a, k, rate, seed) for seed in seeds for a in arguments.arms for k in stages for rate in arguments.rates]
        ],
        run=lambda arm, stage, rate, seed: fine_tune(model, data, scale, arm, int(stage), float(rate), int(seed)),
        summarise=lambda results: summarise(results, baselines(model, data, scale), scale, model.resolve().name),
        as_markdown=as_markdown,
    )
    if not arguments.run:
        draw(json.loads(arguments.out.with_suffix(".json").read_text("utf-8")), arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
