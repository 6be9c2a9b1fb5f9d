"""The command ``lm_eval`` for tests: without the scan of its 14,000 files, and sharing items between CPU processes.

lm-eval lets processes share the items only where it counts as many GPUs; here it counts processes.
"""

import functools
import os

import lm_eval.tasks
import torch
from lm_eval.__main__ import cli_evaluate

from frozen_glyph.evaluation.tasks.suites import stock_folders

torch.cuda.device_count = lambda: int(os.environ.get("WORLD_SIZE", 1))
scan = lm_eval.tasks.TaskManager.__init__


@functools.wraps(scan)
def scan_few(self, include_path=None, **options):
    scan(self, include_path=[*stock_folders(), include_path], include_defaults=False, **options)


lm_eval.tasks.TaskManager.__init__ = scan_few
if __name__ == "__main__":
    cli_evaluate()
