"""The same coefficients on a cluster as in one process, also when workers die."""

import gc
import os
import signal
import threading
import time

import numpy as np
import pytest
import scipy.sparse
from data import overlapping

import csoftmax
from csoftmax import ConvergenceWarning, SoftmaxRegression, _rows

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

from csoftmax import _cluster  # noqa: E402
from csoftmax._cluster import ClusterRows, Parts  # noqa: E402
from csoftmax._rows import LocalRows  # noqa: E402
from csoftmax.dask import DaskSoftmaxRegression  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Dask's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

QUIET = {"silence_logs": 50, "dashboard_address": ":0"}


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as workers:
        yield workers


@pytest.fixture(params=["threads", "processes"])
def anywhere(request):
    """In Dask's threads, or on two processes."""
    if request.param == "threads":
        yield None
    else:
        with distributed.Client(request.getfixturevalue("cluster")) as client:
            yield client


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        yield client


def problem(n=900, d=8, n_classes=4, seed=0):
    X, y = overlapping(n, d, n_classes, seed)
    return X * np.logspace(-2, 2, d), y


def sparse_blocks(X, lengths):
    """A dask array whose chunks are CSR."""
    parts = np.split(X, np.cumsum(lengths)[:-1])
    arrays = [
        da.from_delayed(dask.delayed(scipy.sparse.csr_array)(part), part.shape, X.dtype, meta=np.empty((0, 0)))
        for part in parts
    ]
    return da.concatenate(arrays)


def unknown(array):
    """The same with chunks whose lengths Dask does not know."""
    blocks = array.to_delayed().ravel()
    shape = (np.nan, *array.shape[1:])
    return da.concatenate([da.from_delayed(b, shape, array.dtype) for b in blocks], allow_unknown_chunksizes=True)


CHUNKS = (300, 0, 1, 149, 450)


@pytest.mark.parametrize(
    ("kind", "dtype", "weighted", "penalty"),
    [
        ("dense", np.float64, False, {}),
        ("dense", np.float64, True, {"l1_ratio": 0.5, "C": 0.1}),
        ("dense", np.float32, True, {}),
        ("dense", np.float32, False, {"l1_ratio": 1.0, "C": 0.1}),
        ("sparse", np.float64, True, {}),
        ("sparse", np.float64, False, {"C": np.inf}),
        ("sparse", np.float32, True, {"l1_ratio": 0.5, "C": 0.1}),
    ],
)
def test_the_coefficients_are_those_of_a_local_fit(anywhere, kind, dtype, weighted, penalty):
    X, y = problem()
    X = X.astype(dtype)
    if kind == "sparse":
        X[np.random.default_rng(1).uniform(size=X.shape) < 0.5] = 0
    weight = np.random.default_rng(2).integers(0, 3, len(y)) if weighted else None
    there = sparse_blocks(X, CHUNKS) if kind == "sparse" else da.from_array(X, chunks=(CHUNKS, 3))
    here = scipy.sparse.csr_array(X) if kind == "sparse" else X
    settings = {"tol": 1e-5 if dtype == np.float32 else 1e-9, "class_weight": {0: 2.0}, **penalty}
    local = SoftmaxRegression(**settings).fit(here, y, weight)
    model = DaskSoftmaxRegression(**settings).fit(there, da.from_array(y, chunks=100), weight)
    assert model.coef_.dtype == dtype
    assert model.fit_report_.converged
    assert model.fit_report_.n_passes == local.fit_report_.n_passes
    size = abs(local.coef_).max(initial=1)
    np.testing.assert_allclose(model.coef_, local.coef_, atol=(1e-4 if dtype == np.float32 else 1e-8) * size)
    np.testing.assert_allclose(model.intercept_, local.intercept_, atol=(1e-4 if dtype == np.float32 else 1e-8) * size)


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "gd"])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_every_solver_runs_on_a_cluster(client, solver, n_classes):
    X, y = overlapping(400, 5, n_classes)
    settings = {"solver": solver, "max_iter": 50, "tol": 0 if solver == "gd" else 1e-6}
    local = SoftmaxRegression(**settings).fit(X, y)
    model = DaskSoftmaxRegression(**settings).fit(da.from_array(X, chunks=(90, 5)), da.from_array(y, chunks=90))
    np.testing.assert_allclose(model.coef_, local.coef_, atol=1e-10)
    np.testing.assert_array_equal(model.n_iter_, local.n_iter_)
    assert model.fit_report_.reason_chosen == local.fit_report_.reason_chosen


