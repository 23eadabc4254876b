"""The model registry: models and versions under names, agreed on by many hosts without a server."""
