"""Tables in files, for the command line: numbers and labels out of CSV, Parquet, Arrow and svmlight, predictions into.

Everything is read batch by batch. A column of CSV is text until it is needed as numbers, so that what is wrong in it
can be told with its row, wherever in the file it stands. Rows are counted from 1, without the header.
"""

import argparse
import csv
import io
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from .._model import whole_file
from .._typing import Array, DType
from .text import LISTED, shortened, some

FORMATS = {
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet",),
    "arrow": (".arrow", ".arrows", ".feather"),
    "svmlight": (".svm", ".svmlight", ".libsvm"),
}
WRITTEN = ("csv", "parquet", "arrow")
BATCH = 2**16  # rows
BLOCK = 2**22  # bytes of text
LONGEST = 2**26  # bytes of a record
EXACT = 2**53  # whole numbers below have their own float64


class Table(NamedTuple):
    """An open file: the names of its columns, its batches of some of them, and whether these are text to be read."""

    names: list[str]
    batches: Callable[[list[str]], Iterator[Any]]
    is_text: bool


class Fault(NamedTuple):
    """The first value of a column that cannot be taken, in the row of this number from 0."""

    row: int
    value: str

    def __str__(self) -> str:
        return f"{self.value} in data row {self.row + 1}"


def format_of(path: str, among: Sequence[str], advice: str = "") -> str:
    """The format of a file by its name, CSV for a pipe."""
    ends = {end: name for name in among for end in FORMATS[name]}
    found = [name for end, name in ends.items() if path.lower().endswith(end)]
    if not found and path != "-":
        raise ValueError(f"{path}: cannot tell the format, expected a name that ends with {', '.join(ends)}{advice}")
    return found[0] if found else "csv"


# ---- reading --------------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A file, or the standard input for "-"; what turns out to be wrong in it is a ValueError with its name."""
    with ExitStack() as stack:
        file = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
        try:
            yield file
        except (pa.ArrowException, csv.Error, ValueError) as error:
            raise ValueError(f"{called(path)}: {error}") from error


def called(path: str) -> str:
    """What a sentence calls the data."""
    return "standard input" if path == "-" else path


def data_format(options: argparse.Namespace) -> str:
    """The format of the data that a command reads."""
    return options.format or format_of(options.data, list(FORMATS), ", or --format")


def table(file: IO[bytes], kind: str, options: argparse.Namespace) -> Table:
    """The table in the data, which are open as a file."""
    path = options.data
    if kind == "csv":
        delimiter = options.delimiter or ("\t" if path.endswith(".tsv") else ",")
        found = _csv(file, delimiter, not options.no_header)
    elif kind == "arrow":
        found = _arrow(file if path == "-" else pa.OSFile(path))
    elif path == "-":
        raise ValueError("Parquet cannot be read from a pipe: give the name of a file")
    else:
        source = parquet.ParquetFile(path, pre_buffer=False)  # which would keep what was read
        found = Table(source.schema_arrow.names, lambda columns: source.iter_batches(BATCH, columns=columns), False)
    twice = sorted({name for name in found.names if found.names.count(name) > 1})
    if twice:
        raise ValueError(f"the column {twice[0]!r} occurs twice: rename one of them")
    return found


def _arrow(file: Any) -> Table:
    """Arrow's file format where it can be, otherwise its stream."""
    if file.seekable() and file.read(6) == b"ARROW1":
        source = pa.ipc.open_file(file)
        batches = (source.get_batch(number) for number in range(source.num_record_batches))
    else:
        if file.seekable():
            file.seek(0)
        source = batches = pa.ipc.open_stream(file)
    return Table(source.schema.names, lambda columns: (batch.select(columns) for batch in batches), False)


def _csv(file: IO[bytes], delimiter: str, header: bool) -> Table:
    # Arrow would lose an interrupt that comes between two calls; without it Python hears of one after each block.
    pa.enable_signal_handlers(False)
    first: list[bytes] = []
    names = _first_record(file, first, delimiter)
    if not names:
        raise ValueError("the file is empty: expected a line with the names of the columns")
    if not header:
        names = [f"f{number}" for number in range(len(names))]
    head = b"" if header else b"".join(first).removeprefix(b"\xef\xbb\xbf")

    def batches(columns: list[str]) -> Iterator[Any]:
        convert = arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=columns,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        n = 0
        for block in _records(file, head):
            for batch in _parsed(block, names, delimiter, convert, n).to_batches():
                n += batch.num_rows
                yield batch

    return Table(names, batches, True)


def _first_record(file: IO[bytes], lines: list[bytes], delimiter: str) -> list[str]:
    """The fields of the first line that is not empty; it may go on over some, all of which are kept in `lines`."""

    def decoded() -> Iterator[str]:
        for line in iter(file.readline, b""):
            lines.append(line)
            yield line.decode("utf-8-sig" if len(lines) == 1 else "utf-8")

    return next((record for record in csv.reader(decoded(), delimiter=delimiter) if record), [])


