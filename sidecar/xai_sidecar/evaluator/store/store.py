"""Samples of live traffic with their maps, scores and ground truths, in a database.

    samples ─┬─ predictions
             ├─ pictures                 only while the sample is pending
             ├─ thumbnails, model_inputs  for a time of their own
             ├─ maps                      within a bound of their own
             ├─ explained, scores, curves, top_classes, class_outcomes
             └─ ground_truths ─┬─ ground_truth_classes
                               └─ ground_truth_objects

Rows to the right are removed with their sample.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from operator import attrgetter

from sqlalchemy import Insert, and_, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from xai_sidecar.errors import NotFoundError
from xai_sidecar.evaluator.records import GroundTruth, MapRecord, SampleKey, SampleRecord, SampleState, ScoreRecord
from xai_sidecar.evaluator.store import recent, rows, truths
from xai_sidecar.evaluator.store.changes import Change
from xai_sidecar.evaluator.store.database import Database
from xai_sidecar.evaluator.store.detail_store import DetailBounds, DetailStore
from xai_sidecar.evaluator.store.details import explained_row, put_classes, put_explained, recount_explained
from xai_sidecar.evaluator.store.opening import open_database
from xai_sidecar.evaluator.store.outcomes import Outcome, put_unknown, update_outcomes
from xai_sidecar.evaluator.store.queries import is_sample, load, locked, put_scores, recount
from xai_sidecar.evaluator.store.rows import KeptPicture
from xai_sidecar.evaluator.store.sizes import remove_oldest
from xai_sidecar.evaluator.store.small import TopClass
from xai_sidecar.evaluator.store.tables import (
    ground_truths,
    maps,
    pictures,
    predictions,
    samples,
    scores,
)
from xai_sidecar.evaluator.store.truths import Reported, TruthClasses

_INSERT_NEW: dict[str, Insert] = {
    "sqlite": sqlite.insert(samples).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(samples).on_conflict_do_nothing(),
}


class Store(DetailStore):
    """Stores samples, their maps, scores and ground truth. It may be used from several threads at once.

    What a method writes outlasts a crash of the process or of the machine once the method has returned. Writing to a
    sample that has been removed meanwhile does nothing; only `put_truth` raises an error then.

    Every method but `close` raises `StoreError` if the database fails.

    Args:
        database: A prepared database.
        max_bytes: Largest size; see `prune`.
        retention_seconds: How long samples are kept.
        bounds: Bounds of what goes before its sample does.
    """

    def __init__(
        self, database: Database, *, max_bytes: int, retention_seconds: float, bounds: DetailBounds | None = None
    ) -> None:
        super().__init__(database, bounds or DetailBounds())
        self._max_bytes = max_bytes
        self._retention_seconds = retention_seconds
        self._truth_bounds = truths.TruthBounds(max_bytes)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        max_bytes: int,
        retention_seconds: float,
        bounds: DetailBounds | None = None,
        claim: bool = False,
    ) -> Store:
        """Opens a database, or creates it, and brings it to the newest version.

        Args:
            url: See `open_database`.
            max_bytes: See above.
            retention_seconds: See above.
            bounds: See above.
            claim: Whether to `claim` it, before anything else.

        Raises:
            ConfigError: It cannot be used, and is as it was.
        """
        database = open_database(url, claim=claim)
        return cls(database, max_bytes=max_bytes, retention_seconds=retention_seconds, bounds=bounds)

    # ------------------------------------------------------------------------------------------------ samples

    def add_sample(
        self, record: SampleRecord, kept: KeptPicture | None = None, classes: Sequence[TopClass] = ()
    ) -> bool:
        """Stores a sample.

        Args:
            record: The sample.
            kept: Its arrays, if it is to outlast a restart; removed when the sample is no longer pending.
            classes: The most probable classes, the most probable first, for those who look at it.

        Returns:
            Whether it is new; if not, nothing has changed.
        """
        picture = None if kept is None else rows.picture_row(kept)  # packed before others wait for the transaction
        with self._database.write(growing=True) as connection:
            row = {**rows.sample_row(record), "byte_count": 0, "outcomes": int(Outcome.UNKNOWN)}
            new = connection.execute(
                _INSERT_NEW[connection.dialect.name], row, execution_options={"preserve_rowcount": True}
            )
            if new.rowcount == 0:
                return False
            sample_id = locked(connection, record.key)
            if sample_id is None:
                return False
            if record.positives:
                positives = [{"sample_id": sample_id, "class_id": class_id} for class_id in record.positives]
                connection.execute(insert(predictions), positives)
            put_unknown(connection, sample_id, record.positives)
            put_classes(connection, sample_id, classes)
            if picture is not None:
                connection.execute(insert(pictures), {"sample_id": sample_id, **picture})
            recount(connection, sample_id)
        self.changes.put(record.key, Change.NEW)
        return True

    def sample(self, key: SampleKey) -> SampleRecord | None:
        """A sample; None if there is none of that key."""
        with self._database.read() as connection:
            return load(connection, key)

    def states(self) -> list[tuple[SampleKey, SampleState]]:
        """The states of all samples, in the order in which they were kept."""
        with self._database.read() as connection:
            return recent.load_states(connection)

    def set_state(self, key: SampleKey, state: SampleState) -> None:
        """Sets a sample's state, unless it is AMBIGUOUS. The arrays of one that is no longer pending are removed."""
        with self._database.write() as connection:
            sample_id = locked(connection, key)
            if sample_id is None:
                return
            open_ended = samples.c.state != rows.code_of(SampleState.AMBIGUOUS)
            this = and_(samples.c.id == sample_id, open_ended)
            connection.execute(update(samples).where(this).values(state=rows.code_of(state)))
            if state is not SampleState.PENDING:
                removed = connection.execute(delete(pictures).where(pictures.c.sample_id == sample_id)).rowcount
                if removed:
                    recount(connection, sample_id)
        if state is not SampleState.PENDING:
            self.changes.put(key, Change.MEASURED)

    def set_ood(self, key: SampleKey, ood: tuple[float, float]) -> None:
        """Stores a sample's OoD score and percentile."""
        with self._database.write() as connection:
            score, percentile = ood
            connection.execute(update(samples).where(is_sample(key)).values(ood_score=score, ood_percentile=percentile))

    def pending(self) -> Iterator[tuple[SampleRecord, KeptPicture | None]]:
        """The samples that are pending at the first step, the oldest first, each with its arrays if they were kept.

        They are read one by one; those that are no longer pending by then are left out.
        """
        waiting = (
            select(samples.c.request_id, samples.c.image_index)
            .where(samples.c.state == rows.code_of(SampleState.PENDING))
            .order_by(samples.c.time, samples.c.id)
        )
        with self._database.read() as connection:
            keys = [SampleKey(*row) for row in connection.execute(waiting)]
        for key in keys:
            with self._database.read() as connection:
                record = load(connection, key)
                if record is None or record.state is not SampleState.PENDING:
                    continue
                picture = connection.execute(select(pictures).join(samples).where(is_sample(key))).one_or_none()
            yield record, None if picture is None else rows.kept_picture(picture)

    # ------------------------------------------------------------------------------------------------ maps and scores

    def add_map(self, key: SampleKey, record: MapRecord, measured: Sequence[ScoreRecord]) -> None:
        """Stores a map with its scores, in place of the explainer's earlier map and scores of the sample."""
        # What takes a while is done before others wait for the transaction.
        explained = explained_row(record.explainer, record.target, record.status, record.pass_count, record.saliency)
        packed = rows.map_row(record)
        with self._database.write(growing=True) as connection:
            sample_id = locked(connection, key)
            if sample_id is None:
                return
            put_explained(connection, sample_id, explained)
            connection.execute(insert(maps), {"sample_id": sample_id, **packed})
            put_scores(connection, sample_id, measured)
            recount_explained(connection, sample_id)

    def maps(self, key: SampleKey) -> list[MapRecord]:
        """A sample's maps, by explainer."""
        with self._database.read() as connection:
            found = connection.execute(select(maps).join(samples).where(is_sample(key))).all()
        return sorted(map(rows.map_record, found), key=attrgetter("explainer"))

    def put_scores(self, key: SampleKey, measured: Sequence[ScoreRecord]) -> None:
        """Stores scores with their curves, each in place of an earlier one by that explainer and metric."""
        with self._database.write() as connection:
            if (sample_id := locked(connection, key)) is not None:
                put_scores(connection, sample_id, measured)
                recount(connection, sample_id)

    def remove_scores(self, key: SampleKey, metrics: Collection[str]) -> None:
        """Removes a sample's scores by these metrics, of all explainers."""
        with self._database.write() as connection:
            if (sample_id := locked(connection, key)) is not None:
                of_metrics = and_(scores.c.sample_id == sample_id, scores.c.metric.in_(list(metrics)))
                connection.execute(delete(scores).where(of_metrics))
                recount(connection, sample_id)

    def scores(self, key: SampleKey) -> list[ScoreRecord]:
        """A sample's scores, by explainer and metric."""
        with self._database.read() as connection:
            found = connection.execute(select(scores).join(samples).where(is_sample(key))).all()
        return sorted(map(rows.score_record, found), key=attrgetter("explainer", "metric"))

    # ------------------------------------------------------------------------------------------------ ground truths

    def put_truth(self, key: SampleKey, truth: GroundTruth, *, keep_unmentioned: bool = False) -> Reported:
        """Stores a ground truth, in place of an earlier one or of what it says anew of that, as not applied yet.

        Returns:
            Whether it is new, replaces another one, or repeats it, which changes nothing, not even the time.

        Raises:
            NotFoundError: There is no such sample.
            InvalidRequestError: It is larger than one sample's may be, or does not go with what is kept of the former.
            OverloadedError: All ground truth together would be larger than it may be.
        """
        with self._database.write(growing=True) as connection:
            sample_id = locked(connection, key)
            if sample_id is None:
                raise NotFoundError(
                    f"Picture {key.image_index} of request {key.request_id!r} is no sample that is kept. "
                    "Only sampled requests take ground truth: PredictResponse.sampled tells.",
                    field="request_id",
                )
            truth = truths.with_former(connection, sample_id, truth) if keep_unmentioned else truth
            self._truth_bounds.take(connection, sample_id, truth)
            reported = truths.put_truth(connection, sample_id, truth)
            if reported is not Reported.REPEATED:
                update_outcomes(connection, sample_id)
                recount(connection, sample_id)
        if reported is not Reported.REPEATED:
            self.changes.put(key, Change.LABELLED)
        return reported

    def truth(self, key: SampleKey) -> GroundTruth | None:
        """A sample's ground truth; None if none has been reported."""
        with self._database.read() as connection:
            sample_id = connection.scalar(select(samples.c.id).where(is_sample(key)))
            return None if sample_id is None else truths.load_truth(connection, sample_id)

    def unapplied_truths(self, model_version: str) -> list[SampleKey]:
        """The samples of a model whose ground truth has not been applied yet, the oldest report first."""
        with self._database.read() as connection:
            found = connection.execute(
                select(samples.c.request_id, samples.c.image_index)
                .join(ground_truths)
                .where(ground_truths.c.applied.is_(False), samples.c.model_version == model_version)
                .order_by(ground_truths.c.time, samples.c.id)
            )
            return [SampleKey(*row) for row in found]

    def mark_applied(self, key: SampleKey, truth_time: float) -> None:
        """Marks the ground truth of that time as applied, unless another one has replaced it."""
        with self._database.write() as connection:
            this = ground_truths.c.sample_id == select(samples.c.id).where(is_sample(key)).scalar_subquery()
            connection.execute(
                update(ground_truths).where(this, ground_truths.c.time == truth_time).values(applied=True)
            )
        self.changes.put(key, Change.TRUTH_APPLIED)

    def truths(self, model_version: str) -> Iterator[TruthClasses]:
        """The classes of all samples of a model that have a ground truth, in the order in which they were kept."""
        after = 0
        while True:
            with self._database.read() as connection:
                found, after = truths.load_truth_classes(connection, model_version, after)
            if not found:
                return
            yield from found

    # ------------------------------------------------------------------------------------------------ recent figures

    def recent_scores(
        self, model_version: str, since: float, limit_samples: int, definitions: Collection[str] | None = None
    ) -> list[tuple[SampleKey, float, float, ScoreRecord]]:
        """Scores that could be measured, to fill the rolling windows with.

        Args:
            model_version: Version of the model that predicted.
            since: Unix time of the oldest samples.
            limit_samples: Most samples for each explainer and metric, the newest.
            definitions: Definitions of the scores; None for all.

        Returns:
            Key, time and weight of a sample, and a score of it; in order of the samples' time.
        """
        with self._database.read() as connection:
            return recent.load_scores(connection, model_version, since, limit_samples, definitions)

    def recent_ood(
        self, model_version: str, since: float, limit: int
    ) -> list[tuple[SampleKey, float, float, tuple[float, float]]]:
        """OoD scores and percentiles with sample, time and weight: the newest ones, in order of time."""
        with self._database.read() as connection:
            return recent.load_ood(connection, model_version, since, limit)

    # ------------------------------------------------------------------------------------------------ size

    def prune(self, now: float) -> list[SampleKey]:
        """Removes samples older than the retention, then, beyond `max_bytes`, the oldest first.

        With SQLite `max_bytes` is the size of the file after this, without the journal beside it. PostgreSQL does not
        report the room in use: there `max_bytes` is the estimated size of the rows, and the tables on disk take some
        tenths more.

        Args:
            now: Unix time in seconds.

        Returns:
            The samples that were removed.
        """
        removed: list[SampleKey] = []
        horizon = now - self._retention_seconds
        while True:
            with self._database.write() as connection:
                excess = self._database.used_bytes(connection) - self._max_bytes
                gone = remove_oldest(connection, horizon, excess)
            if not gone:
                break
            removed += gone
        self._truth_bounds.forget()
        self._database.reclaim(self._max_bytes)
        return removed
