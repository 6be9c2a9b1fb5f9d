"""What eval/bench/eval_speed.py times is the model, every turn."""

from argparse import Namespace

from eval.bench.eval_speed import instances, scoring
from frozen_glyph.checkpoint.loading import load_model
from frozen_glyph.evaluation.tasks.harness import as_lm


def test_every_turn_asks_the_model_anew(experts):
    lm = as_lm(*load_model(experts[0], "cpu"))
    asked = []
    lm.model.register_forward_hook(lambda *_: asked.append(None))
    turn = scoring(lm, instances([("The cat", " sleeps")]), Namespace(device="cpu"))
    turn()
    once = len(asked)
    turn()
    assert len(asked) == 2 * once > 0