def _records(file: Any, head: bytes) -> Iterator[bytes]:
    """Whole records, as many as have arrived: a line ends one if there is an even number of quotation marks before.

    Arrow's own streams read ahead in a thread, which an interrupt would have to wait for.
    """
    rest, seen, quotes = bytearray(head), 0, 0  # quotation marks up to where they were counted
    while part := file.read1(BLOCK):
        rest += part
        last = rest.rfind(b"\n", seen) + 1
        if last > 0:
            quotes += rest.count(b'"', seen, last)
            end, before = last, quotes
            while before % 2 and end > seen:
                start = max(rest.rfind(b"\n", seen, end - 1) + 1, seen)
                before -= rest.count(b'"', start, end)
                end = start
            seen = last
            if end > 0 and before % 2 == 0:
                yield bytes(rest[:end])
                del rest[:end]
                seen, quotes = last - end, quotes - before
        if len(rest) > LONGEST:
            raise ValueError(f"no end of a record within {LONGEST} bytes, from the line {_first_line(rest)} on")
    if (quotes + rest.count(b'"', seen)) % 2:
        raise ValueError(f"a quotation mark is not closed, in the line {_first_line(rest)} or after it")
    if rest:
        yield bytes(rest)


def _first_line(text: bytearray) -> str:
    return _shown(text.partition(b"\n")[0][:100].decode(errors="replace"))


def _parsed(block: bytes, names: list[str], delimiter: str, convert: Any, n: int) -> Any:
    """The columns of a block that comes after n rows."""
    wrong: list[Any] = []

    def keep(row: Any) -> str:
        wrong.append(row)
        return "error"

    # In threads it would be no faster, and not know the number of a row.
    read = arrow_csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names)
    parse = arrow_csv.ParseOptions(
        delimiter=delimiter,
        newlines_in_values=True,
        invalid_row_handler=keep,
        ignore_empty_lines=len(names) > 1,  # of one column they have no value
    )
    try:
        return arrow_csv.read_csv(pa.BufferReader(block), read, parse, convert)
    except pa.ArrowInvalid as error:
        if wrong:
            fields, expected, text = wrong[0].actual_columns, wrong[0].expected_columns, _shown(wrong[0].text)
            row = n + wrong[0].number
            raise ValueError(f"data row {row} has {fields} in place of {expected} fields: {text}") from None
        raise ValueError(f"after data row {n}: {error}") from None


# ---- numbers and labels ---------------------------------------------------------------------------------------------


def numbers(batch: Any, dtype: DType, is_text: bool, faults: dict[str, Fault], first_row: int) -> Array:
    """The columns of a batch as a matrix; what cannot be a number is added to `faults`, the first of each column."""
    matrix = np.empty((batch.num_rows, batch.num_columns), dtype)
    for j, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
        if name not in faults and batch.num_rows > 0:
            found = _fill(matrix[:, j], column, is_text)
            if found is not None:
                row, value = found
                faults[name] = Fault(first_row + row, value)
    return matrix


def _fill(out: Array, column: Any, is_text: bool) -> tuple[int, str] | None:
    """Write a column of numbers; otherwise the first row that is none, and what it holds."""
    if column.null_count:
        return int(column.is_null().to_numpy(zero_copy_only=False).argmax()), "no value"
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    values = column
    if is_text:
        values = pc.utf8_trim_whitespace(column)
        try:
            values = values.cast(pa.float64())
        except pa.ArrowInvalid:
            row = next(row for row in range(len(values)) if not _is_number(values[row]))
            return row, _shown(column[row])
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        return 0, _shown(column[0])
    with np.errstate(over="ignore"):
        out[:] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    finite = np.isfinite(out)
    return None if finite.all() else (int(finite.argmin()), _shown(column[int(finite.argmin())]))


def _is_number(text: Any) -> bool:
    try:
        text.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _shown(value: Any) -> str:
    return repr(shortened(value, 30))


def refuse(faults: dict[str, Fault], advice: str) -> None:
    """Raise if there are any faults, with the columns in the order in which they were found."""
    if faults:
        listed = some((f"{shortened(repr(name), 40)} ({fault})" for name, fault in faults.items()), width=120)
        drop = " ".join(f"--drop {shlex.quote(name)}" for name in list(faults)[:LISTED])
        raise ValueError(f"something else than finite numbers in the columns {listed}; {advice.format(drop=drop)}")


