"""Shared paths and result plumbing. All machine state lives under $PEERS_DIR."""
import json, os, time

ROOT = os.environ.get("PEERS_DIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "work"))
REDIS_PORT = int(os.environ.get("PEERS_REDIS_PORT", "6399"))
THREADS = int(os.environ.get("PEERS_THREADS", "2"))
# name -> (transactions = feature rows, users, labels)
SIZES = {"T": (20_000, 2_000, 2_000), "S": (1_000_000, 100_000, 100_000), "S3": (3_000_000, 300_000, 300_000),
         "M": (10_000_000, 1_000_000, 1_000_000), "M3": (30_000_000, 3_000_000, 3_000_000)}


def data(size, name):
    return os.path.join(ROOT, "data", size, name + ".parquet")


def out(size, tag):
    d = os.path.join(ROOT, "out", size)
    os.makedirs(d, exist_ok=True)
    return os.path.join(d, tag + ".parquet")


def emit(**kw):
    """The last line that a peer prints; `bench-offline` reads it."""
    print("RESULT " + json.dumps(kw), flush=True)


class timed:
    def __enter__(self):
        self.t0 = time.perf_counter()
        return self

    def __exit__(self, *a):
        self.s = time.perf_counter() - self.t0