@pytest.mark.parametrize(("n", "d", "n_classes"), [(3000, 30, 4), (3000, 3, 40), (500, 200, 12)])
def test_models_of_curvature_come_from_the_same_rows_in_any_blocks(n, d, n_classes):
    X, y = problem(n, d, n_classes)
    settings = {"C": 0.1, "tol": 1e-10}  # rounding errors grow along the way, and are gone at the end
    local = SoftmaxRegression(**settings).fit(X, y)
    for chunk in (n, 700):
        model = DaskSoftmaxRegression(**settings).fit(da.from_array(X, chunks=(chunk, d)), y)
        assert model.fit_report_.reason_chosen == local.fit_report_.reason_chosen
        np.testing.assert_allclose(model.coef_, local.coef_, atol=1e-8 * abs(local.coef_).max())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("sure", [False, True], ids=["", "rows are chosen anew"])
def test_of_very_many_rows_the_hessian_of_the_same_sample_is_solved(anywhere, monkeypatch, sure, dtype):
    monkeypatch.setattr(_rows, "LOOKED", 2000)  # so that only some runs of rows are looked at
    monkeypatch.setattr(_rows, "SPARE", 2)
    rng = np.random.default_rng(0)
    y = rng.integers(8, size=20_000)
    X = (rng.standard_normal((8, 10))[y] * (2 if sure else 0.5) + rng.standard_normal((20_000, 10))).astype(dtype)
    rows, choices, sample = LocalRows(X, y.astype(np.int32), np.ones(len(y)), 8, 1), [], ClusterRows.sample_here

    def sample_here(self, *arguments):
        choices.append((sample(self, *arguments), rows.sample_here(*arguments), arguments[1].theta is not None))
        return choices[-1][0]

    monkeypatch.setattr(ClusterRows, "sample_here", sample_here)
    settings = {"tol": 1e-5 if dtype == np.float32 else 1e-9, "C": 0.01}
    local = SoftmaxRegression(**settings).fit(X, y)
    model = DaskSoftmaxRegression(**settings).fit(da.from_array(X, chunks=(3300, 10)), y)
    assert "preconditions the Hessian" in model.fit_report_.reason_chosen
    assert model.fit_report_.reason_chosen == local.fit_report_.reason_chosen
    assert model.fit_report_.n_passes == local.fit_report_.n_passes
    size = abs(local.coef_).max()
    np.testing.assert_allclose(model.coef_, local.coef_, atol=(1e-4 if dtype == np.float32 else 1e-8) * size)
    assert [by_curvature for *_, by_curvature in choices] == [False, True][: 1 + sure]
    for here, same, _ in choices:
        np.testing.assert_allclose(here.rows, same.rows, atol=1e-12)
        np.testing.assert_allclose(here.weight, same.weight, rtol=1e-5 if dtype == np.float32 else 1e-12)
        np.testing.assert_allclose(here.share, same.share, rtol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "read anew"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_weighted_rows_are_chosen_anew_in_any_blocks(monkeypatch, fit_intercept, keep):
    monkeypatch.setattr(_cluster, "fits", lambda n_bytes: keep)
    searches, sample = [], ClusterRows.sample_here

    def sample_here(self, n_rows, search, penalty):
        searches.append(search.theta is not None)
        return sample(self, n_rows, search, penalty)

    monkeypatch.setattr(ClusterRows, "sample_here", sample_here)
    rng = np.random.default_rng(1)
    y = rng.integers(8, size=20_000)
    X = 2 * rng.standard_normal((8, 10))[y] + rng.standard_normal((20_000, 10))
    weight = rng.integers(0, 4, size=len(y)).astype(float)
    settings = {"tol": 1e-9, "C": 0.01, "fit_intercept": fit_intercept}
    local = SoftmaxRegression(**settings).fit(X, y, weight)
    with dask.config.set(scheduler="threads"):
        model = DaskSoftmaxRegression(**settings).fit(
            da.from_array(X, chunks=((7, 0, 9993, 10_000), 10)),
            da.from_array(y, chunks=((7, 0, 9993, 10_000),)),
            weight,
        )
    assert searches[:2] == [False, True]
    assert model.fit_report_.reason_chosen == local.fit_report_.reason_chosen
    assert model.fit_report_.n_passes == local.fit_report_.n_passes
    np.testing.assert_allclose(model.coef_, local.coef_, atol=1e-8 * abs(local.coef_).max())


def test_columns_far_from_zero_are_computed_in_float64(anywhere):
    X, y = overlapping(600, 4, 3)
    X = (X + np.array([0, 1e5, 0, -1e5])).astype(np.float32)
    local = SoftmaxRegression().fit(X, y)
    model = DaskSoftmaxRegression().fit(da.from_array(X, chunks=(200, 4)), y)
    assert model.coef_.dtype == np.float32
    np.testing.assert_allclose(model.coef_, local.coef_, rtol=1e-5)


def test_data_frames_and_delayed_blocks_and_unknown_lengths(anywhere):
    pd, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    X, y = problem(600, 3)
    labels = np.array(["low", "middle", "high", "top"])[y]
    frame = dd.from_pandas(pd.DataFrame(X, columns=["a", "b", "c"]).assign(label=labels), npartitions=4)
    local = SoftmaxRegression().fit(X, labels)
    blocks = [dask.delayed(np.asarray)(part) for part in np.array_split(X, 3)]
    label_blocks = [dask.delayed(np.asarray)(part) for part in np.array_split(labels, 3)]
    array, vector = da.from_array(X, chunks=(100, 3)), da.from_array(labels, chunks=100)
    for data, target in (
        (frame[["a", "b", "c"]], frame["label"]),
        (blocks, label_blocks),
        (unknown(array), unknown(vector)),
        (array, labels.tolist()),
        (array, pd.DataFrame({"label": labels})["label"]),
        (dask.delayed(np.array)(X), dask.delayed(np.array)(labels)),
    ):
        model = DaskSoftmaxRegression().fit(data, target)
        np.testing.assert_allclose(model.coef_, local.coef_, atol=1e-8 * abs(local.coef_).max())
        assert model.classes_.tolist() == local.classes_.tolist()
        np.testing.assert_array_equal(model.predict(data).compute(), local.predict(X))
    with pytest.warns(csoftmax._errors.DataConversionWarning, match="column-vector y"):
        model.fit(frame[["a", "b", "c"]], frame[["label"]])
    with pytest.warns(csoftmax._errors.DataConversionWarning, match="column-vector y"):
        model.fit(array, vector[:, None])
    model.fit(frame[["a", "b", "c"]], frame["label"])
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"block \d: The feature names"):
        model.predict(frame[["a", "c", "b"]]).compute()


