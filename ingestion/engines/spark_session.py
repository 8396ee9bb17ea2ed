"""The process's connection to Spark: made at first use, ended with the process."""

import atexit
import contextlib
import logging
import os
import re
import shutil
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from pathlib import Path
from typing import Any

from django.conf import settings

from config.env import BASE_DIR
from ingestion.engines import EngineUnavailable

# A task is tried again this often: in vain or not, it loads nothing twice.
TASK_TRIES = 4
START_DEADLINE_S = 120.0
GREETINGS_MAX = 256
# The last line of a traceback of Python's, among those of Java's.
_PYTHON_ERROR = re.compile(r"^(?!Caused|org\.|py4j\.|java\.)[A-Za-z_][\w.]*: .*$", re.MULTILINE)
_JAVA = (
    "Spark needs Java 17 or newer and found none. Install it (on Debian and Ubuntu: apt install openjdk-17-jre-headless) or set"
    " JAVA_HOME; --engine local does without."
)

_lock = threading.Lock()
_made: dict[int, Any] = {}


def session() -> Any:
    """The SparkContext of this process on SPARK_MASTER. Raises `EngineUnavailable`."""
    with _lock:
        context = _made.get(os.getpid())
        if context is None:
            context = _made[os.getpid()] = _begun()
            atexit.register(end)
        return context


def end() -> None:
    """Leaves Spark. The next `session` connects again."""
    with _lock:
        context = _made.pop(os.getpid(), None)
    if context is not None:
        with contextlib.suppress(Exception):  # what is gone cannot be stopped
            context.stop()


def failures() -> tuple[type[Exception], ...]:
    """What PySpark raises when the cluster, a task or the connection to them has failed for good."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    return Py4JError, PySparkException, OSError


def _begun() -> Any:
    _check_java()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas' version, which the product does not use with Spark
            from pyspark import SparkConf, SparkContext
            from pyspark.errors import PySparkException
    except ImportError as exc:
        raise EngineUnavailable(
            "PySpark is not installed. Install it with `pip install --require-hashes -r requirements/spark.txt`, or use"
            " --engine local."
        ) from exc
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    before = signal.getsignal(signal.SIGINT)
    try:
        context = SparkContext(conf=SparkConf().setAll(_options(settings.SPARK_MASTER)))
    except (PySparkException, OSError) as exc:
        raise EngineUnavailable(f"Spark does not start. {_JAVA} What it said: {exc}"[:600]) from exc
    except Exception as exc:  # py4j's errors too, whose module is only there with PySpark
        words = str(exc).strip().splitlines()
        raise EngineUnavailable(f"Spark cannot work with SPARK_MASTER '{settings.SPARK_MASTER}': {words[-1:]}") from exc
    finally:
        # Spark takes Ctrl-C for itself, where the command means to end the chunk that it is at.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
    context.setLogLevel("ERROR")
    try:
        _greet(context)
    except BaseException:
        with contextlib.suppress(Exception):
            context.stop()
        raise
    return context


def _greet(context: Any) -> None:
    """Has executors get ready, and makes sure that they run what this process runs. Raises `EngineUnavailable`."""
    from ingestion.engines.spark_tasks import greet, libraries

    tasks = min(int(context.defaultParallelism), GREETINGS_MAX)
    waiting = ThreadPoolExecutor(1, "ingest-greet")
    try:
        answers = waiting.submit(context.parallelize(range(tasks), tasks).mapPartitions(greet).collect).result(
            START_DEADLINE_S
        )
    except TooLong as exc:
        raise EngineUnavailable(
            f"No executor of Spark's has answered for {START_DEADLINE_S:.0f} s. Look for free cores on the cluster's page."
        ) from exc
    except failures() as exc:
        said = _PYTHON_ERROR.findall(str(exc))
        raise EngineUnavailable(
            f"Spark's executors cannot work for Meterhouse: {' '.join(said[:1])[:400]} docs/spark.md says what they need."
        ) from exc
    finally:
        waiting.shutdown(wait=False, cancel_futures=True)
    others = [answer for answer in answers if answer != libraries()]
    if others:
        raise EngineUnavailable(
            f"An executor has other libraries than this process ({others[0]}; here {libraries()}), and the same rows might"
            " become others there. Install requirements/runtime.txt on every node."
        )


def _options(master: str) -> list[tuple[str, str]]:
    here = master.startswith("local")
    if here and master.endswith("]") and "," not in master:
        master = f"{master[:-1]},{TASK_TRIES}]"  # without that, `local` tries a task once
    options = {
        "spark.app.name": "meterhouse-ingest",
        "spark.master": master,
        "spark.task.maxFailures": str(TASK_TRIES),
        # Loading goes before preparing: each has a pool, and the one with less at work is served first.
        "spark.scheduler.mode": "FAIR",
        "spark.ui.showConsoleProgress": "false",
        "spark.executorEnv.PYTHONPATH": str(BASE_DIR),
        "spark.executorEnv.DJANGO_SETTINGS_MODULE": "config.settings",
    }
    if here:
        options |= {
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
        }
    return list(options.items())


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME", "")
    found = (Path(home) / "bin" / "java").is_file() if home else shutil.which("java")
    if not found:
        raise EngineUnavailable(_JAVA)
    logging.getLogger("py4j").setLevel(logging.ERROR)
