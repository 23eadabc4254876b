"""Hosts with wrong clocks, one after another, against a plain model of what MLflow's rules say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlake import schema
from runlake.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from tests.registry.hosts import Host
from tests.writing.drains import memory_filesystem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runlake.registry.registry import Registry

HOUR_US = 3_600_000_000
REFUSED = (AlreadyExistsError, InvalidInputError, NotFoundError)

names = st.sampled_from(["a", "b", "c"])
versions = st.integers(1, 4)
aliases = st.sampled_from(["champion", "challenger"])
stages = st.sampled_from(schema.STAGES)
texts = st.sampled_from(["", "x", "Größe"])
deeds = st.one_of(
    st.tuples(st.just("create"), names),
    st.tuples(st.just("register"), names),
    st.tuples(st.just("register"), names),
    st.tuples(st.just("rename"), names, names),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("delete_version"), names, versions),
    st.tuples(st.just("alias"), names, aliases, versions),
    st.tuples(st.just("unalias"), names, aliases),
    st.tuples(st.just("stage"), names, versions, stages, st.booleans()),
    st.tuples(st.just("tag"), names, texts),
    st.tuples(st.just("untag"), names),
    st.tuples(st.just("tag_version"), names, versions, texts),
    st.tuples(st.just("describe"), names, texts),
    st.tuples(st.just("copy"), names, versions, names),
)


class Reference:
    """The registry as dictionaries of one process, and nothing else."""

    def __init__(self) -> None:
        """Begin empty."""
        self.models: dict[str, dict[str, Any]] = {}

    def model(self, name: str) -> dict[str, Any]:
        """Return a model, or refuse."""
        if name not in self.models:
            raise NotFoundError(name)
        return self.models[name]

    def version(self, name: str, number: int) -> dict[str, Any]:
        """Return a version, or refuse."""
        found = self.model(name)["versions"]
        if number not in found:
            raise NotFoundError(str(number))
        version: dict[str, Any] = found[number]
        return version

    def create(self, name: str) -> None:
        if name in self.models:
            raise AlreadyExistsError(name)
        self.models[name] = {
            "given": 0,
            "versions": {},
            "aliases": {},
            "tags": {},
            "description": "",
        }

    def register(self, name: str) -> None:
        model = self.model(name)
        model["given"] += 1
        model["versions"][model["given"]] = {"stage": "None", "tags": {}}

    def rename(self, name: str, other: str) -> None:
        model = self.model(name)
        if name == other:
            return
        if other in self.models:
            raise AlreadyExistsError(other)
        self.models[other] = model
        del self.models[name]

    def delete(self, name: str) -> None:
        self.model(name)
        del self.models[name]

    def delete_version(self, name: str, number: int) -> None:
        self.version(name, number)
        model = self.models[name]
        del model["versions"][number]
        model["aliases"] = {key: of for key, of in model["aliases"].items() if of != number}

    def alias(self, name: str, alias: str, number: int) -> None:
        self.version(name, number)
        self.models[name]["aliases"][alias] = number

    def unalias(self, name: str, alias: str) -> None:
        self.model(name)["aliases"].pop(alias, None)

    def stage(self, name: str, number: int, stage: str, archive: bool) -> None:  # noqa: FBT001
        if archive and stage in {"None", "Archived"}:
            raise InvalidInputError(stage)
        version = self.version(name, number)
        for other in self.models[name]["versions"].values() if archive else ():
            if other["stage"] == stage:
                other["stage"] = "Archived"
        version["stage"] = stage

    def tag(self, name: str, text: str) -> None:
        self.model(name)["tags"]["t"] = text

    def untag(self, name: str) -> None:
        self.model(name)["tags"].pop("t", None)

    def tag_version(self, name: str, number: int, text: str) -> None:
        self.version(name, number)["tags"]["t"] = text

    def describe(self, name: str, text: str) -> None:
        self.model(name)["description"] = text

    def copy(self, name: str, number: int, other: str) -> None:
        source = self.version(name, number)
        if other not in self.models:
            self.create(other)
        self.register(other)
        model = self.models[other]
        model["versions"][model["given"]]["tags"] = dict(source["tags"])

    def state(self) -> dict[str, Any]:
        """Return what stands."""
        return {
            name: {key: about for key, about in model.items() if key != "given"}
            for name, model in self.models.items()
        }


def do(registry: Registry, deed: str, *given: Any) -> None:  # noqa: ANN401 - of any type
    """Do to the registry what `Reference` does to itself."""
    calls: dict[str, Callable[..., Any]] = {
        "create": registry.create_registered_model,
        "register": lambda name: registry.create_model_version(name, "s3://x"),
        "rename": registry.rename_registered_model,
        "delete": registry.delete_registered_model,
        "delete_version": registry.delete_model_version,
        "alias": registry.set_registered_model_alias,
        "unalias": registry.delete_registered_model_alias,
        "stage": lambda name, version, stage, archive: registry.transition_model_version_stage(
            name, version, stage, archive_existing_versions=archive
        ),
        "tag": lambda name, text: registry.set_registered_model_tag(name, "t", text),
        "untag": lambda name: registry.delete_registered_model_tag(name, "t"),
        "tag_version": lambda name, version, text: registry.set_model_version_tag(
            name, version, "t", text
        ),
        "describe": registry.update_registered_model,
        "copy": lambda name, version, other: registry.copy_model_version(
            f"models:/{name}/{version}", other
        ),
    }
    calls[deed](*given)


def state(registry: Registry) -> dict[str, Any]:
    """Return what stands, as a user sees it."""
    found: dict[str, Any] = {}
    for model in registry.search_registered_models():
        versions = registry.search_model_versions(f"name = '{model.name}'")
        found[model.name] = {
            "versions": {
                each.version: {"stage": each.current_stage, "tags": each.tags}
                for each in reversed(versions)
            },
            "aliases": model.aliases,
            "tags": model.tags,
            "description": model.description,
        }
    return found


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(st.tuples(st.integers(0, 2), deeds), min_size=5, max_size=25),
    skews=st.lists(st.sampled_from([0, HOUR_US, -HOUR_US]), min_size=3, max_size=3),
)
def test_hosts_with_wrong_clocks_do_what_one_process_would_do(
    script: list[tuple[int, tuple[Any, ...]]], skews: list[int], tmp_path: Path
) -> None:
    fs, reference = memory_filesystem(), Reference()
    Host(fs, tmp_path).storage.ensure_lake()
    hosts = [Host(fs, tmp_path, skew_us=skew) for skew in skews]
    for place, (deed, *given_) in script:
        refusal = None
        try:
            getattr(reference, deed)(*given_)
        except REFUSED as error:
            refusal = type(error)
        if refusal is None:
            do(hosts[place].registry, deed, *given_)
        else:
            with pytest.raises(refusal):
                do(hosts[place].registry, deed, *given_)
    for host in hosts:
        assert state(host.registry) == reference.state()
    numbers = {name: sorted(model.versions) for name, model in hosts[0].book.read().by_name.items()}
    assert numbers == {
        name: list(range(1, model["given"] + 1)) for name, model in reference.models.items()
    }