def labels(chunks: list[Any], is_text: bool, name: str) -> Array:
    """The target as integers, bools or strings; numbers in text are what all of it can be read as."""
    column = pa.chunked_array(chunks)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise ValueError(f"the target {name!r} has no value in data row {row + 1}: complete it, or remove the row")
    encoded = column.dictionary_encode()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    classes = _classes(encoded.chunk(0).dictionary, is_text, name)
    if classes.dtype.kind == "f":
        whole = (classes == np.floor(classes)) & (np.abs(classes) < EXACT)
        if not whole.all():
            row = int(np.argmin(whole[codes]))
            raise ValueError(
                f"the target {name!r} is {classes[codes[row]]} in data row {row + 1}: expected classes, that is text, "
                f"bools or whole numbers; a continuous target needs a regression model"
            )
        classes = classes.astype(np.int64)
    y: Array = classes[codes]
    return y


def _classes(values: Any, is_text: bool, name: str) -> Array:
    if is_text:
        for kind in (pa.int64(), pa.bool_(), pa.float64()):
            try:
                read = values.cast(kind)
            except pa.ArrowInvalid:
                continue
            # What is written otherwise than integers and bools are, such as 007, is a name; so is an integer that a
            # float would round.
            if kind == pa.float64() and np.abs(read.to_numpy(zero_copy_only=False)).max(initial=0) >= EXACT:
                break
            if kind == pa.float64() or read.cast(pa.string()).equals(pc.utf8_lower(values)):
                return np.asarray(read.to_numpy(zero_copy_only=False))
            break
    types = pa.types
    if types.is_string(values.type) or types.is_large_string(values.type):
        return np.array(values.to_pylist())
    if types.is_integer(values.type) or types.is_floating(values.type) or types.is_boolean(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    raise ValueError(f"the target {name!r} is of type {values.type}: expected integers, text or bools")


def svmlight(file: IO[bytes], n_features: int | None, size: int = BLOCK) -> Iterator[tuple[Any, Array]]:
    """Rows as CSR and their labels, in parts of so many bytes (-1: as a whole); index j is column j, counted from 0.

    In a file that counts from 1, column 0 is always 0, and so is its coefficient.
    """
    from sklearn.datasets import load_svmlight_file

    while lines := file.readlines(size):
        rows, y = load_svmlight_file(io.BytesIO(b"".join(lines)), n_features=n_features, zero_based=True)
        if not np.isfinite(rows.data).all():
            raise ValueError("NaN or infinity among the values: remove such rows, or complete them")
        yield rows, y.astype(np.int64) if np.array_equal(y, np.floor(y)) else y


# ---- columns --------------------------------------------------------------------------------------------------------


def require(wanted: Sequence[str], names: list[str]) -> None:
    """Refuse columns that the table does not have, with the nearest names that it has."""
    missing = [name for name in wanted if name not in names]
    if missing:
        said = []
        for name in missing:
            near = get_close_matches(name, names, 1)
            said.append(f"{name!r} (is it {near[0]!r}?)" if near else repr(name))
        advice = "; if the first line holds data, pass --no-header" if any(map(_looks_like_data, names)) else ""
        raise ValueError(f"no column {some(said)}; there are {some(map(repr, names))}{advice}")


def _looks_like_data(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


# ---- writing --------------------------------------------------------------------------------------------------------


@contextmanager
def writing(path: str, kind: str, classes: Array, dtype: DType) -> Iterator[Callable[[Array, Array], None]]:
    """A function that writes labels (n,) and probabilities (n, K) as rows; a file appears when it is complete."""
    text = classes.dtype.kind == "U"
    kinds = [pa.string() if text else pa.from_numpy_dtype(classes.dtype), *[pa.from_numpy_dtype(dtype)] * len(classes)]
    names = ["label", *(f"p_{label}" for label in classes.tolist())]
    schema = pa.schema(list(zip(names, kinds, strict=True)))

    def write(predicted: Array, probabilities: Array) -> None:
        columns = [predicted, *np.ascontiguousarray(probabilities.T)]
        writer.write_batch(pa.record_batch(list(map(pa.array, columns, kinds)), schema=schema))
        file.flush()  # for who waits for it at the other end of a pipe

    with ExitStack() as stack:
        file = sys.stdout.buffer if path == "-" else stack.enter_context(whole_file(path))
        if kind == "csv":
            # Arrow would quote every text; only what needs it is, as Python's writer does with the header.
            delimiter, header = "\t" if path.endswith(".tsv") else ",", io.StringIO()
            csv.writer(header, delimiter=delimiter, lineterminator="\n").writerow(names)
            file.write(header.getvalue().encode())
            quoted = text and any(set(label) & set('",\t\r\n') or not label for label in classes.tolist())
            options = arrow_csv.WriteOptions(
                include_header=False, delimiter=delimiter, quoting_style="needed" if quoted else "none"
            )
            writer: Any = arrow_csv.CSVWriter(file, schema, write_options=options)
        elif kind == "parquet":
            writer = parquet.ParquetWriter(file, schema)
        else:
            writer = pa.ipc.new_file(file, schema)
        stack.enter_context(writer)
        yield write
