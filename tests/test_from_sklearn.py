"""Predictor.from_sklearn against the probabilities of the model it was made from."""

import numpy as np
import pytest
from data import overlapping
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from csoftmax import Predictor


def data(n_classes):
    X, y = overlapping(200, 6, n_classes)
    return X * [1, 10, 0.1, 1, 3, 1] + [5, 0, 0, -2, 0, 0], np.array([f"class {k}" for k in range(10)])[y]


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(max_iter=5000),
        LogisticRegression(max_iter=5000, fit_intercept=False),
        LinearDiscriminantAnalysis(),
        make_pipeline(LogisticRegression(max_iter=5000)),
        make_pipeline("passthrough", LogisticRegression(max_iter=5000)),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(with_mean=False), LogisticRegression()),
        make_pipeline(StandardScaler(with_std=False), LogisticRegression(max_iter=5000)),
        make_pipeline(StandardScaler(with_mean=False, with_std=False), LogisticRegression(max_iter=5000)),
        make_pipeline(MinMaxScaler((-1, 3)), LogisticRegression()),
        make_pipeline(MaxAbsScaler(), LogisticRegression()),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_probabilities_are_those_of_the_estimator(model, n_classes):
    X, y = data(n_classes)
    model.fit(X, y)
    predictor = Predictor.from_sklearn(model)
    expected = model.predict_proba(X)
    np.testing.assert_allclose(predictor.predict_proba(X), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose([predictor.predict_proba(x) for x in X], expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(predictor.classes, model.classes_)
    single = Predictor.from_sklearn(model, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.predict_proba(X), expected, rtol=0, atol=1e-4)


def test_a_binary_sgd_classifier_with_the_log_loss():
    X, y = data(2)
    model = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)).fit(X, y)
    np.testing.assert_allclose(
        Predictor.from_sklearn(model).predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-12
    )


def test_feature_names_and_sparse_coefficients_are_taken_over():
    pandas = pytest.importorskip("pandas")
    X, y = data(3)
    model = LogisticRegression(max_iter=5000).fit(pandas.DataFrame(X, columns=list("abcdef")), y).sparsify()
    predictor = Predictor.from_sklearn(model)
    assert predictor.feature_names == tuple("abcdef")
    np.testing.assert_allclose(
        predictor.predict_proba(X), model.predict_proba(pandas.DataFrame(X, columns=list("abcdef"))), atol=1e-12
    )


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (SGDClassifier(loss="hinge"), "SGDClassifier"),
        (SGDClassifier(loss="log_loss"), "one-vs-rest"),
        (OneVsRestClassifier(LogisticRegression(max_iter=5000)), "OneVsRestClassifier"),
        (RidgeClassifier(), "RidgeClassifier"),
        (LinearRegression(), "LinearRegression"),
        (DecisionTreeClassifier(), "DecisionTreeClassifier"),
        (KNeighborsClassifier(), "KNeighborsClassifier"),
        (make_pipeline(PCA(3), LogisticRegression()), "PCA"),
        (make_pipeline(RobustScaler(), LogisticRegression()), "RobustScaler"),
        (make_pipeline(StandardScaler(), MinMaxScaler(), LogisticRegression()), "MinMaxScaler"),
        (make_pipeline(MinMaxScaler(clip=True), LogisticRegression()), "clips"),
        (make_pipeline(LogisticRegression(), StandardScaler()), "LogisticRegression"),
        (make_pipeline(StandardScaler()), "StandardScaler"),
    ],
    ids=str,
)
def test_models_that_are_no_linear_softmax_are_refused_by_name(model, word):
    X, y = data(3)
    if isinstance(model, LinearRegression):
        model.fit(X, np.arange(len(y)))
    elif "StandardScaler" in str(getattr(model, "steps", [""])[-1]):
        pass  # is refused before anything is asked of it
    else:
        model.fit(X, y)
    with pytest.raises(TypeError, match=word):
        Predictor.from_sklearn(model)


def test_a_model_that_is_not_fitted_is_refused():
    with pytest.raises(TypeError, match=r"no coef_: expected a fitted"):
        Predictor.from_sklearn(LogisticRegression())