def test_a_class_may_be_missing_from_a_chunk_and_rows_of_a_class_from_the_fit(anywhere):
    X, y = problem()
    order = np.argsort(y, kind="stable")
    X, y = X[order], y[order]
    local = SoftmaxRegression(class_weight={0: 0.0, 1: 1.0, 2: 3.0, 3: 1.0}).fit(X, y)
    model = DaskSoftmaxRegression(**local.get_params()).fit(
        da.from_array(X, chunks=(100, 8)), da.from_array(y, chunks=100)
    )
    assert model.classes_.tolist() == [1, 2, 3]
    np.testing.assert_allclose(model.coef_, local.coef_, atol=1e-8)
    balanced = [kind(class_weight="balanced") for kind in (SoftmaxRegression, DaskSoftmaxRegression)]
    weight = np.arange(len(y)) % 3
    balanced[0].fit(X, y, weight)
    balanced[1].fit(da.from_array(X, chunks=(100, 8)), y, da.from_array(weight, chunks=70))
    np.testing.assert_allclose(balanced[1].coef_, balanced[0].coef_, atol=1e-8)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_predictions_are_lazy_and_those_of_the_local_model(anywhere, n_classes):
    X, y = overlapping(200, 4, n_classes)
    model = DaskSoftmaxRegression().fit(da.from_array(X, chunks=(60, 4)), y)
    local = SoftmaxRegression().fit(X, y)
    chunks = (70, 130)
    for there in (da.from_array(X, chunks=(chunks, 2)), sparse_blocks(X, chunks)):
        for method in ("decision_function", "predict_proba", "predict_log_proba", "predict"):
            answer, expected = getattr(model, method)(there), getattr(model, method)(X)
            assert isinstance(answer, da.Array)
            assert answer.chunks[0] == chunks
            assert answer.shape == expected.shape
            assert answer.dtype == expected.dtype
            np.testing.assert_allclose(answer.compute(), expected, atol=1e-12)
        weight = np.arange(200.0)
        assert model.score(there, y) == pytest.approx(local.score(X, y))
        assert model.score(there, da.from_array(y, chunks=50), weight) == pytest.approx(local.score(X, y, weight))
    assert model.predict(da.from_array(X, chunks=((70, 0, 130), 4))).compute().shape == (200,)
    np.testing.assert_array_equal(model.predictor().predict_proba(X[0]), model.predict_proba(X[:1])[0])


