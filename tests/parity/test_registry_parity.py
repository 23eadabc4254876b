"""The same registry in a real MLflow and in a lake, changed alike, asked alike."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlake.errors import RunlakeError
from runlake.lake import open_lake
from tests.registry.hosts import dice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    from runlake.registry.registry import Registry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # MLflow's use of SQLAlchemy, and what it says of stages.
    pytest.mark.filterwarnings("ignore"),
]
NAMES: Final = ("digits", "Digits", "letters", "a%c", "a_c", "Größe")
RUNS: Final = ("0" * 32, "1" * 32, None)
TAGS: Final = {"team": ("vision", "Vision", "a%"), "stage of life": ("new", "old")}
STAGES: Final = ("None", "Staging", "Production", "Archived")
ALIASES: Final = ("champion", "challenger", "b-1")
CHANGES: Final = 120


class Twins(NamedTuple):
    """Both."""

    store: SqlAlchemyStore
    registry: Registry


def change_mlflow(store: SqlAlchemyStore, deed: str, *given_: Any) -> Any:  # noqa: ANN401
    """Do it to MLflow."""
    from mlflow.entities import model_registry as entities  # noqa: PLC0415 - takes seconds

    def create_version(
        name: str, source: str, run_id: str | None, tags: dict[str, str], text: str | None
    ) -> object:
        given_tags = [entities.ModelVersionTag(*each) for each in tags.items()]
        return store.create_model_version(name, source, run_id, given_tags, description=text)

    def create(name: str, tags: dict[str, str], text: str | None) -> object:
        given_tags = [entities.RegisteredModelTag(*each) for each in tags.items()]
        return store.create_registered_model(name, given_tags, text)

    calls: dict[str, Callable[..., Any]] = {
        "create": create,
        "create_version": create_version,
        "stage": store.transition_model_version_stage,
        "alias": store.set_registered_model_alias,
        "unalias": store.delete_registered_model_alias,
        "delete_version": store.delete_model_version,
        "delete": store.delete_registered_model,
        "rename": store.rename_registered_model,
        "tag": lambda name, key, value: store.set_registered_model_tag(
            name, entities.RegisteredModelTag(key, value)
        ),
        "untag": store.delete_registered_model_tag,
        "tag_version": lambda name, version, key, value: store.set_model_version_tag(
            name, version, entities.ModelVersionTag(key, value)
        ),
        "untag_version": store.delete_model_version_tag,
        "describe": store.update_registered_model,
        "describe_version": store.update_model_version,
        "get": store.get_registered_model,
        "get_version": store.get_model_version,
        "by_alias": store.get_model_version_by_alias,
        "latest": store.get_latest_versions,
    }
    return calls[deed](*given_)


def change_lake(registry: Registry, deed: str, *given_: Any) -> Any:  # noqa: ANN401
    """Do it to the lake."""
    calls: dict[str, Callable[..., Any]] = {
        "create": lambda name, tags, text: registry.create_registered_model(
            name, tags, description=text
        ),
        "create_version": lambda name, source, run_id, tags, text: registry.create_model_version(
            name, source, run_id=run_id, tags=tags, description=text
        ),
        "stage": lambda name, version, stage, archive: registry.transition_model_version_stage(
            name, version, stage, archive_existing_versions=archive
        ),
        "alias": registry.set_registered_model_alias,
        "unalias": registry.delete_registered_model_alias,
        "delete_version": registry.delete_model_version,
        "delete": registry.delete_registered_model,
        "rename": registry.rename_registered_model,
        "tag": registry.set_registered_model_tag,
        "untag": registry.delete_registered_model_tag,
        "tag_version": registry.set_model_version_tag,
        "untag_version": registry.delete_model_version_tag,
        "describe": registry.update_registered_model,
        "describe_version": lambda name, version, text: registry.update_model_version(
            name, version, description=text
        ),
        "get": registry.get_registered_model,
        "get_version": registry.get_model_version,
        "by_alias": registry.get_model_version_by_alias,
        "latest": registry.get_latest_versions,
    }
    return calls[deed](*given_)


def draw(seed: int, count: int) -> list[tuple[Any, ...]]:
    """Return changes, of which many are refused."""
    chance = dice(seed)
    script: list[tuple[Any, ...]] = [("create", name, {}, None) for name in NAMES[:4]]
    for number in range(count):
        name, other = chance.choice(NAMES), chance.choice(NAMES)
        version, alias = chance.randint(1, 8), chance.choice((*ALIASES, "latest", "v1", "a b", ""))
        key = chance.choice(sorted(TAGS))
        value = chance.choice(TAGS[key])
        text = chance.choice(["", "what it is", f"text {number}"])
        archive = chance.random() < 0.5
        stage = chance.choice((*STAGES, "production", "best"))
        tags = {key: value} if chance.random() < 0.5 else {}
        source = f"s3://models/{number % 7}"
        script.append(
            chance.choice(
                [
                    *[("create_version", name, source, chance.choice(RUNS), tags, text or None)]
                    * 4,
                    *[("stage", name, version, stage, archive)] * 3,
                    *[("alias", name, alias, version)] * 3,
                    *[("tag_version", name, version, key, value)] * 2,
                    ("create", chance.choice([*NAMES, "a/b", "a:b", " "]), tags, text),
                    ("unalias", name, chance.choice(ALIASES)),
                    ("delete_version", name, version),
                    ("tag", name, key, value),
                    ("untag", name, key),
                    ("untag_version", name, version, key),
                    ("describe", name, text),
                    ("describe_version", name, version, text),
                    ("get_version", name, version),
                    ("by_alias", name, chance.choice(ALIASES)),
                    ("latest", name, [stage]),
                    *([("rename", name, other)] if number % 3 == 0 and name != other else []),
                    *([("delete", name)] if number % 9 == 0 else []),
                ]
            )
        )
    return script


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """Both, empty but for what earlier tests did to both."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("DO_NOT_TRACK", "true")
        patch.setenv("RUNLAKE_JOURNAL", str(folder / "state"))
        from mlflow.store.model_registry.sqlalchemy_store import (  # noqa: PLC0415 - seconds
            SqlAlchemyStore,
        )

        store = SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}")
        with open_lake(folder / "lake") as lake:
            yield Twins(store, lake.registry)
        store.engine.dispose()


