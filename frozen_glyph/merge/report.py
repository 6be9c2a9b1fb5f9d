"""What a merge shares and costs, for a terminal."""

from typing import Any

from rich.console import Group
from rich.table import Table

from frozen_glyph.checkpoint.ladder import expert_row, size


def merge_table(report: dict[str, Any]) -> Group:
    """What ``MergePlan.report`` found, as a table and three lines."""
    title = f"{report['parameters']:,} parameters, {size(report['bytes'])}, rule {report['rule']}"
    table = Table("expert", "blocks", "shared", "weight", "adapter", "from", title=title)
    for expert in report["experts"]:
        table.add_row(*expert_row(expert))
    shared = ", ".join(f"{name} {size(nbytes)}" for name, nbytes in report["shared_bytes"].items() if nbytes)
    return Group(
        table,
        f"stored once: {shared}, which saves {size(report['saved_bytes'])}",
        f"written: {size(report['bytes_to_write'])}",
        f"{report['rule']}: {report['costs']}",
    )