def test_data_that_do_not_fit_are_read_anew_for_every_pass(monkeypatch):
    X, y = problem()
    reads = []

    def read(part):
        reads.append(len(part))
        return part

    kept = DaskSoftmaxRegression().fit(da.from_array(X, chunks=(100, 8)), y)
    monkeypatch.setattr("csoftmax._cluster.SHARE", 0.0)
    blocks = [dask.delayed(read)(part) for part in np.split(X, 9)]
    labels = [dask.delayed(np.asarray)(part) for part in np.split(y, 9)]
    model = DaskSoftmaxRegression().fit(blocks, labels)
    np.testing.assert_allclose(model.coef_, kept.coef_, atol=1e-10)
    assert len(reads) > 9 * model.fit_report_.n_passes
    monkeypatch.undo()
    reads.clear()
    DaskSoftmaxRegression().fit(blocks, labels)
    assert len(reads) <= 18


def in_time(holds):
    """Whether it comes to hold: a client lets go of futures in a thread of its own, soon after they are released."""
    end = time.monotonic() + 30
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def test_persisted_data_are_not_moved_and_nothing_else_stays(client):
    X, y = problem(2000)
    there, labels = client.persist([da.from_array(X, chunks=(100, 8)), da.from_array(y, chunks=100)])
    distributed.wait([there, labels])
    homes = client.who_has(there)
    local = SoftmaxRegression().fit(X, y)
    model = DaskSoftmaxRegression().fit(there, labels)
    np.testing.assert_allclose(model.coef_, local.coef_, atol=1e-8 * abs(local.coef_).max())
    assert client.who_has(there) == homes
    kept = {future.key for future in distributed.futures_of([there, labels])}
    assert in_time(lambda: set(client.futures) == kept)
    with pytest.raises(ValueError, match="block"):
        DaskSoftmaxRegression().fit(there, da.full(2000, 0.5, chunks=100))
    gc.collect()  # the error held some
    assert in_time(lambda: set(client.futures) == kept)


def test_many_parts_and_large_questions(monkeypatch, anywhere):
    monkeypatch.setattr("csoftmax._cluster.SHARE", 0.0)  # every block is a part
    monkeypatch.setattr("csoftmax._cluster.INLINE", 0)
    X, y = problem(300)
    for settings in ({}, {"l1_ratio": 0.5, "C": 0.1}):
        local = SoftmaxRegression(**settings).fit(X, y)
        model = DaskSoftmaxRegression(**settings).fit(da.from_array(X, chunks=(30, 8)), y)
        np.testing.assert_allclose(model.coef_, local.coef_, atol=1e-8 * abs(local.coef_).max())


