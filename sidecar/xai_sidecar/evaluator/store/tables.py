"""The tables of the newest version; the migrations lead there."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s",
    }
)


def _sample_id(parent: str = "samples.id") -> Column[int]:
    """The first column of the primary key of a table whose rows are removed with their sample."""
    return Column(
        "sample_id",
        BigInteger,
        ForeignKey(parent, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )


samples = Table(
    "samples",
    METADATA,
    # SQLite numbers rows by itself only if the type is called INTEGER.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("image_index", Integer, nullable=False),
    Column("time", Double, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("target", Integer, nullable=False),
    Column("probability", Double),  # NULL where it is not a number, which SQLite does not have
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("picture_width", Integer),
    Column("picture_height", Integer),
    Column("region_left", Double),
    Column("region_top", Double),
    Column("region_right", Double),
    Column("region_bottom", Double),
    Column("ood_score", Double),
    Column("ood_percentile", Double),
    Column("byte_count", BigInteger, nullable=False),  # estimated, with its rows in other tables
    Column("inclusion", Double),  # NULL in what versions before 0005 wrote
    Column("weight", Double, nullable=False, server_default=text("1")),
    Column("outcomes", Integer, nullable=False, server_default=text("0")),  # of any class; bits of `outcomes.Outcome`
    Column("map_statuses", Integer, nullable=False, server_default=text("0")),  # of any explainer; bits of `details`
    UniqueConstraint("request_id", "image_index"),
    Index("ix_samples_time", "time"),
    # All that lists are filtered and ordered by, so that no row has to be read for that.
    Index(
        "ix_samples_listing",
        "model_version",
        "time",
        "probability",
        "ood_percentile",
        "state",
        "target",
        "outcomes",
        "map_statuses",
    ),
    Index("ix_samples_state_time", "state", "time"),
    # What the first samples of an order are found by.
    Index("ix_samples_probability", "model_version", "probability"),
    Index("ix_samples_ood_percentile", "model_version", "ood_percentile"),
)

predictions = Table(
    "predictions",
    METADATA,
    _sample_id(),
    Column("class_id", Integer, primary_key=True, autoincrement=False),  # of a positive: a class that was predicted
)

pictures = Table(
    "pictures",
    METADATA,
    _sample_id(),
    Column("channels", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("image", LargeBinary, nullable=False),
    Column("class_count", Integer, nullable=False),
    Column("probabilities", LargeBinary, nullable=False),
    Column("logits", LargeBinary),  # NULL in what version 0001 wrote
)

maps = Table(
    "maps",
    METADATA,
    _sample_id(),
    Column("explainer", Text, primary_key=True),
    Column("target", Integer, nullable=False),
    Column("parameters", Text, nullable=False),  # JSON
    Column("seed", Text, nullable=False),  # decimal: up to 64 bits without a sign, more than an integer column takes
    Column("status", Text, nullable=False),
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("saliency", LargeBinary, nullable=False),
    Column("pass_count", BigInteger, nullable=False),
    Column("definition", Text),  # NULL in what versions before 0004 wrote; of scores, too
)

scores = Table(
    "scores",
    METADATA,
    _sample_id(),
    Column("explainer", Text, primary_key=True),
    Column("metric", Text, primary_key=True),
    Column("target", Integer, nullable=False),
    Column("value", Double),
    Column("status", Text),  # NULL where measuring failed with an error
    Column("time", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("pass_count", BigInteger, nullable=False),
    Column("definition", Text),
    Index("ix_scores_explainer_metric", "explainer", "metric", "sample_id", "value"),
    Index(
        "ix_scores_value",
        "explainer",
        "metric",
        "value",
        "sample_id",
        sqlite_where=text("value IS NOT NULL"),
        postgresql_where=text("value IS NOT NULL"),
    ),
)

explained = Table(
    "explained",
    METADATA,
    _sample_id(),
    Column("explainer", Text, primary_key=True),
    Column("target", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("pass_count", BigInteger, nullable=False),
    Column("concentration", Double),  # this and the next three NULL of a map that is the same all over, or is withheld
    Column("centre_x", Double),
    Column("centre_y", Double),
    Column("border", Double),
    Column("small_height", Integer),  # this and the next four NULL of a map that is withheld
    Column("small_width", Integer),
    Column("small_minimum", Double),
    Column("small_maximum", Double),
    Column("small", LargeBinary),
    Index("ix_explained_explainer", "explainer", "status", "sample_id"),
)

curves = Table(
    "curves",
    METADATA,
    _sample_id(),
    Column("explainer", Text, primary_key=True),
    Column("kind", Text, primary_key=True),  # "deletion" or "insertion"
    Column("metric", Text, nullable=False),
    Column("fill", Text, nullable=False),
    Column("tie_seed", Text, nullable=False),  # decimal, as of maps.seed
    Column("pixel_counts", LargeBinary, nullable=False),  # little-endian int32
    Column("probabilities", LargeBinary, nullable=False),  # little-endian float16
)

thumbnails = Table(
    "thumbnails",
    METADATA,
    _sample_id(),
    Column("jpeg", LargeBinary, nullable=False),
)

model_inputs = Table(
    "model_inputs",
    METADATA,
    _sample_id(),
    Column("png", LargeBinary, nullable=False),
)

top_classes = Table(
    "top_classes",
    METADATA,
    _sample_id(),
    Column("classes", LargeBinary, nullable=False),  # little-endian: int32 class, float32 probability, float32 logit
)

class_outcomes = Table(
    "class_outcomes",
    METADATA,
    _sample_id(),
    Column("class_id", Integer, primary_key=True, autoincrement=False),
    Column("outcome", Integer, nullable=False),  # one of `outcomes.Outcome`
    Index("ix_class_outcomes_class_id", "class_id", "outcome", "sample_id"),
)

ground_truths = Table(
    "ground_truths",
    METADATA,
    _sample_id(),
    Column("time", Double, nullable=False),
    Column("applied", Boolean, nullable=False),  # whether the scores are by this truth
    Index("ix_ground_truths_applied_time", "applied", "time"),
)

ground_truth_classes = Table(
    "ground_truth_classes",
    METADATA,
    _sample_id("ground_truths.sample_id"),
    Column("class_id", Integer, primary_key=True, autoincrement=False),
)

ground_truth_objects = Table(
    "ground_truth_objects",
    METADATA,
    _sample_id("ground_truths.sample_id"),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("class_id", Integer),
    Column("shape", Text, nullable=False),  # "box", "polygon" or "mask"
    Column("points", Text),  # JSON: [left, top, right, bottom], or [[x, y], …]
    Column("mask", LargeBinary),  # PNG
)

store_secrets = Table(
    "store_secrets",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
