"""What the Hub finds wrong with the metadata of a model card: its rules as far as models of this project meet them.

Source: the errors of its endpoint ``/api/validate-yaml`` and huggingface.co/docs/hub/model-cards.
"""

import re

import yaml


def card_errors(card: str) -> list[str]:
    """What the Hub finds wrong with a card's metadata (its rules, as far as models of this project meet them)."""
    block = re.match(r"\s*---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    if block is None:
        return ["no metadata"]
    try:
        data = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        return [f"metadata is not YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be a mapping"]
    errors = [f'"{key}" is not allowed to be empty' for key, value in data.items() if value in (None, "", [])]
    many = {"tags": r".+", "base_model": r"[\w.-]+/[\w.-]+", "datasets": r"[\w.-]+(/[\w.-]+)?"}
    many["language"] = r"[a-z]{2,3}"
    one = {"library_name": r"[\w.-]+", "pipeline_tag": r"[a-z-]+", "license": r"[a-z0-9.-]+"}
    one["base_model_relation"] = r"finetune|quantized|adapter|merge"
    for key, pattern in (many | one).items():
        values = data.get(key, [])
        values = values if key in many and isinstance(values, list) else [values] if key in data else []
        if not all(isinstance(value, str) and re.fullmatch(pattern, value) for value in values):
            errors.append(f'"{key}" with value {data[key]!r} is not valid')
    for model in data.get("model-index", []):
        if not isinstance(model.get("name"), str) or not isinstance(model.get("results"), list):
            errors.append('"model-index" must have name and results')
            continue
        for result in model["results"]:
            errors += [f'"model-index" results need task.type and dataset.{key}' for key in ("type", "name")
                       if not isinstance(result.get("dataset", {}).get(key), str)
                       or not isinstance(result.get("task", {}).get("type"), str)]  # fmt: skip
            metrics = result.get("metrics") or [{}]
            errors += [f'"model-index" metric {metric} needs type and value' for metric in metrics
                       if not isinstance(metric.get("type"), str) or metric.get("value") is None]  # fmt: skip
    return errors
