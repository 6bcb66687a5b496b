"""examples/service as a process of its own, asked over a loopback port, also by clients that mean no good."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from csoftmax import Predictor

if sys.platform == "win32":
    pytest.skip("there are no signals, and a file that is open cannot be replaced", allow_module_level=True)
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

SERVICE = Path(__file__).parents[1] / "examples" / "service"
if not SERVICE.exists():
    pytest.skip("the examples are not beside the tests", allow_module_level=True)

LABELS = ["no", "perhaps", "yes", "żółw"]


def model(seed, d=20, classes=LABELS, names=None):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((len(classes), d))
    return Predictor(weights, rng.standard_normal(len(classes)), classes, feature_names=names)


MODELS = [model(1), model(2)]
X = np.random.default_rng(0).standard_normal((8, 20))
ROW = json.dumps(X[:1].tolist()).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: here\r\n"
UNFINISHED = HEAD + b"Content-Length: %d\r\n\r\n" % len(ROW) + ROW[:-5]


class Service:
    """A running one; the first of MODELS is in its file."""

    def __init__(self, folder):
        self.file, self.log = folder / "model.npz", folder / "log.txt"
        MODELS[0].save(self.file)
        self.process = start(self.file, self.log)
        self.port = int(wait_for(lambda: re.search(r"running on http://127.0.0.1:(\d+)", self.log.read_text()))[1])

    def connect(self):
        return closing(HTTPConnection("127.0.0.1", self.port, timeout=60))

    def send(self, data):
        """A connection on which these bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(data)
        return connection

    def health(self):
        with self.connect() as connection:
            return ask(connection, "GET", "/health")[1]

    def peak(self):
        """The most memory that it ever had, in MB; 0 where that is not known."""
        status = Path(f"/proc/{self.process.pid}/status")
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) / 1000 if status.exists() else 0


def start(file, log):
    command = [sys.executable, "-P", "-m", "uvicorn", "--app-dir", SERVICE, "app:app", "--port", "0", "--http", "h11"]
    with open(log, "w") as output:
        environment = {**os.environ, "CSOFTMAX_MODEL": str(file)}
        return subprocess.Popen([*command, "--no-access-log"], env=environment, stdout=output, stderr=output)