def test_labels_of_several_dtypes_keep_their_values(anywhere):
    X, _ = overlapping(60, 4, 3)
    blocks = [dask.delayed(np.array)(part) for part in np.split(X, 2)]

    def fit(*labels):
        return DaskSoftmaxRegression().fit(blocks, [dask.delayed(np.resize)(np.array(each), 30) for each in labels])

    assert fit([1, 2, 3], [1.0, 2.0, 4.0]).classes_.tolist() == [1, 2, 3, 4]
    assert fit(["a", "bb"], ["ccc", "a"]).classes_.tolist() == ["a", "bb", "ccc"]
    huge = np.array([2**63, 2**63 + 1], np.uint64)
    assert fit(huge, huge).classes_.tolist() == [2**63, 2**63 + 1]
    with pytest.raises(ValueError, match=r"block 0 has labels of dtype uint64.*convert y"):
        fit(huge, [1, 2])


def test_a_fit_continues_and_may_be_stopped_and_warns(client):
    X, y = problem()
    there = da.from_array(X, chunks=(200, 8))
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model = DaskSoftmaxRegression(max_iter=2, warm_start=True).fit(there, y)
    first = model.fit_report_.objective
    model.set_params(max_iter=1000).fit(there, y)
    assert model.fit_report_.objective < first
    model.set_params(warm_start=False, callback=lambda iteration, *_: iteration == 3).fit(there, y)
    assert model.n_iter_[0] == 3


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def changed(X, by):
    blocks = [dask.delayed(np.array)(part) for part in np.split(X, 3)]
    blocks[2] = dask.delayed(by)(blocks[2])
    return blocks


def spoilt(part):
    part[7, 1] = np.nan
    return part


def missing_file(part):
    raise OSError("the file is shorter than it was")


@pytest.mark.parametrize(
    ("by", "error", "words"),
    [
        (lambda part: part[:, :3], ValueError, "block 2 and block 0.*columns 3 and 4"),
        (lambda part: part.astype(np.float32), ValueError, "block 2 and block 0.*dtype float32 and float64"),
        (scipy.sparse.csr_array, ValueError, "block 2 and block 0.*format sparse and dense"),
        (spoilt, ValueError, "block 2: X contains nan at row 7, column 1"),
        (lambda part: part[:5], ValueError, "block 2: y has 100 values and X has 5 rows"),
        (lambda part: part.astype(str), ValueError, "block 2: X has dtype"),
        (missing_file, OSError, "shorter"),
    ],
)
def test_errors_name_the_block_and_leave_the_estimator_as_it_was(anywhere, by, error, words):
    X, y = overlapping(300, 4, 3)
    labels = [dask.delayed(np.array)(part) for part in np.split(y, 3)]
    model = DaskSoftmaxRegression()
    if anywhere is None:
        model.fit([dask.delayed(np.array)(part) for part in np.split(X, 3)], labels)
    before = dict(vars(model))
    with pytest.raises(error, match=words):
        model.fit(changed(X, by), labels)
    assert vars(model) == before


def test_arguments_that_make_no_sense(anywhere):
    X, y = overlapping(100, 4, 3)
    there = da.from_array(X, chunks=(50, 4))
    model = DaskSoftmaxRegression()
    for data, target, weight, error, words in (
        (X, y, None, TypeError, "ndarray: expected a dask array"),
        (there, y[:-1], None, ValueError, "y has 99 values and X has 100 rows"),
        (there, da.from_array(y[:-1], chunks=50), None, ValueError, "y has 99 values"),
        (unknown(there), y, None, ValueError, "lengths of the blocks of X are unknown"),
        (unknown(there), unknown(da.from_array(y, chunks=25)), None, ValueError, "y has 4 blocks and X has 2"),
        (there[:, 0], y, None, ValueError, "X has shape .100,.: expected .n, d."),
        (there, np.zeros(100), None, ValueError, "only one class"),
        (there, np.linspace(0, 1, 100), None, ValueError, "y has the value"),
        (there, [None, *y[1:]], None, ValueError, "y contains a missing value"),
        (
            there,
            [dask.delayed(y[:50].astype)(str), dask.delayed(y[50:])],
            None,
            ValueError,
            "kind of labels numbers and",
        ),
        (there, da.zeros((100, 2), chunks=50), None, ValueError, "y has shape .100, 2."),
        (there, y, np.zeros(100), ValueError, "no rows of positive weight"),
        (there, None, None, ValueError, "requires y"),
        (da.zeros(3), y, None, ValueError, "X has shape"),
        (there, da.zeros(()), None, ValueError, "y has shape"),
        (there, y, da.ones((100, 1), chunks=50), ValueError, "sample_weight has shape"),
        (there, y, np.full(100, 1e308), ValueError, "the weights, with class_weight, add up"),
        (there, y, -np.ones(100), ValueError, "sample_weight has the negative value"),
        (there, y, np.ones(99), ValueError, "sample_weight"),
    ):
        with pytest.raises(error, match=words):
            model.fit(data, target, weight)
        assert not hasattr(model, "coef_")
    with pytest.raises(ValueError, match="l1_ratio"):
        DaskSoftmaxRegression(l1_ratio=2.0).fit(there, y)
    columns = da.concatenate([unknown(there.T).T, there], axis=1)
    with pytest.raises(ValueError, match="widths are unknown"):
        model.fit(columns, y)


