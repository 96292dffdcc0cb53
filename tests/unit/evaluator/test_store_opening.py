"""Opening: new databases, older and newer ones, and those that cannot be used."""

import hashlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from xai_sidecar.errors import ConfigError, StoreError
from xai_sidecar.evaluator.reading import Order, Reader, SampleFilter
from xai_sidecar.evaluator.records import BoxAnnotation, GroundTruth, SampleKey, TruthObject
from xai_sidecar.evaluator.store import KeptPicture, Store, migrating
from xai_sidecar.evaluator.store.database import SqliteDatabase
from xai_sidecar.evaluator.store.tables import METADATA
from xai_sidecar.explainers.base import MapStatus

NEXT_VERSION = '''
"""A column more, and a table made anew, as SQLite needs it for most changes."""

import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{newest}"


def upgrade():
    again = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("samples", recreate=again) as table:
        table.add_column(sa.Column("note", sa.Text, server_default="none"))
'''


def engine(url):
    return sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)


def path_of(url):
    return Path(url.removeprefix("sqlite:///"))


def refused(url):
    """The message of the ConfigError that opening raises."""
    with pytest.raises(ConfigError) as caught:
        Store.open(url, max_bytes=1 << 30, retention_seconds=1.0)
    assert caught.value.field == "evaluator.store"
    assert caught.value.message.endswith(("'", ".")), caught.value.message
    assert len(caught.value.message.splitlines()) == 1
    return caught.value.message


def without_orders(connection):
    """Makes the tables those of version 0006."""
    for name in ("ix_samples_probability", "ix_samples_ood_percentile", "ix_scores_value"):
        connection.execute(sa.text(f"DROP INDEX {name}"))
    connection.execute(sa.text("UPDATE xai_schema_version SET version_num = '0006'"))


def without_details(connection):
    """Makes the tables those of version 0005."""
    without_orders(connection)
    for name in ("explained", "curves", "thumbnails", "model_inputs", "top_classes", "class_outcomes"):
        connection.execute(sa.text(f"DROP TABLE {name}"))
    for name in ("ix_samples_listing", "ix_scores_explainer_metric"):
        connection.execute(sa.text(f"DROP INDEX {name}"))
    for name in ("outcomes", "map_statuses"):
        connection.execute(sa.text(f"ALTER TABLE samples DROP COLUMN {name}"))
    connection.execute(sa.text("CREATE INDEX ix_samples_model_version_time ON samples (model_version, time)"))
    connection.execute(sa.text("UPDATE xai_schema_version SET version_num = '0005'"))


def without_weights(connection):
    """Takes away what version 0005 added."""
    without_details(connection)
    for column in ("inclusion", "weight"):
        connection.execute(sa.text(f"ALTER TABLE samples DROP COLUMN {column}"))


@pytest.fixture
def next_version(tmp_path, monkeypatch):
    """There is a version more while a test lasts."""
    folder = tmp_path / "100% migrations"
    shutil.copytree(migrating.MIGRATIONS, folder)
    newest = ScriptDirectory(str(folder)).get_current_head()
    (folder / "versions" / "v9000.py").write_text(NEXT_VERSION.replace("{newest}", newest))
    monkeypatch.setattr(migrating, "MIGRATIONS", folder)


@pytest.fixture
def filled(url, open_store, make_sample, make_map, make_score):
    """The key of a sample with a map, a score and a truth, in a store that is closed again."""
    record, store = make_sample(), open_store(url)
    store.add_sample(record)
    store.add_map(record.key, make_map(), [make_score()])
    store.put_truth(record.key, GroundTruth((1,), (), 2.0))
    store.close()
    return record.key


def test_the_versions_are_those_that_alembic_finds():
    scripts = ScriptDirectory(str(migrating.MIGRATIONS))
    assert migrating.known_versions() == {script.revision for script in scripts.walk_revisions()}
    assert max(migrating.known_versions()) == scripts.get_current_head()