def plain_version(found: Any) -> dict[str, Any]:  # noqa: ANN401 - of either
    """Return what both say of a version."""
    return {
        "name": found.name,
        "version": int(found.version),
        "description": found.description or "",
        "stage": found.current_stage,
        "source": found.source,
        "run_id": found.run_id,
        "status": found.status,
        "tags": dict(found.tags),
        "aliases": sorted(found.aliases),
    }


def plain_model(found: Any) -> dict[str, Any]:  # noqa: ANN401 - of either
    """Return what both say of a model."""
    return {
        "name": found.name,
        "description": found.description or "",
        "tags": dict(found.tags),
        "aliases": {alias: int(version) for alias, version in found.aliases.items()},
        # MLflow leaves their aliases out here, and says them of each version alone.
        "latest": {
            each.current_stage: {**plain_version(each), "aliases": []}
            for each in found.latest_versions
        },
    }


def plain(found: Any) -> Any:  # noqa: ANN401 - of either
    """Return what both say of anything."""
    if isinstance(found, list):
        return sorted((plain(each) for each in found), key=str)
    if hasattr(found, "latest_versions"):
        return plain_model(found)
    return plain_version(found) if hasattr(found, "current_stage") else found


def all_of(twins: Twins) -> tuple[Any, Any]:
    """Return what stands in both."""
    store, registry = twins
    # A search of MLflow's leaves aliases out.
    versions = [
        store.get_model_version(each.name, each.version) for each in store.search_model_versions()
    ]
    theirs = [plain(store.search_registered_models()), plain(versions)]
    ours = [
        plain(list(registry.search_registered_models())),
        plain(list(registry.search_model_versions())),
    ]
    return theirs, ours