def test_without_the_client_that_holds_the_data(cluster):
    X, y = overlapping(100, 4, 3)
    with distributed.Client(cluster) as client:
        there = client.persist(da.from_array(X, chunks=(50, 4)))
        distributed.wait(there)
    with pytest.raises(RuntimeError, match="no client"):
        DaskSoftmaxRegression().fit(there, y)


# ---- actors ---------------------------------------------------------------------------------------------------------


def test_tasks_give_the_answers_of_actors_that_are_lost(client, monkeypatch):
    X, y = problem()
    data = da.from_array(X, (300, -1)), da.from_array(y, 300)
    ask_actors, asked = Parts._ask_actors, []

    def count(parts, what, arguments):
        asked.append(what)
        return ask_actors(parts, what, arguments)

    def lose(parts, what, arguments):
        asked.append(what)
        raise OSError("a worker is lost")

    monkeypatch.setattr(Parts, "_ask_actors", count)
    model = DaskSoftmaxRegression().fit(*data)
    # The first pass is the one that finds the means and deviations of the columns.
    assert asked.count("column_ranges") == 1
    assert asked.count("loss_gradient") == model.fit_report_.n_passes - 1
    asked.clear()
    monkeypatch.setattr(Parts, "_ask_actors", lose)
    again = DaskSoftmaxRegression().fit(*data)  # which may find the blocks on other workers
    np.testing.assert_allclose(again.coef_, model.coef_, rtol=0, atol=1e-12 * abs(model.coef_).max())
    assert len(asked) == 1  # and never again


# ---- workers die ----------------------------------------------------------------------------------------------------


def test_a_killed_worker_changes_nothing():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 10))

    def make(seed):
        of_block = np.random.default_rng(seed)
        labels = of_block.integers(4, size=20_000)
        return labels, centres[labels] + 2 * of_block.standard_normal((20_000, 10))

    made = [dask.delayed(make)(seed) for seed in range(9)]
    X, y = [pair[1] for pair in made], [pair[0] for pair in made]
    # Nannies start a worker that died again; one that is not back in 15 s, as may be where the machine is busy, its
    # cluster gives up by default.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10m"}),
        distributed.LocalCluster(n_workers=3, threads_per_worker=1, **QUIET) as workers,
        distributed.Client(workers) as client,
    ):
        expected = DaskSoftmaxRegression(tol=1e-8).fit(X, y).coef_
        began = time.perf_counter()
        DaskSoftmaxRegression(tol=1e-8).fit(X, y)
        seconds = time.perf_counter() - began
        n_killed = 0
        for attempt in range(20):
            client.wait_for_workers(3, timeout=300)
            victim = list(client.run(os.getpid).values())[attempt % 3]
            timer = threading.Timer((n_killed + 0.5) / 6 * seconds, os.kill, (victim, signal.SIGKILL))
            timer.start()
            model = DaskSoftmaxRegression(tol=1e-8).fit(X, y)
            in_time = timer.finished.is_set()
            timer.cancel()
            np.testing.assert_allclose(model.coef_, expected, rtol=0, atol=1e-10)
            n_killed += in_time
            if n_killed == 5:
                break
            if not in_time:
                seconds = model.fit_report_.seconds
        assert n_killed == 5
