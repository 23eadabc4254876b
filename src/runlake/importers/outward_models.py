"""Registered models on their way into MLflow: versions with their numbers, aliases, tags, stages.

Numbers that the lake gave out and deleted are given out and deleted there too. The tag
`runlake.versions` of a model says how many were given out. What is there already gets what the
lake says of it; what only MLflow has stays.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake._lazy import need
from runlake.importers.mlflow_client import told
from runlake.importers.mlflow_logged import FOLDER
from runlake.importers.outward_run import lacking
from runlake.importers.source import Note, SourceError
from runlake.registry import uris

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runlake.importers.report import Report
    from runlake.query.registered import Model, Registered, Version

VERSIONS: Final = "runlake.versions"
PLACEHOLDER: Final = "deleted:/in-the-lake"  # with a scheme: a server refuses paths of its own
_PAGE: Final = 1000
_MISSING: Final = "RESOURCE_DOES_NOT_EXIST"


class RegistryOut:
    """The registered models of a lake on their way."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - MLflow's
        report: Report,
        *,
        runs: Mapping[str, str],
        logged: Mapping[str, tuple[str, str]],
    ) -> None:
        """Send nothing yet.

        Args:
            client: MLflow's.
            report: takes what is done.
            runs: MLflow's ids of runs, by those in the lake.
            logged: MLflow's ids of logged models and where their files lie, by their ids in the
                lake.
        """
        self._client, self._report = client, report
        self._runs, self._logged = runs, logged

    def send(self, standing: Registered) -> None:
        """Bring all models, and compare what is there then.

        Args:
            standing: as the lake has them.
        """
        for name, model in standing.by_name.items():
            try:
                with told(self._report.target):
                    self._one(name, model)
            except SourceError as error:
                self._report.fail(f"registered model {name!r} did not go: {error}")

    def _one(self, name: str, model: Model) -> None:
        client, report = self._client, self._report
        there = self._model(name)
        if there is None:
            there = client.create_registered_model(name, model.tags, model.description)
            report.add(models=1)
            report.lose("", [Note("times of registered models are those of the export")])
        elif (there.description or "") != (model.description or ""):
            client.update_registered_model(name, model.description or "")
        for key, text in lacking(model.tags, there.tags):
            client.set_registered_model_tag(name, key, text)
        gone = self._send_versions(name, model, there)
        for alias, number in model.aliases.items():
            if number not in gone and there.aliases.get(alias) not in {number, str(number)}:
                client.set_registered_model_alias(name, alias, str(number))
        for problem in [*self._differences(name, model, gone)][:3]:
            report.fail(f"registered model {name!r}: {problem}")

    def _send_versions(self, name: str, model: Model, there: Any) -> set[int]:  # noqa: ANN401 - MLflow's
        """Bring the versions of a model; return those that somebody deleted there."""
        known = self._versions(name)
        counted = int(there.tags.get(VERSIONS, "0"))
        made = max([*known, counted])
        gone: set[int] = set()
        for number, version in sorted(model.versions.items()):
            if number not in known and number <= made:
                if not version.is_deleted:
                    gone.add(number)
                    note = Note("version that was deleted there", f"{name} {number}")
                    self._report.lose("", [note])
                continue
            found = known.get(number) or self._make(name, version)
            if number > counted:
                # Before it is deleted: nothing would say then that its number was given out.
                self._client.set_registered_model_tag(name, VERSIONS, str(number))
            self._update(name, version, found)
        return gone

    def _model(self, name: str) -> Any:  # noqa: ANN401 - MLflow's
        """Return what MLflow has under a name; None: nothing."""
        try:
            return self._client.get_registered_model(name)
        except need("mlflow.exceptions").MlflowException as error:
            if error.error_code != _MISSING:
                raise
            return None

    def _versions(self, name: str) -> dict[int, Any]:
        """Return the versions that MLflow has of a model, by number."""
        quoted = f'name="{name}"' if "'" in name else f"name='{name}'"
        found: dict[int, Any] = {}
        token = None
        while True:
            page = self._client.search_model_versions(quoted, max_results=_PAGE, page_token=token)
            found.update((int(each.version), each) for each in page)
            token = page.token
            if not token:
                return found

    def _make(self, name: str, version: Version) -> Any:  # noqa: ANN401 - MLflow's
        """Make a version under its number; of one that the lake deleted what stands for it.

        Raises:
            SourceError: MLflow gives it another number.
        """
        client, report = self._client, self._report
        if version.is_deleted:
            made = client.create_model_version(name, PLACEHOLDER)
        else:
            source, model_id = self._source(version)
            run_id = version.fact("run_id")
            if run_id is not None and run_id not in self._runs:
                note = Note("run of a version that has not gone along", f"{name} {version.number}")
                report.lose("", [note])
            mlflow_id = self._runs.get(run_id or "")
            # A server takes a source within a model only with its id. Without a server and a run,
            # MLflow would look for the model in another store, its default one.
            is_served = report.target.startswith("http")
            is_told = model_id is not None and (is_served or mlflow_id is not None)
            model = {"model_id": model_id} if is_told else {}
            made = client.create_model_version(
                name,
                source,
                mlflow_id,
                version.tags,
                version.fact("run_link"),
                version.description,
                await_creation_for=0,
                **model,
            )
            report.add(versions=1)
        if int(made.version) != version.number:
            client.delete_model_version(name, made.version)
            raise SourceError(f"version {version.number} would be {made.version} there.")
        return made

    def _source(self, version: Version) -> tuple[str, str | None]:
        """Return where the files of a version lie now, and which logged model it is."""
        logged = self._logged.get(version.fact("logged_model_id") or "")
        if logged is not None:
            return logged[1], logged[0]
        source = version.fact("source") or ""
        for said in (version.fact("location") or "", source):
            if not uris.is_run_uri(said):
                continue
            run_id, path = uris.parse_run_uri(said)
            folder, _, rest = path.partition("/")
            made = self._logged.get(rest.partition("/")[0])
            if folder == FOLDER and made is not None:
                return made[1], made[0]
            if run_id in self._runs:
                return uris.run_uri(self._runs[run_id], path), None
        return source, None

    def _update(self, name: str, version: Version, there: Any) -> None:  # noqa: ANN401 - MLflow's
        """Give a version that is there what the lake says of it."""
        client = self._client
        if version.is_deleted:
            if there.source == PLACEHOLDER:
                client.delete_model_version(name, there.version)
            else:
                about = f"{name} {version.number}"
                self._report.lose("", [Note("version that the lake deleted stays there", about)])
            return
        if (there.description or "") != (version.description or ""):
            client.update_model_version(name, there.version, version.description or "")
        for key, text in lacking(version.tags, there.tags):
            client.set_model_version_tag(name, there.version, key, text)
        if (there.current_stage or schema.STAGE_NONE) != version.stage:
            self._stage(name, there.version, version.stage)

    def _stage(self, name: str, number: str, stage: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages will go, MLflow says each time
            self._client.transition_model_version_stage(name, number, stage)

    def _differences(self, name: str, model: Model, gone: set[int]) -> Iterator[str]:
        """Compare a model with what MLflow says of it."""
        there = self._model(name)
        if (there.description or "") != (model.description or ""):
            yield "its description is another there."
        yield from (
            f"its tag {key!r} is another there." for key, _ in lacking(model.tags, there.tags)
        )
        aliases = {alias: int(number) for alias, number in there.aliases.items()}
        for alias, number in model.aliases.items():
            if number not in gone and aliases.get(alias) != number:
                yield f"its alias {alias!r} is another there."
        known = self._versions(name)
        for version in (each for each in model.shown if each.number not in gone):
            found = known.get(version.number)
            if found is None:
                yield f"its version {version.number} is not there."
                continue
            said = found.description or "", found.current_stage or schema.STAGE_NONE
            if said != (version.description or "", version.stage) or lacking(
                version.tags, found.tags
            ):
                yield f"its version {version.number} is another there."
