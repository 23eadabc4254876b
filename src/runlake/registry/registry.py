"""The model registry: `lake.registry`, with the names of MLflow's client.

Every change is an event with who, where, when and why (`reason`), in the store when the call
returns; the audit trail is `SELECT * FROM registry_events`. Numbers of versions and names of
models are claimed, so that any number of hosts may register at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from runlake import arguments, ids, schema
from runlake.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    StateError,
)
from runlake.registry import book, uris, words
from runlake.registry.changing import Changing
from runlake.registry.entities import (
    ModelVersion,
    RegisteredModel,
    model_entity,
    version_entity,
)
from runlake.registry.promotion import judge
from runlake.storage import layout
from runlake.storage.model_claims import FIRST_CLAIM, ModelClaim, VersionClaim
from runlake.writing import values

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from runlake.writing.events import Row

_MODEL: Final = "registered model"
_TRIES: Final = 20


@final
class Registry(Changing):
    """Models and their versions under names, which any number of hosts agree on.

    `lake.registry` is it. Calls that change something wait until the store has it.
    """

    # Models.

    def create_registered_model(
        self,
        name: str,
        tags: Mapping[str, object] | None = None,
        *,
        description: str | None = None,
        creation_time: datetime | float | None = None,
        reason: str | None = None,
    ) -> RegisteredModel:
        """Make a model.

        Args:
            name: 1 to 500 printable characters without `/` and `:`.
            tags: its first tags.
            description: what it is.
            creation_time: when it was made, if not now, as of a model that comes from another
                registry: an aware datetime, or milliseconds since 1970.
            reason: why, for the audit trail.

        Returns:
            The model.

        Raises:
            AlreadyExistsError: the name is taken.
            InvalidInputError: the name, a tag or another text is wrong.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        words.check_name(name)
        texts = words.tags(tags)
        self._house.check_writable()
        for _ in range(_TRIES):
            known, (number, taken) = self._book.owner(name)
            if taken is not None:
                raise self._taken(name)
            model_id = ids.random_model_id() if number else ids.derived_model_id(name)
            claim = ModelClaim(
                **words.claim_facts(reason, creation_time),
                model_id=model_id,
                name=name,
                number=number + 1,
                description=words.text("description", description),
                tags=texts,
                home=layout.model_home(ids.name_hash(name), number + 1),
                renamed_from=None,
                renamed_claim=None,
            )
            if self._book.claim_name(claim):
                self._book.say([book.trace_model(claim)], known)
                return model_entity(self._book.read().models[model_id])
        raise self._taken(name)

    def rename_registered_model(
        self, name: str, new_name: str, *, reason: str | None = None
    ) -> RegisteredModel:
        """Give a model another name; the old one becomes free.

        Args:
            name: of the model.
            new_name: as for `create_registered_model`.
            reason: why, for the audit trail.

        Returns:
            The model under its new name.

        Raises:
            AlreadyExistsError: the new name is taken.
            ConflictError: somebody else renamed it at the same time.
            InvalidInputError: the new name is none.
            NotFoundError: there is no such model, or it was deleted meanwhile.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        words.check_name(new_name)
        _, model = self._model(name)
        if new_name == name:
            return model_entity(model)
        for _ in range(_TRIES):
            known, (number, taken) = self._book.owner(new_name)
            if taken is not None:
                raise self._taken(new_name)
            claim = ModelClaim(
                **words.claim_facts(reason),
                model_id=model.model_id,
                name=new_name,
                number=number + 1,
                description=None,
                tags={},
                home=model.home,
                renamed_from=model.claimed,
                renamed_claim=model.claim,
            )
            if self._book.claim_name(claim):
                self._book.say([book.trace_model(claim)], known)
                return self._renamed(model, new_name)
        raise self._taken(new_name)

    def update_registered_model(
        self, name: str, description: str | None, *, reason: str | None = None
    ) -> RegisteredModel:
        """Describe a model.

        Args:
            name: of the model.
            description: what it is; None takes the description away.
            reason: why, for the audit trail.

        Returns:
            The model as it is then.

        Raises:
            NotFoundError: there is no such model.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        value = words.text("description", description)
        known, model = self._model(name)
        about = words.about(reason, value=value)
        self._say(known, model, schema.REGISTRY_MODEL_UPDATE, "description", about=about)
        return model_entity(self._again(model))

    def delete_registered_model(self, name: str, *, reason: str | None = None) -> None:
        """Delete a model with all its versions; the name becomes free.

        Files of runs stay, and so does the audit trail.

        Args:
            name: of the model.
            reason: why, for the audit trail.

        Raises:
            NotFoundError: there is no such model.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        known, model = self._model(name)
        self._say(known, model, schema.REGISTRY_MODEL_DELETE, about=words.about(reason))

    def set_registered_model_tag(
        self, name: str, key: str, value: object, *, reason: str | None = None
    ) -> None:
        """Set a tag of a model.

        Args:
            name: of the model.
            key: 1 to 250 printable characters.
            value: kept as text.
            reason: why, for the audit trail.

        Raises:
            InvalidInputError: key or value is wrong.
            NotFoundError: there is no such model.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        text = values.text("tag", values.name("tag", key), value)
        known, model = self._model(name)
        about = words.about(reason, value=text)
        self._say(known, model, schema.REGISTRY_MODEL_TAG, key, about=about)

    def delete_registered_model_tag(
        self, name: str, key: str, *, reason: str | None = None
    ) -> None:
        """Take a tag of a model away; where it has none, nothing happens.

        Args:
            name: of the model.
            key: of the tag.
            reason: why, for the audit trail.

        Raises:
            NotFoundError: there is no such model.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        known, model = self._model(name)
        if key in model.tags:
            about = words.about(reason, value=None)
            self._say(known, model, schema.REGISTRY_MODEL_TAG, key, about=about)

    # Versions.

    def create_model_version(  # noqa: PLR0913 - one for each thing that a version says
        self,
        name: str,
        source: str,
        *,
        run_id: str | None = None,
        tags: Mapping[str, object] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        location: str | None = None,
        logged_model_id: str | None = None,
        creation_time: datetime | float | None = None,
        reason: str | None = None,
    ) -> ModelVersion:
        """Make the next version of a model; its number is given out once and for ever.

        Args:
            name: of the model.
            source: where its files come from: `runs:/<run id>/<path>`, an address of another
                version (`models:/...`), a URL or a path. It is not looked at; see
                `register_model`.
            run_id: the run that made it; None takes it from a source `runs:/...`.
            tags: its first tags.
            run_link: a link to that run.
            description: what it is.
            location: where its files lie, as `runs:/<run id>/<path>`, a URL or a path; None
                follows the source.
            logged_model_id: the logged model that it is.
            creation_time: when it was made, if not now, as of a version that comes from another
                registry: an aware datetime, or milliseconds since 1970.
            reason: why, for the audit trail.

        Returns:
            The version, with its number.

        Raises:
            InvalidInputError: a text is wrong.
            NotFoundError: there is no such model, or no version that the source names.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        texts = words.tags(tags)
        source = words.required("source", source)
        known, model = self._model(name)
        place, of_run = self._origin(source, location)
        claim = VersionClaim(
            **words.claim_facts(reason, creation_time),
            model_id=model.model_id,
            name=model.name,
            number=FIRST_CLAIM,
            description=words.text("description", description),
            tags=texts,
            source=source,
            location=place,
            run_id=of_run if run_id is None else values.run_id(run_id),
            run_link=words.text("run_link", run_link),
            logged_model_id=words.text("logged_model_id", logged_model_id),
        )
        values.text(_MODEL, name, claim.text)
        rows = self._book.claim_version(model, claim)
        self._book.say(rows, known)
        again = self._again(model)
        return version_entity(again, again.versions[int(rows[-1][3] or 0)])

    def register_model(
        self,
        model_uri: str,
        name: str,
        *,
        tags: Mapping[str, object] | None = None,
        description: str | None = None,
        reason: str | None = None,
    ) -> ModelVersion:
        """Make a version of a model from files that are there; make the model if there is none.

        Args:
            model_uri: `runs:/<run id>/<path>`, an address of another version (`models:/...`), a
                URL or a path.
            name: of the model.
            tags: the first tags of the version.
            description: what the version is.
            reason: why, for the audit trail.

        Returns:
            The version, with its number.

        Raises:
            InvalidInputError: a text is wrong.
            NotFoundError: there is no such version or run, or it has no such file or folder.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        words.check_name(name)
        self._house.check_writable()
        run_id = None
        if uris.is_run_uri(model_uri):
            run_id, path = uris.parse_run_uri(model_uri)
            self._check_artifact(run_id, path)
        elif uris.is_model_uri(model_uri):
            found = self.resolve(model_uri)
            run_id, place = found.run_id, self._source(found)
            if place.run_id is not None:
                self._check_artifact(place.run_id, place.path)
        self._ensure(name, reason)
        return self.create_model_version(
            name, model_uri, run_id=run_id, tags=tags, description=description, reason=reason
        )

    def copy_model_version(
        self, src_model_uri: str, dst_name: str, *, reason: str | None = None
    ) -> ModelVersion:
        """Make a version of a model, itself made if there is none, that is a copy of another.

        The copy has the source's run, tags and description, and the same files; it stays when
        the source is deleted.

        Args:
            src_model_uri: an address of a version, as `models:/<name>/<version>`.
            dst_name: the model that gets the copy.
            reason: why, for the audit trail.

        Returns:
            The copy.

        Raises:
            InvalidInputError: it is no such address, or the name is none.
            NotFoundError: there is no such version.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        words.check_name(dst_name)
        self._house.check_writable()
        found = self.resolve(src_model_uri)
        self._ensure(dst_name, reason)
        return self.create_model_version(
            dst_name,
            uris.model_uri(found.name, version=found.version),
            run_id=found.run_id,
            tags=found.tags,
            run_link=found.run_link,
            description=found.description or None,
            logged_model_id=found.logged_model_id,
            reason=reason,
        )

    def update_model_version(
        self,
        name: str,
        version: int | str,
        *,
        description: str | None,
        reason: str | None = None,
    ) -> ModelVersion:
        """Describe a version.

        Args:
            name: of the model.
            version: its number.
            description: what it is; None takes the description away.
            reason: why, for the audit trail.

        Returns:
            The version as it is then.

        Raises:
            NotFoundError: there is no such version.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        about = words.about(reason, value=words.text("description", description))
        kind = schema.REGISTRY_VERSION_UPDATE
        return self._change(name, version, kind, "description", about=about)

    def transition_model_version_stage(
        self,
        name: str,
        version: int | str,
        stage: str,
        *,
        archive_existing_versions: bool = False,
        reason: str | None = None,
    ) -> ModelVersion:
        """Move a version to a stage.

        Args:
            name: of the model.
            version: its number.
            stage: `None`, `Staging`, `Production` or `Archived`, in any case of letters.
            archive_existing_versions: archive all others that are in the stage; only for
                `Staging` and `Production`.
            reason: why, for the audit trail.

        Returns:
            The version as it is then.

        Raises:
            InvalidInputError: it is no stage, or none for which others may be archived.
            NotFoundError: there is no such version.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        stage = uris.stage(stage)
        if archive_existing_versions and stage in {schema.STAGE_NONE, schema.STAGE_ARCHIVED}:
            raise InvalidInputError(
                f"archive_existing_versions goes with Staging and Production, not with {stage}."
            )
        about = words.about(reason)
        if archive_existing_versions:
            about["archive_existing"] = True
        return self._change(name, version, schema.REGISTRY_VERSION_STAGE, stage, about=about)

    def delete_model_version(
        self, name: str, version: int | str, *, reason: str | None = None
    ) -> None:
        """Delete a version with its aliases; its number is never given out again.

        Files of runs stay, and so does the audit trail.

        Args:
            name: of the model.
            version: its number.
            reason: why, for the audit trail.

        Raises:
            NotFoundError: there is no such version.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        known, model = self._model(name)
        found = self._version(model, version)
        kind, about = schema.REGISTRY_VERSION_DELETE, words.about(reason)
        self._say(known, model, kind, number=found.number, about=about)

    def set_model_version_tag(
        self,
        name: str,
        version: int | str,
        key: str,
        value: object,
        *,
        reason: str | None = None,
    ) -> None:
        """Set a tag of a version.

        Args:
            name: of the model.
            version: its number.
            key: 1 to 250 printable characters.
            value: kept as text.
            reason: why, for the audit trail.

        Raises:
            InvalidInputError: key or value is wrong.
            NotFoundError: there is no such version.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        text = values.text("tag", values.name("tag", key), value)
        kind, about = schema.REGISTRY_VERSION_TAG, words.about(reason, value=text)
        known, model = self._model(name)
        number = self._version(model, version).number
        self._say(known, model, kind, key, number=number, about=about)

    def delete_model_version_tag(
        self, name: str, version: int | str, key: str, *, reason: str | None = None
    ) -> None:
        """Take a tag of a version away; where it has none, nothing happens.

        Args:
            name: of the model.
            version: its number.
            key: of the tag.
            reason: why, for the audit trail.

        Raises:
            NotFoundError: there is no such version.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        known, model = self._model(name)
        found = self._version(model, version)
        if key in found.tags:
            kind, about = schema.REGISTRY_VERSION_TAG, words.about(reason, value=None)
            self._say(known, model, kind, key, number=found.number, about=about)

    # Aliases.

    def set_registered_model_alias(
        self, name: str, alias: str, version: int | str, *, reason: str | None = None
    ) -> None:
        """Let an alias mean a version; it is taken from any other.

        Of two that move it at once one is the later, for every reader the same; both are in
        the audit trail.

        Args:
            name: of the model.
            alias: letters, digits, `_` and `-`, at most 255; not `latest`, not `v` and a number.
            version: its number.
            reason: why, for the audit trail.

        Raises:
            InvalidInputError: it is no alias.
            NotFoundError: there is no such version.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        words.check_alias(alias)
        known, model = self._model(name)
        number = self._version(model, version).number
        about = words.about(reason, **words.before(model, alias))
        self._say(known, model, schema.REGISTRY_ALIAS, alias, number=number, about=about)

    def delete_registered_model_alias(
        self, name: str, alias: str, *, reason: str | None = None
    ) -> None:
        """Take an alias away; where the model has none, nothing happens.

        Args:
            name: of the model.
            alias: of a version.
            reason: why, for the audit trail.

        Raises:
            NotFoundError: there is no such model.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        known, model = self._model(name)
        if arguments.text("alias", alias) in model.aliases:
            about = words.about(reason, version=model.aliases[alias])
            self._say(known, model, schema.REGISTRY_ALIAS, alias, about=about)

    def promote(
        self,
        name: str,
        version: int | str,
        alias: str,
        *,
        require: str | None = None,
        reason: str | None = None,
    ) -> ModelVersion:
        """Let an alias mean a version, if the run that made it meets a condition.

        That it was tried is in the audit trail either way, with what the run had.

        Args:
            name: of the model.
            version: its number.
            alias: as for `set_registered_model_alias`.
            require: a condition in the language of `search_runs`, like `metrics.acc > 0.9`; it
                is held against the run as the store holds it now. None requires nothing.
            reason: why, for the audit trail.

        Returns:
            The version, with its alias.

        Raises:
            FilterSyntaxError: the condition cannot be read.
            InvalidInputError: it is no alias, or the condition is empty.
            NotFoundError: there is no such version.
            StateError: the run does not meet the condition, or nobody knows the run; or the
                lake is read-only.
            StorageError: the store refused.
        """
        words.check_alias(alias)
        known, model = self._model(name)
        found = self._version(model, version)
        ruling = judge(self._house, found.fact("run_id"), require)
        said = {schema.REGISTRY_PROMOTION: ruling.about}
        if ruling.refusal is None:
            said[schema.REGISTRY_ALIAS] = words.before(model, alias)
        rows: list[Row] = [
            (
                model.model_id,
                kind,
                alias,
                float(found.number),
                book.text(words.about(reason, **more)),
            )
            for kind, more in said.items()
        ]
        self._book.say(rows, known)
        if ruling.refusal is not None:
            what = f"version {found.number} of {model.name!r} is not promoted to {alias!r}"
            raise StateError(f"{what}: {ruling.refusal}", url=self._book.url)
        again = self._again(model)
        return version_entity(again, again.versions[found.number])

    # Inside.

    def _origin(self, source: str, location: str | None) -> tuple[str, str | None]:
        """Return where the files of a source lie, and the run that it names, if any."""
        if location is not None:
            return words.required("location", location), None
        if uris.is_model_uri(source):
            return self.resolve(source).location, None
        if uris.is_run_uri(source):
            run_id, path = uris.parse_run_uri(source)
            return uris.run_uri(run_id, path), run_id
        return source, None

    def _ensure(self, name: str, reason: str | None) -> None:
        """Make a model if there is none."""
        try:
            self._read(name)
        except NotFoundError:
            try:
                self.create_registered_model(name, reason=reason)
            except AlreadyExistsError:
                return  # somebody else has made it just now