def test_changes_have_the_same_outcome_and_leave_the_same_state(twins: Twins) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds

    for number, (deed, *given_) in enumerate(draw(1, CHANGES)):
        theirs: Any = "refused"
        ours: Any = "refused"
        with suppress(MlflowException):
            theirs = plain(change_mlflow(twins.store, deed, *given_))
        with suppress(RunlakeError):
            ours = plain(change_lake(twins.registry, deed, *given_))
        if deed in {"create", "rename", "describe", "stage", "describe_version"}:
            # Of changes, what is returned is half of the state; the state is compared below.
            assert (theirs == "refused") == (ours == "refused"), (deed, given_, theirs, ours)
        else:
            assert ours == theirs, (deed, given_)
        if number % 40 == 0:
            wanted, found = all_of(twins)
            assert found == wanted
    wanted, found = all_of(twins)
    assert found == wanted
    assert len(wanted[1]) > 10


texts = st.sampled_from(
    ["'digits'", "'d%'", "'D_gits'", "'a_c'", "'%E'", '"letters"', "'s3://models/1'", "'vision'"]
)
comparisons = st.one_of(
    st.tuples(st.sampled_from(["name"]), st.sampled_from(["=", "!=", "LIKE", "ILIKE"]), texts),
    st.tuples(
        st.sampled_from(["tags.team", "tag.team", "tags.`stage of life`", "tags.none"]),
        st.sampled_from(["=", "!=", "LIKE", "ILIKE"]),
        texts,
    ),
)
of_versions = st.one_of(
    comparisons,
    st.tuples(
        st.just("version_number"),
        st.sampled_from(["=", "!=", ">", ">=", "<", "<="]),
        st.sampled_from(["1", "3", "5"]),
    ),
    st.tuples(
        st.just("source_path"),
        st.sampled_from(["=", "!=", "LIKE", "ILIKE"]),
        st.sampled_from(["'s3://models/1'", "'%4'", "'S3%'"]),
    ),
    st.tuples(
        st.just("run_id"),
        st.sampled_from(["IN", "NOT IN"]),
        st.sampled_from([f"('{'0' * 32}')", f"('{'0' * 32}', '{'1' * 32}')"]),
    ),
    st.tuples(st.just("name"), st.sampled_from(["IN", "NOT IN"]), st.just("('digits', 'a_c')")),
)
quietly = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def filled(twins: Twins) -> Twins:
    """Both, with models and versions to search."""
    for deed, *given_ in draw(2, 80):
        for do, to in ((change_mlflow, twins.store), (change_lake, twins.registry)):
            with suppress(Exception):
                do(to, deed, *given_)
    wanted, found = all_of(twins)
    assert found == wanted
    return twins


@quietly
@given(
    parts=st.lists(of_versions, max_size=3),
    order=st.lists(
        st.sampled_from(["name", "name DESC", "version_number", "version_number DESC"]),
        max_size=2,
        unique_by=lambda key: key.split()[0],
    ),
)
def test_mlflows_filters_find_the_same_versions_in_the_same_order(
    filled: Twins, parts: list[tuple[str, str, str]], order: list[str]
) -> None:
    text = " AND ".join(" ".join(part) for part in parts)
    theirs = filled.store.search_model_versions(text, 1000, order)
    ours = filled.registry.search_model_versions(text, order_by=order)
    assert [(each.name, each.version) for each in ours] == [
        (each.name, int(each.version)) for each in theirs
    ]


@quietly
@given(
    parts=st.lists(comparisons, max_size=3, unique_by=lambda part: part[0]),
    order=st.sampled_from([[], ["name"], ["name DESC"], ["name ASC"]]),
)
def test_mlflows_filters_find_the_same_models_in_the_same_order(
    filled: Twins, parts: list[tuple[str, str, str]], order: list[str]
) -> None:
    text = " AND ".join(" ".join(part) for part in parts)
    theirs = filled.store.search_registered_models(text, 1000, order)
    ours = filled.registry.search_registered_models(text, order_by=order)
    assert [each.name for each in ours] == [each.name for each in theirs]
