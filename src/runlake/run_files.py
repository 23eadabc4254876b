"""What a run keeps as files: the half of `Run` that waits for the store.

When one of these calls returns, the file is in the store whole and an event about it is in the
journal. The content is checked before anything is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runlake import arguments
from runlake._lazy import lazy
from runlake.artifacts import media
from runlake.artifacts.media import Medium, Spot
from runlake.errors import InvalidInputError
from runlake.writing import values

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runlake.artifacts import figures, pictures, sheets, sound
    from runlake.artifacts.sending import Place
    from runlake.artifacts.store import Artifacts
    from runlake.run_log import RunLog
    from runlake.writing.events import Row
else:
    figures = lazy("runlake.artifacts.figures")
    pictures = lazy("runlake.artifacts.pictures")
    sheets = lazy("runlake.artifacts.sheets")
    sound = lazy("runlake.artifacts.sound")


class RunFiles:
    """The artifacts of one run, open for writing by this process; `Run` is one."""

    _artifacts: Artifacts
    _log: RunLog
    _paths: set[str]

    def _place(self) -> Place:
        """Return the ids of the run's experiment and of the run."""
        raise NotImplementedError

    def _events(self, rows: list[Row]) -> None:
        """Log rows that are no metric points, all of them or none."""
        raise NotImplementedError

    def _hurry(self) -> None:
        """Have what was logged in the store within two seconds."""
        raise NotImplementedError

    # Files as they are.

    def log_artifact(self, local_path: str | Path, artifact_path: str | None = None) -> None:
        """Upload one file, or a folder with all below it; returns when it is in the store.

        Args:
            local_path: the file or folder.
            artifact_path: folder below the run to put it in; None is the run's own.

        Raises:
            InvalidInputError: there is no such file, or the path leaves the run.
            StorageError: the store refused.
        """
        self._log.check_open()
        put = self._artifacts.put
        for row in put(self._place(), local_path, folder=artifact_path, is_journaled=True):
            self._put_at(row)

    def log_artifacts(self, local_dir: str | Path, artifact_path: str | None = None) -> None:
        """Upload all files below a folder; returns when they are in the store.

        Args:
            local_dir: the folder; its own name is left out.
            artifact_path: folder below the run to put them in; None is the run's own.

        Raises:
            InvalidInputError: there is no such folder, or the path leaves the run.
            StorageError: the store refused.
        """
        self._log.check_open()
        put = self._artifacts.put_all
        for row in put(self._place(), local_dir, folder=artifact_path, is_journaled=True):
            self._put_at(row)

    def log_text(self, text: str, artifact_file: str) -> None:
        """Write text as an artifact, in UTF-8; returns when it is in the store.

        Args:
            text: the content.
            artifact_file: path below the run, as `notes/summary.txt`.

        Raises:
            InvalidInputError: the path leaves the run.
            StorageError: the store refused.
        """
        self._log.check_open()
        row = self._artifacts.put_bytes(self._place(), artifact_file, data=_encoded(text))
        self._put_at(row)

    def log_dict(self, dictionary: Mapping[str, Any] | list[Any], artifact_file: str) -> None:
        """Write a mapping or list as an artifact: YAML where the path ends so, else JSON.

        Arrays and scalars of NumPy and its kin become lists and numbers; what the format does not
        know becomes its text.

        Args:
            dictionary: what JSON can hold, but for that.
            artifact_file: path below the run, as `config.json` or `config.yaml`.

        Raises:
            InvalidInputError: the path leaves the run, or the value cannot be written so.
            MissingDependencyError: YAML is asked for and PyYAML is not installed.
            StorageError: the store refused.
        """
        self._log.check_open()
        self._put_at(self._artifacts.put_dict(self._place(), artifact_file, value=dictionary))

    # Media: files that are shown by key and step.

    def log_image(
        self,
        image: object,
        artifact_file: str | None = None,
        *,
        key: str | None = None,
        step: int | None = None,
        timestamp: object = None,
        caption: str | None = None,
    ) -> None:
        """Keep an image under a path, or by key and step; returns when it is in the store.

        Args:
            image: a PIL image; an array of NumPy, torch or JAX of shape HxW, HxWx1 (grey), HxWx3
                (RGB) or HxWx4 (RGBA), of bool, whole numbers from 0 to 255 or floats from 0 to
                1; or the path or bytes of a PNG, JPEG, GIF or WebP, which is kept as it is.
            artifact_file: path below the run; its suffix says the format.
            key: what it is a picture of, instead of a path; each call adds an image.
            step: as of a metric; with a key, None means 0.
            timestamp: an aware datetime, or milliseconds since 1970; None means now.
            caption: what people read below it.

        Raises:
            InvalidInputError: it is no image, or its numbers are out of range; or neither or
                both of path and key are given.
            MissingDependencyError: the format needs Pillow, which is not installed.
            StorageError: the store refused.
        """
        self._log.check_open()
        spot = _spot("log_image", artifact_file, key, step, timestamp=timestamp, caption=caption)
        self._put(spot, pictures.picture(image, spot.suffix))

    def log_figure(
        self,
        figure: object,
        artifact_file: str | None = None,
        *,
        key: str | None = None,
        step: int | None = None,
        save_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a figure of Matplotlib or Plotly; returns when it is in the store.

        Args:
            figure: the figure, or Matplotlib's axes.
            artifact_file: path below the run; its suffix says the format: of Matplotlib `.png`,
                `.svg`, `.pdf` and more; of Plotly `.html` or `.json`, and images with kaleido.
            key: what it shows, instead of a path; each call adds a figure, as PNG or HTML.
            step: as of a metric; with a key, None means 0.
            save_kwargs: for Matplotlib's `savefig` or Plotly's writer, as `{"dpi": 200}`.

        Raises:
            InvalidInputError: it is no figure, or cannot be written so; or neither or both of
                path and key are given.
            MissingDependencyError: Plotly needs kaleido for this format.
            StorageError: the store refused.
        """
        self._log.check_open()
        spot = _spot("log_figure", artifact_file, key, step)
        self._put(spot, figures.drawn(figure, spot.suffix, save_kwargs=save_kwargs))

    def log_table(self, data: object, artifact_file: str, *, step: int | None = None) -> None:
        """Add rows to a table of the run; returns when they are in the store.

        Each call writes one Parquet file below the folder `artifact_file` and reads nothing, so
        that any number of processes may add to one table. `load_table` returns all of it.

        Args:
            data: a pandas or Polars frame, an Arrow table, a dict of columns, a dict of values
                (one row), or a list of dicts (rows).
            artifact_file: path below the run, as `predictions` or `predictions.json`.
            step: as of a metric; becomes a column `step`.

        Raises:
            InvalidInputError: it is no table, a column mixes types, or the path leaves the run.
            StorageError: the store refused.
        """
        self._log.check_open()
        path = arguments.path("artifact_file", artifact_file)
        whole = None if step is None else values.step(step)
        self._put(Spot(path, None, whole), sheets.sheet(data, step=whole))

    def log_audio(
        self,
        audio: object,
        artifact_file: str | None = None,
        *,
        key: str | None = None,
        step: int | None = None,
        rate: int | None = None,
        caption: str | None = None,
    ) -> None:
        """Keep a sound under a path, or by key and step; returns when it is in the store.

        Args:
            audio: samples: floats from -1 to 1 or 16-bit whole numbers of shape (n,), (n, 1) or
                (n, 2), kept as WAV; or the path or bytes of a WAV, FLAC, Ogg or MP3 file, which
                is kept as it is.
            artifact_file: path below the run.
            key: what it sounds like, instead of a path; each call adds a sound.
            step: as of a metric; with a key, None means 0.
            rate: samples per second; needed with samples.
            caption: what people read below it.

        Raises:
            InvalidInputError: it is no sound, or the samples are out of range; or neither or
                both of path and key are given.
            StorageError: the store refused.
        """
        self._log.check_open()
        spot = _spot("log_audio", artifact_file, key, step, caption=caption)
        self._put(spot, sound.sound(audio, spot.suffix, rate=rate))

    def log_html(
        self,
        html: object,
        artifact_file: str | None = None,
        *,
        key: str | None = None,
        step: int | None = None,
    ) -> None:
        """Keep a page of HTML under a path, or by key and step.

        Args:
            html: text, or anything that shows itself as HTML in a notebook.
            artifact_file: path below the run.
            key: what it shows, instead of a path; each call adds a page.
            step: as of a metric; with a key, None means 0.

        Raises:
            InvalidInputError: it is no text; or neither or both of path and key are given.
            StorageError: the store refused.
        """
        self._log.check_open()
        shown = getattr(html, "_repr_html_", None)
        text = shown() if callable(shown) and not isinstance(html, str) else html
        spot = _spot("log_html", artifact_file, key, step)
        self._put(spot, Medium(media.HTML, _encoded(text), ".html"))

    def log_markdown(
        self,
        markdown: str,
        artifact_file: str | None = None,
        *,
        key: str | None = None,
        step: int | None = None,
    ) -> None:
        """Keep Markdown under a path, or by key and step.

        Args:
            markdown: the text.
            artifact_file: path below the run.
            key: what it is about, instead of a path; each call adds a text.
            step: as of a metric; with a key, None means 0.

        Raises:
            InvalidInputError: it is no text; or neither or both of path and key are given.
            StorageError: the store refused.
        """
        self._log.check_open()
        spot = _spot("log_markdown", artifact_file, key, step)
        self._put(spot, Medium(media.MARKDOWN, _encoded(markdown), ".md"))

    def _put(self, spot: Spot, medium: Medium) -> None:
        path, about = spot.path(medium), spot.about(medium)
        if medium.file is None:
            row = self._artifacts.put_bytes(self._place(), path, data=medium.data, about=about)
        else:
            row = self._artifacts.put_file(self._place(), path, file=medium.file, about=about)
        if path == spot.artifact_file:
            self._put_at(row)
        else:  # a path that nothing had before
            self._events([row])

    def _put_at(self, row: Row) -> None:
        """Log a file under a path of the caller's own, which may have replaced another."""
        self._events([row])
        path = row[2]
        # Until the log says so, whoever fetches the file finds another than was logged.
        if path in self._paths:
            self._hurry()
        self._paths.add(path)


def _spot(
    what: str,
    artifact_file: str | None,
    key: str | None,
    step: object,
    *,
    timestamp: object = None,
    caption: str | None = None,
) -> Spot:
    """Return where a medium goes, everything about it checked."""
    if artifact_file is not None:
        artifact_file = arguments.path("artifact_file", artifact_file)
    media.check_one(what, artifact_file, key)
    whole = None if step is None else values.step(step)
    if key is not None:
        key = values.name("medium", key)
        whole = whole or 0
    moment = None if timestamp is None else values.time_us(timestamp)
    told = None if caption is None else values.text("caption", key or "", caption)
    return Spot(artifact_file, key, whole, time_us=moment, caption=told)


def _encoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise InvalidInputError(f"this takes text, got {arguments.kind(text)}.")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        message = f"this text is not Unicode: {error}."
        raise InvalidInputError(message) from error
