"""YAML files -> typed, frozen recipes: fields, reading, errors in one line, JSON schema and reference."""
