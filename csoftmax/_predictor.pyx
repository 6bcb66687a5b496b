# cython: language_level=3
"""A trained model for prediction alone: one row in a fraction of a microsecond, or a batch.

Imports neither SciPy nor the training code. One row is checked through NumPy's C interface and goes straight to a
kernel; whatever is not an array of the model's dtype takes the way through _model, which converts it. (The file is as
long as one class with its documentation is: Cython has no other place for a method.)
"""
cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.math cimport INFINITY
from libc.stdint cimport uintptr_t

from ._kernels cimport Layout, cs_table, floating, layout_of, padded

import json

import numpy as np

from . import _kernels, _model
from ._threads import THREADED_WORK

cnp.import_array()

cdef enum:
    SCORES
    PROBABILITIES
    LOGARITHMS

cdef enum:
    STACK = 256  # values of a row's scores that are kept apart from the result
    BLOCK = 64  # rows whose scores stay in the cache; twice that for models that do not
    FEW = 32  # columns
    SPARSE_FEATURES = 32  # from so many on those without coefficients may be left out
    ALONE = 20_000  # multiplications from which on other Python threads may run meanwhile


@cython.final
cdef class Predictor:
    """Class probabilities of a linear softmax model.

    A Predictor is immutable: any number of threads may call any of its methods at once, and so may a forked child.

    Parameters
    ----------
    coef : array_like of shape (K, d), or (1, d) for two classes
        Weights; with one row the score of the second class is coef x + intercept and that of the first is 0.
    intercept : array_like of shape (K,) or (1,)
    classes : array_like of shape (K,), optional
        The labels that `predict` returns, int, str, bool or float; 0, 1, ... by default.
    feature_names : sequence of str of length d, optional
    dtype : {numpy.float32, numpy.float64}, optional
        In what to compute; by default that of `coef` if it is one of these, else float64.
    check_finite : bool, default True
        Whether NaN and infinity in x are refused. Without, they give probabilities without meaning.
    training_report : mapping, optional
        How the model was trained, to be kept with it: anything that JSON can hold.

    Raises
    ------
    ValueError, TypeError
        If shapes do not agree or a value is not finite.
    """

    def __cinit__(self, coef, intercept, classes=None, *, feature_names=None, dtype=None, bint check_finite=True,
                  training_report=None):
        weights, offsets, labels, names = _model.checked(coef, intercept, classes, feature_names, dtype)
        self._coef, self._intercept, self._classes, self._feature_names = weights, offsets, labels, names
        self._labels = labels.tolist()
        self._report = _model.report_text(training_report)
        self.n_columns, self.n_features = weights.shape
        self.n_classes = len(labels)
        self.itemsize = weights.itemsize
        self.typenum = cnp.NPY_FLOAT64 if self.itemsize == 8 else cnp.NPY_FLOAT32
        self.check_finite = check_finite
        # Instruction set and layout belong together: a later choice of another does not concern this model.
        self.kernels = cs_table(self.itemsize)
        self.tiled = _kernels.tiles_win(self.n_columns, weights.nbytes)
        self.n_used, places = self.n_features, np.flatnonzero(weights.any(axis=0))
        if self.n_features >= SPARSE_FEATURES and 2 * len(places) <= self.n_features:
            # Most features have no coefficient, as after an L1 penalty: only the others are looked up.
            self._places = places if len(places) else np.zeros(1, np.intp)
            self.used, self.n_used = <const Py_ssize_t*>cnp.PyArray_DATA(self._places), len(self._places)
            weights = np.ascontiguousarray(weights[:, self._places])
        cdef:
            Layout tile = layout_of(self.n_used, self.n_columns, True, False, self.itemsize)
            Layout row = layout_of(self.n_used, self.n_columns, False, True, self.itemsize)
            bint same = tile.fold == 1 or self.n_columns == 1
        memory = np.empty(tile.size + (0 if same else row.size) + 64, weights.dtype)
        cdef Py_ssize_t first = (64 - <uintptr_t>cnp.PyArray_DATA(memory) % 64) // self.itemsize
        _kernels.pack(weights, offsets, tile, memory[first : first + tile.size])
        if not same:
            _kernels.pack(weights, offsets, row, memory[first + tile.size :])
        self._memory = memory
        self.by_tile = <const char*>cnp.PyArray_DATA(memory) + first * self.itemsize
        self.by_row = <const char*>self.by_tile + (0 if same else tile.size * self.itemsize)

    def __reduce__(self):
        return _model.rebuild, (self._coef, self._intercept, self._classes, self._feature_names, self.check_finite,
                                self._report)

    def __repr__(self):
        return f"Predictor(n_features={self.n_features}, n_classes={self.n_classes}, dtype={self.dtype})"

    @property
    def coef(self):
        """Weights, (K, d), or (1, d) for two classes; read-only."""
        return self._coef.view()

    @property
    def intercept(self):
        """Intercepts, (K,), or (1,) for two classes; read-only."""
        return self._intercept.view()

    @property
    def classes(self):
        """Labels, (K,); read-only."""
        return self._classes.view()

    @property
    def feature_names(self):
        """Names of the columns, if they are known."""
        return self._feature_names

    @property
    def training_report(self):
        """How the model was trained, a dict, if that is known."""
        return None if self._report is None else json.loads(self._report)

    @property
    def dtype(self):
        """float32 or float64, in which predictions are computed."""
        return self._coef.dtype

    @staticmethod
    def from_sklearn(estimator, *, dtype=None, bint check_finite=True):
        """The model of a fitted scikit-learn classifier, with the same probabilities.

        Parameters
        ----------
        estimator : fitted classifier or Pipeline
            Any whose probabilities are a softmax of linear scores, or, for two classes, a logistic function of them:
            LogisticRegression above all. In a pipeline one StandardScaler, MinMaxScaler or MaxAbsScaler may come first;
            it is folded into the weights.
        dtype : {numpy.float32, numpy.float64}, optional
            In what to compute; float64 by default.
        check_finite : bool, default True

        Returns
        -------
        Predictor

        Raises
        ------
        TypeError
            For a model that is not of this kind, by name.
        """
        from ._sklearn import linear_softmax

        coef, intercept, classes, names = linear_softmax(estimator)
        return Predictor(coef, intercept, classes, feature_names=names, dtype=dtype, check_finite=check_finite)

    # ---- predictions ----------------------------------------------------------------------------------------------

    def predict_proba(self, x, out=None, *, n_threads=None):
        """Probability of each class.

        Parameters
        ----------
        x : array_like of shape (d,) or (n, d)
            One row, or a batch; finite. An array of the model's dtype, C-contiguous, is the fastest. A batch may be a
            SciPy sparse matrix.
        out : ndarray of shape (K,) or (n, K), optional
            Where to write them: C-contiguous, of the model's dtype, apart from x. One row then allocates nothing.
        n_threads : int, optional
            For a batch; as many as the process may use by default, one if the batch is small.

        Returns
        -------
        ndarray of shape (K,) or (n, K), of the model's dtype; `out` if that is given

        Raises
        ------
        ValueError, TypeError
            If x has another number of features, NaN or infinity, or scores too large; if `out` does not fit.
        """
        return self._answer(x, out, n_threads, PROBABILITIES)

    def predict_log_proba(self, x, out=None, *, n_threads=None):
        """Logarithm of the probability of each class; parameters, shapes and errors as for `predict_proba`."""
        return self._answer(x, out, n_threads, LOGARITHMS)

    def decision_function(self, x, *, n_threads=None):
        """Scores before the softmax.

        Parameters
        ----------
        x : array_like of shape (d,) or (n, d)
        n_threads : int, optional

        Returns
        -------
        ndarray of shape (K,) or (n, K); for two classes a number or (n,), the score of the second class
        """
        scores = self._answer(x, None, n_threads, SCORES)
        if self.n_classes > 2:
            return scores
        return scores[..., 0] if self.n_columns == 1 else scores[..., 1] - scores[..., 0]

    def predict(self, x, *, n_threads=None):
        """The most probable class of one row, as a Python object, or the array of them for a batch.

        The first one on a tie.
        """
        cdef Py_ssize_t code
        if n_threads is not None:
            _model.threads(n_threads)
        if self._is_plain(x, 1):
            good = self.codes(cnp.PyArray_DATA(x), 1, &code)
            if good != 1:
                self._refuse(x, good, PROBABILITIES)
            return self._labels[code]
        X, single = self._rows(x)
        codes = np.empty(X.shape[0], np.intp)
        self._write(X, codes, n_threads, -1)
        return self._labels[codes[0]] if single else self._classes[codes]

    def top_k(self, x, k, *, n_threads=None):
        """The k most probable classes, the most probable first, and on a tie in their order.

        Parameters
        ----------
        x : array_like of shape (d,) or (n, d)
        k : int, from 1 to K
        n_threads : int, optional

        Returns
        -------
        labels : ndarray of shape (k,) or (n, k)
        probabilities : ndarray of shape (k,) or (n, k)
        """
        return _model.top_k(self, x, k, n_threads)

    def save(self, path):
        """Write the model to a file that `csoftmax.load` reads.

        The file is NumPy's .npz without pickles. It is written beside `path`, flushed to disk and renamed, so that a
        crash leaves the old file or the new one (and perhaps a file ``.csoftmax-*.tmp``, which may be deleted).

        Raises
        ------
        TypeError
            If the labels are of another type than int, str, bool and float.
        OSError
            If the file cannot be written.
        """
        _model.save(self, path)

    # ---- for compiled callers -------------------------------------------------------------------------------------

    cdef int probabilities(self, const void *x, Py_ssize_t n, void *out) noexcept nogil:
        return self._fill_row(x, out, PROBABILITIES) if n == 1 else self._fill(x, n, out, PROBABILITIES)

    cdef int codes(self, const void *x, Py_ssize_t n, Py_ssize_t *out) noexcept nogil:
        cdef:
            Py_ssize_t width = padded(self.n_columns, self.kernels.lanes), rows, i, done = 0
            double buffer[STACK]
            char *z = <char*>buffer
            char *space
            int good = 1
        if n > 1:
            width = self.n_columns * BLOCK + (0 if self.used == NULL else self.n_used * BLOCK)
        if width > STACK:
            z = <char*>PyMem_RawMalloc(width * self.itemsize)
            if z == NULL:
                return -1
        space = z + self.n_columns * BLOCK * self.itemsize
        while done < n:
            rows = min(<Py_ssize_t>BLOCK, n - done)
            if n == 1:
                good = self._row_logits(x, z, True)
            else:
                good &= self._logits(<const char*>x + done * self.n_features * self.itemsize, rows, z, self.n_columns,
                                     1, n - done, space)
            for i in range(rows):
                if self.itemsize == 8:
                    out[done + i] = first_largest(<const double*>z + i * self.n_columns, self.n_columns, &good)
                else:
                    out[done + i] = first_largest(<const float*>z + i * self.n_columns, self.n_columns, &good)
            done += rows
        if z != <char*>buffer:
            PyMem_RawFree(z)
        return good

    # ---- the work -------------------------------------------------------------------------------------------------

    cdef bint _logits(self, const void *x, Py_ssize_t rows, void *z, Py_ssize_t row_stride, Py_ssize_t column_stride,
                      Py_ssize_t left, void *space) noexcept nogil:
        """Scores of a block; the next one is fetched meanwhile. Whether values that no coefficient meets are finite."""
        cdef const char *ahead = <const char*>x
        cdef bint good = True
        if self.used != NULL:
            good = self._gather(x, rows, space)
            x = ahead = <const char*>space
        elif left >= 2 * rows:
            ahead += rows * self.n_features * self.itemsize
        self.kernels.tile_logits(rows, self.n_used, self.n_columns, x, self.by_tile, z, row_stride, column_stride,
                                 ahead, False)
        return good

    cdef int _row_logits(self, const void *x, void *z, bint whole) noexcept nogil:
        """Scores of one row; 0 as for `_logits`, -1 if there is no memory."""
        cdef:
            double buffer[STACK]
            void *space = buffer
            bint good = True
        if self.used != NULL:
            if self.n_used > STACK:
                space = PyMem_RawMalloc(self.n_used * self.itemsize)
                if space == NULL:
                    return -1
            good = self._gather(x, 1, space)
            x = space
        self.kernels.row_logits(self.n_used, self.n_columns, x, self.by_row, z, whole)
        if space != buffer:
            PyMem_RawFree(space)
        return good

    cdef bint _gather(self, const void *x, Py_ssize_t rows, void *space) noexcept nogil:
        """The values that a coefficient meets, one row after the other; whether the others are finite too."""
        cdef Py_ssize_t i, j
        for i in range(rows):
            for j in range(self.n_used):
                if self.itemsize == 8:
                    (<double*>space)[i * self.n_used + j] = (<const double*>x)[i * self.n_features + self.used[j]]
                else:
                    (<float*>space)[i * self.n_used + j] = (<const float*>x)[i * self.n_features + self.used[j]]
        return not self.check_finite or self.kernels.all_finite(rows * self.n_features, x)

    cdef int _fill_row(self, const void *x, void *out, int kind) noexcept nogil:
        cdef:
            double buffer[STACK]
            void *z = buffer
            bint small = padded(self.n_columns, self.kernels.lanes) <= STACK
            int good
            bint told
        if not small or kind == SCORES:
            z = out
        good = self._row_logits(x, z, z != out)
        if good < 0:
            return good
        told = self._tells(z, kind)
        if kind == SCORES:
            return good & told
        if small:
            self.kernels.row_softmax(self.n_columns, z, out, kind == LOGARITHMS)
        elif kind == LOGARITHMS:
            self.kernels.log_softmax_rows(1, self.n_columns, out)
        else:
            self.kernels.softmax_rows(1, self.n_columns, out)
        return good & (told if self.n_columns == 1 else self._tells(out, kind))

    cdef bint _tells(self, const void *row, int kind) noexcept nogil:
        """Whether the first value of a row of results, or the only score, tells that all of them are right.

        NaN or infinity in x reaches every score, as any product with it is NaN or infinite. Among probabilities, one
        NaN makes all of them NaN; their logarithms may be -infinity, and rightly so.
        """
        cdef double first = (<const double*>row)[0] if self.itemsize == 8 else (<const float*>row)[0]
        return first - first == 0 or kind == LOGARITHMS and self.n_columns > 1 and first == first

    cdef int _fill(self, const void *x, Py_ssize_t n, void *out, int kind) noexcept nogil:
        cdef:
            Py_ssize_t columns = self.n_columns if kind == SCORES else self.n_classes, done = 0, rows, i
            Py_ssize_t most = BLOCK
            bint few = self.n_columns <= FEW
            double buffer[(FEW + 2) * BLOCK]
            char *z = <char*>buffer
            const char *here
            char *place
            void *space = NULL
            int good = 1
        if not few and self.n_columns * self.n_used * self.itemsize > 1 << 20:
            most *= 2
        if self.used != NULL:
            space = PyMem_RawMalloc(most * self.n_used * self.itemsize)
            if space == NULL:
                return -1
        while done < n:
            rows = min(most, n - done)
            here = <const char*>x + done * self.n_features * self.itemsize
            place = <char*>out + done * columns * self.itemsize
            if few and kind != SCORES:
                # Few classes: the softmax runs over the rows.
                good &= self._logits(here, rows, z, 1, BLOCK, n - done, space)
                if self.n_columns > 1:
                    self.kernels.softmax_columns(rows, columns, z, BLOCK, place, kind == LOGARITHMS,
                                                 z + FEW * BLOCK * self.itemsize)
                else:
                    good &= self.kernels.all_finite(rows, z)
                    for i in range(rows):
                        self.kernels.row_softmax(1, z + i * self.itemsize, place + 2 * i * self.itemsize,
                                                 kind == LOGARITHMS)
            else:
                good &= self._logits(here, rows, place, columns, 1, n - done, space)
                if kind == PROBABILITIES:
                    self.kernels.softmax_rows(rows, columns, place)
                elif kind == LOGARITHMS:
                    self.kernels.log_softmax_rows(rows, columns, place)
            if self.n_columns > 1 or kind == SCORES:
                for i in range(rows):
                    good &= self._tells(place + i * columns * self.itemsize, kind)
            done += rows
        PyMem_RawFree(space)
        return good

    cdef bint _is_plain(self, x, int ndim) noexcept:
        """Whether x is one row, or a matrix, that the kernels can read as it is."""
        return (cnp.PyArray_CheckExact(x) and cnp.PyArray_NDIM(x) == ndim and cnp.PyArray_TYPE(x) == self.typenum
                and cnp.PyArray_DIM(x, ndim - 1) == self.n_features and cnp.PyArray_ISCARRAY_RO(x))

    cdef object _answer(self, x, out, n_threads, int kind):
        cdef:
            cnp.npy_intp columns = self.n_columns if kind == SCORES else self.n_classes
            const void *row
            void *place
            int good
        if n_threads is not None:
            _model.threads(n_threads)
        if self._is_plain(x, 1):
            if out is None:
                out = cnp.PyArray_SimpleNew(1, &columns, self.typenum)
            elif not (cnp.PyArray_CheckExact(out) and cnp.PyArray_NDIM(out) == 1 and cnp.PyArray_ISCARRAY(out)
                      and cnp.PyArray_TYPE(out) == self.typenum and cnp.PyArray_DIM(out, 0) == columns
                      and apart(x, out)):
                _model.check_out(out, x, (columns,), self.dtype)
            row, place = cnp.PyArray_DATA(x), cnp.PyArray_DATA(out)
            if self.n_features * self.n_columns < ALONE:
                good = self._fill_row(row, place, kind)
            else:
                with nogil:
                    good = self._fill_row(row, place, kind)
            if good != 1:
                self._refuse(x, good, kind)
            return out
        X, single = self._rows(x)
        shape = (*(() if single else X.shape[:1]), columns)
        if out is None:
            out = np.empty(shape, self.dtype)
        else:
            _model.check_out(out, X, shape, self.dtype)
        self._write(X, out.reshape(X.shape[0], columns), n_threads, kind)
        return out

    def _rows(self, x):
        """C-contiguous or CSR matrix of the model's dtype, or mapped of any, and whether it was one row."""
        if self._is_plain(x, 2):
            return x, False
        return _model.rows(x, self.n_features, self.dtype, self.check_finite)

    def _write(self, X, out, n_threads, int kind):
        """Fill out; kind -1 stands for codes."""
        cdef bint dense = cnp.PyArray_Check(X)
        if (not dense or cnp.PyArray_BASE(X) != NULL) and _model.is_mapped(X):
            _model.by_blocks(self, X, out, n_threads, lambda part, place: self._write(part, place, 1, kind))
        elif dense and (kind == -1 or self.tiled or len(X) < BLOCK):
            self._run(X, out, n_threads, kind)
        elif kind == -1:
            self._refuse(X, _model.sparse_codes(self, X, out, n_threads), kind)
        else:
            good = _model.by_passes(self, X, out, n_threads, ("", "softmax", "log_softmax")[kind])
            self._refuse(X, good, kind)

    def _run(self, X, out, n_threads, int kind):
        """Fill out, in chunks of rows on so many threads."""
        cdef Py_ssize_t n = len(X), work = n * self.n_features * max(self.n_columns, 8)
        if work < <Py_ssize_t>THREADED_WORK:
            good = self._part(X, out, kind)
        else:
            good = _model.in_chunks(self._part, X, out, kind, work, n_threads)
        self._refuse(X, good, kind)

    def _part(self, cnp.ndarray X, cnp.ndarray out, int kind):
        cdef:
            const void *rows = cnp.PyArray_DATA(X)
            void *place = cnp.PyArray_DATA(out)
            Py_ssize_t n = X.shape[0]
            int good
        if n == 0:
            return 1
        with nogil:
            if kind == -1:
                good = self.codes(rows, n, <Py_ssize_t*>place)
            elif n == 1:
                good = self._fill_row(rows, place, kind)
            else:
                good = self._fill(rows, n, place, kind)
        return good

    cdef object _refuse(self, X, int good, int kind):
        """Raise if there was no memory, if x holds NaN or infinity, or if its scores are too large."""
        if good < 0:
            raise MemoryError("no memory for the scores of one row")
        if not good and self.check_finite:
            _model.check_finite(X, "x")
            if kind != SCORES and self.n_columns > 1:  # a single infinite score still gives 0 and 1
                raise ValueError(f"scores of x overflow {self.dtype} and leave no probabilities: scale the features")


cdef bint apart(x, out) noexcept:
    cdef const char *a = <const char*>cnp.PyArray_DATA(x)
    cdef const char *b = <const char*>cnp.PyArray_DATA(out)
    return a + cnp.PyArray_NBYTES(x) <= b or b + cnp.PyArray_NBYTES(out) <= a


cdef Py_ssize_t first_largest(const floating *z, Py_ssize_t n, int *good) noexcept nogil:
    """The number of the largest score; with a single column, whether the second class has it.

    good becomes 0 if one is NaN or infinite, or none is more than -infinity.
    """
    cdef Py_ssize_t best = 0, k
    if n == 1:
        good[0] &= z[0] - z[0] == 0
        return z[0] > 0
    for k in range(n):
        if z[k] > z[best]:
            best = k
        if not z[k] < INFINITY:
            good[0] = 0
    good[0] &= z[best] - z[best] == 0
    return best
