"""Pictures: that what is drawn are the numbers of the model."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from data import overlapping, real

import csoftmax
from csoftmax import NotFittedError, SoftmaxRegression, plot

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_the_loss_curve_ends_at_zero():
    model = SoftmaxRegression().fit(*overlapping())
    ax = plot.loss_curve(model)
    x, y = ax.lines[0].get_data()
    np.testing.assert_array_equal(x, np.arange(1, model.n_iter_[0] + 1))
    np.testing.assert_allclose(y, model.loss_curve_ - model.loss_curve_.min())
    assert plot.loss_curve(model, ax) is ax


def test_the_image_of_every_class():
    model = SoftmaxRegression().fit(*real("digits"))
    figure = plot.coefficient_image(model, (8, 8))
    images = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    np.testing.assert_array_equal(np.reshape(images, (10, 64)), model.coef_)
    assert [ax.get_title() for ax in figure.axes] == [str(digit) for digit in range(10)]
    with pytest.raises(ValueError, match="64 features"):
        plot.coefficient_image(model, (8, 9))


def test_the_path_is_the_mean_over_the_folds():
    rng = np.random.default_rng(0)
    model = SimpleNamespace(
        coefs_paths_=rng.standard_normal((5, 2, 4, 3, 7)),
        classes_=np.array(["a", "b", "c"]),
        Cs_=np.array([0.1, 1, 10, 100]),
        l1_ratios_=np.array([0.0, 1.0]),
        C_=10.0,
        l1_ratio_=1.0,
        n_features_in_=6,
    )
    ax = plot.coefficient_path(model, "b")
    drawn = np.array([line.get_ydata() for line in ax.lines[:6]])
    np.testing.assert_allclose(drawn, model.coefs_paths_[:, 1, :, 1, :6].mean(axis=0).T)
    with pytest.raises(ValueError, match="label='d'"):
        plot.coefficient_path(model, "d")


def test_a_model_that_is_not_fitted_and_a_missing_matplotlib(monkeypatch):
    with pytest.raises(NotFittedError, match="loss_curve_"):
        plot.loss_curve(SoftmaxRegression())
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"csoftmax\[plot\]"):
        plot.loss_curve(SoftmaxRegression().fit(*overlapping()))


def test_it_needs_no_import_of_its_own():
    assert csoftmax.plot is plot