def described(connection):
    """All that the database says of its tables, in no order, and how many rows they have."""
    inspector = sa.inspect(connection)

    def flat(item):
        parts = {"dialect_options": {}, **item}
        options = parts.pop("dialect_options")  # a condition of an index has a text, but no repr
        parts |= {name: str(value) for name, value in options.items()}
        return sorted((name, str(value)) for name, value in parts.items() if name != "comment")

    return {
        table: {
            "columns": sorted(map(flat, inspector.get_columns(table))),
            "primary key": flat(inspector.get_pk_constraint(table)),
            "foreign keys": sorted(map(flat, inspector.get_foreign_keys(table))),
            "unique": sorted(map(flat, inspector.get_unique_constraints(table))),
            "indices": sorted(map(flat, inspector.get_indexes(table))),
            "rows": connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one(),
        }
        for table in inspector.get_table_names()
    }


def test_the_migrations_lead_to_the_tables(url):
    if url.startswith("sqlite"):
        path_of(url).parent.mkdir()
    with engine(url).begin() as connection:
        migrating.upgrade(connection)
    with engine(url).connect() as connection:
        # The version table is compared, too, unless it is named.
        context = MigrationContext.configure(
            connection, opts={"version_table": migrating.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, METADATA) == []


def test_a_new_database_is_what_the_migrations_lead_to(url, open_store):
    open_store(url).close()
    with engine(url).begin() as connection:
        version = f"SELECT version_num FROM {migrating.VERSION_TABLE}"
        (made, found) = described(connection), connection.exec_driver_sql(version).all()
        METADATA.drop_all(connection)
        connection.exec_driver_sql(f"DROP TABLE {migrating.VERSION_TABLE}")
    with engine(url).begin() as connection:
        migrating.upgrade(connection)
        assert found == connection.exec_driver_sql(version).all()
        assert made == described(connection)
    assert made.keys() == {*METADATA.tables, migrating.VERSION_TABLE}
    cascading = {name for name, table in made.items() if "CASCADE" in str(table["foreign keys"])}
    assert cascading == {*METADATA.tables} - {"samples", "store_secrets"}


def test_opening_again_keeps_all(url, filled, open_store, make_score):
    for _ in range(2):
        store = open_store(url)
        assert store.scores(filled) == [make_score()]
        store.close()


def test_an_older_version_is_migrated_and_keeps_all(request, url, filled, open_store, make_score):
    request.getfixturevalue("next_version")
    store = open_store(url)
    assert store.sample(filled).time == 1.0
    assert len(store.maps(filled)) == 1
    assert store.scores(filled) == [make_score()]
    assert store.truth(filled) == GroundTruth((1,), (), 2.0)
    with engine(url).connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM xai_schema_version")) == "9000"
        assert connection.scalar(sa.text("SELECT note FROM samples")) == "none"
    assert len(store.prune(2e12)) == 1
    assert store.scores(filled) == []


def test_pictures_of_the_first_version_have_no_logits(url, open_store, make_sample):
    kept = KeptPicture(*(np.linspace(0, 1, size, dtype=np.float32) for size in (12, 3, 3)))
    kept = replace(kept, image=kept.image.reshape(3, 2, 2))
    store = open_store(url)
    store.add_sample(make_sample(), kept)
    store.close()
    with engine(url).begin() as connection:
        connection.execute(sa.text("ALTER TABLE pictures DROP COLUMN logits"))
        for table in ("maps", "scores"):
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN definition"))
        without_weights(connection)
        connection.execute(sa.text("DROP TABLE store_secrets"))
        connection.execute(sa.text("UPDATE xai_schema_version SET version_num = '0001'"))
    ((_, found),) = open_store(url).pending()
    np.testing.assert_array_equal(found.image, kept.image)
    np.testing.assert_array_equal(found.logits, kept.probabilities)  # their order, as far as it is known


def test_scores_of_an_earlier_version_have_no_definition(url, filled, open_store, make_score):
    with engine(url).begin() as connection:
        for table in ("maps", "scores"):
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN definition"))
        without_weights(connection)
        connection.execute(sa.text("UPDATE xai_schema_version SET version_num = '0003'"))
    store = open_store(url)
    assert store.scores(filled) == [make_score()]
    assert [each.definition for each in (*store.scores(filled), *store.maps(filled))] == ["", ""]


def test_what_an_earlier_version_sampled_counts_for_one(url, filled, open_store, make_sample):
    with engine(url).begin() as connection:
        without_weights(connection)
        connection.execute(sa.text("UPDATE xai_schema_version SET version_num = '0004'"))
    store = open_store(url)
    record = make_sample(2.0, inclusion=0.25, weight=1.5)
    store.add_sample(record)
    assert [(each.inclusion, each.weight) for each in map(store.sample, (filled, record.key))] == [
        (None, 1),
        (0.25, 1.5),
    ]
    assert [weight for _, _, weight, _ in store.recent_scores("m", 0.0, 9)] == [1]
    assert [each.weight for each in store.truths("m")] == [1]


@pytest.mark.parametrize("model", ["single", "several"])
def test_what_an_earlier_version_kept_is_listed_as_if_it_were_new(url, open_store, make_sample, make_map, model):
    """All that lists go by is the same after the migration as what the store had written itself."""
    store, keys = open_store(url), []
    predicted = [(3,)] * 5 if model == "single" else [(), (3,), (3, 4), (0, 3), (1,)]
    for number, (positives, true) in enumerate(zip(predicted, [(), (3,), (1,), (1, 3), None], strict=True)):
        record = make_sample(float(number), positives=positives)
        keys.append(record.key)
        store.add_sample(record)
        for explainer in ("gradcam", "control/random")[: number % 3]:
            store.add_map(record.key, replace(make_map(explainer), status=list(MapStatus)[number % 2]), ())
        if true is not None:
            objects = () if true else (TruthObject(BoxAnnotation(0, 0, 1, 1)),)
            store.put_truth(record.key, GroundTruth(true, objects, 9.0))

    def listed():
        with store.database.read() as connection:
            rows = connection.execute(sa.text("SELECT id, outcomes, map_statuses FROM samples ORDER BY id")).all()
            maps = "SELECT sample_id, explainer, target, status, pass_count FROM explained ORDER BY 1, 2"
            classes = "SELECT sample_id, class_id, outcome FROM class_outcomes ORDER BY 1, 2"
            return [tuple(row) for row in rows], *(connection.execute(sa.text(each)).all() for each in (maps, classes))

    before = listed()
    assert {outcomes for _, outcomes, _ in before[0]} >= {1, 2}
    store.close()
    with engine(url).begin() as connection:
        without_details(connection)
    store = open_store(url)
    assert listed() == before
    views = Reader(store.database).page(SampleFilter(), Order(descending=False), 9).samples
    assert [view.record.key for view in views] == keys
    assert views[0].classes[0][:2] == (3, 0.75)
    assert Reader(store.database).sample(keys[2]).explanations["gradcam"].map is not None


def test_a_newer_version_is_refused_and_not_touched(url, filled):
    with engine(url).begin() as connection:
        connection.execute(sa.text("UPDATE xai_schema_version SET version_num = '9999'"))
        if url.startswith("sqlite"):
            connection.execute(sa.text("DROP TABLE scores"))

    def content():
        if url.startswith("sqlite"):
            return hashlib.sha256(path_of(url).read_bytes()).digest()
        with engine(url).connect() as connection:
            return connection.execute(sa.text("SELECT xmin, * FROM xai_schema_version")).all()

    before = content()
    newest = ScriptDirectory(str(migrating.MIGRATIONS)).get_current_head()
    assert f"version 9999, written by a newer xai-sidecar; this one knows {newest}." in refused(url)
    assert content() == before


def test_a_migration_that_fails_leaves_nothing_behind(request, url, filled, open_store):
    request.getfixturevalue("next_version")
    script = migrating.MIGRATIONS / "versions" / "v9000.py"
    script.write_text(script.read_text() + '    op.execute("SELECT nonsense")\n')
    assert "nonsense" in refused(url)
    script.unlink()
    assert open_store(url).sample(filled) is not None


def test_other_programs_tables_are_not_mixed_with_ours(url):
    if url.startswith("sqlite"):
        path_of(url).parent.mkdir()
    with engine(url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE scores (a INTEGER)"))
    assert "has a table 'scores' that is not the sidecar's" in refused(url)
    with engine(url).connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["scores"]


def test_postgres_may_be_shared(postgres_url, open_store):
    with engine(postgres_url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num TEXT)"))
        connection.execute(sa.text("CREATE SCHEMA apart"))
    open_store(postgres_url)
    apart = open_store(f"{postgres_url}?options=-csearch_path%3Dapart")
    assert len(apart.states()) == 0
    with engine(postgres_url).connect() as connection:
        assert set(sa.inspect(connection).get_table_names("apart")) == {*METADATA.tables, migrating.VERSION_TABLE}


def test_several_open_a_new_database_at_once(url, open_store):
    together, opened, failed = threading.Barrier(4), [], []

    def open_one():
        together.wait(10)
        try:
            opened.append(open_store(url))
        except Exception as error:  # shown by the assertion
            failed.append(error)

    threads = [threading.Thread(target=open_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert [len(store.states()) for store in opened] == [0] * 4


def test_a_file_is_opened_while_another_process_changes_its_journal(tmp_path, open_store, monkeypatch):
    """SQLite then says at once that the file is locked, in one of some hundred times that several open it anew."""
    refusals, pragma = [], SqliteDatabase._pragma

    def locked_at_first(connection, text):
        if "journal_mode" in text and len(refusals) < 3:
            refusals.append(text)
            raise sqlite3.OperationalError("database is locked")
        return pragma(connection, text)

    monkeypatch.setattr(SqliteDatabase, "_pragma", staticmethod(locked_at_first))
    assert open_store(f"sqlite:///{tmp_path}/x.db").states() == []
    assert len(refusals) == 3


def test_opening_is_silent(tmp_path):
    program = f"""
import logging, sys
logging.basicConfig(level=logging.WARNING)
before = logging.getLogger().handlers[:], logging.getLogger().level
from xai_sidecar.evaluator.store import Store
Store.open("sqlite:///{tmp_path}/x.db", max_bytes=1, retention_seconds=1.0).close()
assert (logging.getLogger().handlers, logging.getLogger().level) == before
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://u:secret@host/db", r"no store of the kind 'mysql'.*sqlite:///.*postgresql://"),
        ("postgresql+asyncpg://u:secret@host/db", "no store of the kind"),
        ("just a secret name", "no database's URL"),
        ("", "no database's URL"),
        ("postgresql://u:secret@host:port/db", "no database's URL"),
        ("sqlite://folder/file.db", "three slashes"),
        ("sqlite:///file.db?mode=ro", "no options"),
        ("sqlite:////proc/nowhere/x.db", "folder /proc/nowhere cannot be made.*may write"),
        ("sqlite:////dev/null/x.db", "folder /dev/null cannot be made"),
        ("sqlite:////proc/x.db", "/proc/x.db cannot be opened: unable to open database file"),
        ("sqlite:////tmp", "/tmp cannot be opened"),
        ("postgresql://u:secret@127.0.0.1:1/db", r"u:\*\*\*@127.0.0.1:1/db cannot be opened: .*refused"),
        ("postgresql://u@127.0.0.1:1/db?password=secret", "u@127.0.0.1:1/db cannot be opened: .*refused"),
        ("postgresql://u:secret@127.0.0.1:1/db?secret=1", "cannot be opened"),
    ],
)
def test_what_cannot_be_a_store(url, told):
    message = refused(url)
    assert re.search(told, message), message
    assert "secret" not in message


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG" * 1000)
    assert "picture.png cannot be opened: file is not a database. Name another file" in refused(f"sqlite:///{path}")
    assert path.read_bytes() == b"\x89PNG" * 1000


def test_a_wrong_password_and_a_missing_database(postgres, postgres_url):
    wrong = refused(postgres.url("postgres", "wrong-secret"))
    assert "password authentication failed" in wrong
    assert "wrong-secret" not in wrong
    assert 'database "nowhere" does not exist' in refused(postgres.url("nowhere"))


def test_a_server_that_never_answers_is_not_waited_for_long():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert "cannot be opened" in refused(f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/db")
        assert time.monotonic() - began < 15


def test_psycopg_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'xai-sidecar[postgres]'" in refused("postgresql://u:secret@host/db")


def test_postgres_spelt_otherwise(postgres_url, open_store, make_sample):
    record = make_sample()
    open_store(postgres_url).add_sample(record)
    for scheme in ("postgres", "postgresql+psycopg"):
        assert open_store(postgres_url.replace("postgresql", scheme)).sample(record.key) is not None


def test_the_migrations_are_in_the_wheel(tmp_path):
    root = Path(__file__).parents[3]
    wheel = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=root,
        capture_output=True, text=True, env={**os.environ},
    )  # fmt: skip
    assert wheel.returncode == 0, wheel.stderr
    (built,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(built, tmp_path / "installed", "zip")
    program = f"""
import xai_sidecar.evaluator.store as store
assert store.__file__.startswith({str(tmp_path)!r}), store.__file__
opened = store.Store.open("sqlite:///{tmp_path}/x.db", max_bytes=1, retention_seconds=1.0)
print(len(opened.states()))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_closed_store_says_so(store, make_sample):
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.add_sample(make_sample())
    with pytest.raises(StoreError, match="closed"):
        len(store.states())


def test_a_database_that_fails_is_told_without_details(url, store, make_sample):
    store.add_sample(make_sample(key=SampleKey("private", 0)))
    with engine(url).begin() as connection:
        connection.execute(sa.text("DROP TABLE ground_truth_classes"))
    with pytest.raises(StoreError, match="ground_truth_classes") as caught:
        store.put_truth(SampleKey("private", 0), GroundTruth((1,), (), 1.0))
    assert (caught.value.code, caught.value.reason, caught.value.retry_seconds) == ("UNAVAILABLE", "STORE", 1.0)
    assert "private" not in caught.value.message
    with engine(url).connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM ground_truths")) == 0, "half of it is there"


def test_the_file_may_be_opened_by_others(sqlite_url, open_store, make_sample):
    store = open_store(sqlite_url)
    store.add_sample(make_sample())
    with sqlite3.connect(path_of(sqlite_url)) as other:
        assert other.execute("SELECT state FROM samples").fetchall() == [("pending",)]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("PRAGMA auto_vacuum").fetchone() == (2,)


# ------------------------------------------------------------------------------------------------ one server each


def test_a_store_is_one_servers(url):
    """Another server would take the samples that wait here for lost."""
    first = Store.open(url, max_bytes=2**30, retention_seconds=1e9, claim=True)
    first.claim()  # again
    second = Store.open(url, max_bytes=2**30, retention_seconds=1e9)  # to look at it is no harm
    owner = rf"Another server uses this store: .*process {os.getpid()} on {re.escape(socket.gethostname()[:30])}"
    for claim in (second.claim, lambda: Store.open(url, max_bytes=2**30, retention_seconds=1e9, claim=True)):
        with pytest.raises(ConfigError, match=owner) as caught:
            claim()
        assert caught.value.field == "evaluator.store"
    second.close()
    first.close()
    again = Store.open(url, max_bytes=2**30, retention_seconds=1e9, claim=True)
    again.close()
    again.close()


def test_that_another_has_it_is_told_at_once_even_while_that_one_writes(url):
    first = Store.open(url, max_bytes=2**30, retention_seconds=1e9, claim=True)
    with first._database.write():
        began = time.monotonic()
        with pytest.raises(ConfigError, match="Another server"):
            Store.open(url, max_bytes=2**30, retention_seconds=1e9, claim=True)
        assert time.monotonic() - began < 5  # and not after SQLite's patience of 20 s
    first.close()


def test_a_lock_that_cannot_be_had_is_told(sqlite_url):
    path = path_of(sqlite_url)
    path.parent.mkdir()
    Path(f"{path}.lock").mkdir()
    with pytest.raises(ConfigError, match=r"store\.db cannot be opened: .*directory"):
        Store.open(sqlite_url, max_bytes=1, retention_seconds=1.0, claim=True)


# ------------------------------------------------------------------------------------------------ its secret


def test_the_secret_is_the_stores_own_and_stays(url, tmp_path, open_store):
    first = open_store(url)
    salt = first.sampling_salt()
    assert len(salt) == 16
    first.close()
    assert open_store(url).sampling_salt() == salt
    assert open_store(f"sqlite:///{tmp_path}/other.db").sampling_salt() != salt