def wait_for(what, seconds=60):
    """What becomes true, or a failure."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def ask(connection, method="POST", path="/predict", body=ROW, **options):
    """The status of an answer, and its content."""
    connection.request(method, path, body, **options)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def answered(connection):
    """Head and body of the answer on a socket, with which the connection must end."""
    with connection, connection.makefile("rb") as stream:
        head, _, body = stream.read().decode().partition("\r\n\r\n")
    return head, body


def expected(predictor, rows):
    p = predictor.predict_proba(rows)
    return predictor.predict(rows).tolist(), p.tolist()


@contextmanager
def running(folder):
    service = Service(folder)
    try:
        before = service.peak()
        yield service
        assert service.process.poll() is not None or service.peak() - before < 60, "megabytes more than at the start"
    finally:
        service.process.kill()
        service.process.wait()
    assert "Traceback" not in service.log.read_text()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One for all tests that leave its model."""
    with running(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def own(tmp_path):
    with running(tmp_path) as service:
        yield service


@pytest.fixture
def connection(service):
    with service.connect() as connection:
        yield connection


@pytest.mark.parametrize("n", [1, 2, 8])
def test_answers_are_those_of_the_predictor(connection, n):
    status, answer = ask(connection, body=json.dumps(X[:n].tolist()))
    assert status == 200
    assert (answer["labels"], answer["probabilities"]) == expected(MODELS[0], X[:n])


def test_health_and_schema(service, connection):
    health = service.health()
    assert (health["n_features"], health["classes"], health["problem"]) == (20, LABELS, "")
    assert ask(connection)[1]["model"] == health["model"]
    body = ask(connection, "GET", "/openapi.json")[1]["paths"]["/predict"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"]["items"]["minItems"] == 20


def row_with(value):
    return b"[[" + b"1," * 19 + value + b"]]"


BAD = {
    "nothing": (b"", "body: Invalid JSON"),
    "no JSON": (b"[[1, 2", "body: Invalid JSON"),
    "no UTF-8": (b"\xff\xfe[[1]]", "body: Invalid JSON"),
    "an object": (b'{"rows": [[1]]}', "body: Input should be a valid array"),
    "a number": (b"1", "body: Input should be a valid array"),
    "no rows": (b"[]", "at least 1"),
    "an empty row": (b"[[]]", "row 0: List should have at least 20"),
    "a flat row": (b"[" + b"1," * 19 + b"1]", "row 0: Input should be a valid array"),
    "too narrow": (
        json.dumps(X[:, :19].tolist()),
        "row 0: List should have at least 20 items after validation, not 19",
    ),
    "too wide": (row_with(b"1,1"), "row 0: List should have at most 20"),
    "rows that differ": (json.dumps([*X.tolist(), [1.0]]), "row 8: List should have at least 20"),
    "too many rows": (json.dumps([X[0].tolist()] * 1001), "at most 1000"),
    "NaN": (row_with(b"NaN"), "row 0, column 19: Input should be a finite number"),
    "infinity": (row_with(b"-Infinity"), "row 0, column 19: Input should be a finite number"),
    "beyond float64": (row_with(b"1e999"), "row 0, column 19: Input should be a finite number"),
    "scores that overflow": (json.dumps([[1e308] * 20]), "scores"),
    "text": (row_with(b'"1"'), "row 0, column 19: Input should be a valid number"),
    "true": (row_with(b"true"), "row 0, column 19: Input should be a valid number"),
    "null": (row_with(b"null"), "row 0, column 19: Input should be a valid number"),
    "too deep": (row_with(b"[1]"), "row 0, column 19: Input should be a valid number"),
    "far too deep": (b"[" * 100_000, "recursion limit"),
    "a million mistakes": (b"[[" + b'"",' * 600_000 + b"0]]", "row 0, column 0: Input should be a valid number"),
}


@pytest.mark.parametrize(("body", "sentence"), BAD.values(), ids=BAD)
def test_bad_rows_are_refused(connection, body, sentence):
    status, answer = ask(connection, body=body)
    assert status == 422
    assert sentence in answer["detail"]
    assert len(answer["detail"]) < 300
    assert ask(connection)[0] == 200  # on the same connection


def test_other_requests_are_refused(service, connection):
    assert ask(connection, "GET", "/nowhere", None)[0] == 404
    assert ask(connection, "GET", "/predict", None)[0] == 405
    for request in (b"nonsense\r\n\r\n", HEAD + b"Content-Length: -1\r\n\r\n", HEAD + b"X: " + b"x" * 10_000_000):
        with service.send(b"") as raw:
            try:
                raw.sendall(request)
                assert raw.recv(100).startswith(b"HTTP/1.1 4")
            except ConnectionError:
                assert len(request) > 1000  # it need not listen to the end of headers that have none


def test_long_bodies_are_refused_and_not_kept(service, connection):
    part = b"[1,2]," * 10_000
    body = part * 170  # 10 MB
    for content in (body, iter([part] * 170)):  # the length of the second is not announced
        status, answer = ask(connection, body=content)
        assert status == 413
        assert "longer than 2000000 bytes" in answer["detail"]
    assert ask(connection)[0] == 200
    with ExitStack() as stack:
        request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:-1]
        for client in [stack.enter_context(service.send(request)) for _ in range(10)]:
            client.sendall(b"]")
            assert client.recv(12) == b"HTTP/1.1 413"


def test_slow_clients_get_408_and_hold_up_nobody(service, connection):
    service.send(UNFINISHED).close()
    began = time.monotonic()
    with ExitStack() as stack:
        slow, *still = (stack.enter_context(service.send(UNFINISHED)) for _ in range(50))
        with suppress(ConnectionError):  # which has ended if this process was held up
            for i in range(len(ROW) - 5, len(ROW) - 1):
                slow.sendall(ROW[i : i + 1])
                assert ask(connection)[0] == 200
                time.sleep(1)
            assert answered(slow)[0].startswith("HTTP/1.1 408")  # a byte now and then does not prolong it
        for client in still:
            head, body = answered(client)
            assert head.startswith("HTTP/1.1 408")
            assert "connection: close" in head.lower()
            assert "did not arrive within 5 seconds" in body
    assert time.monotonic() - began > 4.5


def test_10000_requests_and_reloads(own):
    """16 clients; each answer is that of one of two models, none of an older one than the answer before."""
    bodies = [json.dumps(X[:n].tolist()) for n in (1, 8)]
    answers = [[expected(predictor, X[:n]) for n in (1, 8)] for predictor in MODELS]
    versions, served, finished = [own.health()["model"]], 0, threading.Event()

    def client(_):
        seen, last = [], False
        with own.connect() as connection:
            while not last:
                last = len(seen) >= 624 and finished.is_set()
                batch = int(len(seen) % 10 == 0)
                status, answer = ask(connection, body=bodies[batch])
                assert status == 200
                seen.append((answer["model"], (answer["labels"], answer["probabilities"]), batch))
        return seen

    with ThreadPoolExecutor(16) as clients:
        results = [clients.submit(client, i) for i in range(16)]
        try:
            while len(versions) < 4:
                served = 1 - served
                MODELS[served].save(own.file)
                os.utime(own.file, (0, 0))  # as in images that are built to be the same each time
                versions.append(wait_for(lambda: (now := own.health()["model"]) != versions[-1] and now))
        finally:
            finished.set()
        results = [result.result() for result in results]
    assert versions == versions[:2] * 2
    assert sum(map(len, results)) >= 10_000
    for seen in results:
        reloads, current = 0, versions[0]
        for version, answer, batch in seen:
            reloads, current = reloads + (version != current), version
            assert answer == answers[versions.index(version)][batch]
        assert reloads == 3


def test_a_file_that_will_not_do_leaves_the_old_model(own):
    names = [f"x{i}" for i in range(20)]
    others = {
        "is not a csoftmax model": lambda path: path.write_bytes(b"half a mod"),
        "other n_features": model(3, d=21).save,
        "other classes": model(3, classes=LABELS[::-1]).save,
        "other feature_names": model(3, names=names).save,
        "No such file": lambda path: path.unlink(),
    }
    before = own.health()
    for reason, replace in others.items():
        replace(own.file)
        health = wait_for(lambda reason=reason: reason in (now := own.health())["problem"] and now)
        assert health == before | {"problem": health["problem"]}
        with own.connect() as connection:
            assert ask(connection)[1]["probabilities"] == expected(MODELS[0], X[:1])[1]
    MODELS[1].save(own.file)
    assert wait_for(lambda: (now := own.health())["problem"] == "" and now)["model"] != before["model"]


def test_a_signal_ends_it_when_requests_are_answered(own):
    with ExitStack() as stack:
        half = [stack.enter_context(own.send(UNFINISHED)) for _ in range(8)]
        idle = stack.enter_context(own.send(b""))
        wait_for(own.health)  # by now it has seen the others
        own.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""
        for client in half:
            client.sendall(ROW[-5:])
            head, body = answered(client)
            assert head.startswith("HTTP/1.1 200")
            assert json.loads(body)["probabilities"] == expected(MODELS[0], X[:1])[1]
    assert own.process.wait(10) == -signal.SIGTERM


def test_without_a_model_it_does_not_start(tmp_path):
    file, log = tmp_path / "model.npz", tmp_path / "log.txt"
    file.write_bytes(b"half a mod")
    assert start(file, log).wait(30) == 1
    assert "model.npz is not a csoftmax model" in log.read_text()
