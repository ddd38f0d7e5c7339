"""What others do with the same transactions: python w4.py PEER EVENTS REDIS_PORT

EVENTS is a file of JSON lines {"user_id", "amount", "event_time" in milliseconds} in the order of event time. For each event: count, sum, mean and
maximum of the user's amounts within one hour and within 24 hours, both ends included. The last values of each user end in the hash txn:<user>.
Peers: floor.python (a loop, no framework), bytewax.w1, pyflink.p1 (the number is its workers). All write with the same pipelined writer.
The last line printed is JSON: seconds from the start of the job (a JVM's start included) to the last write, seconds to the first one, the version."""
import json
import sys
import time
from collections import deque

HOUR = 3_600_000
FLUSH = 5000
NAMES = [f"{f}_{w}" for w in ("1h", "24h") for f in ("cnt", "sum", "avg", "max")]
PEER, EVENTS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
FIRST = EVENTS + ".first"


class Window:
    """The last `width` milliseconds, with a running sum and a falling queue for the maximum."""
    __slots__ = ("width", "events", "tops", "total")

    def __init__(self, width):
        self.width, self.events, self.tops, self.total = width, deque(), deque(), 0.0

    def add(self, t, amount):
        events, tops, start = self.events, self.tops, t - self.width
        events.append((t, amount))
        self.total += amount
        while events[0][0] < start:
            self.total -= events.popleft()[1]
        while tops and tops[-1][1] <= amount:
            tops.pop()
        tops.append((t, amount))
        while tops[0][0] < start:
            tops.popleft()
        n = len(events)
        return n, self.total, self.total / n, tops[0][1]


def step(state, event):
    state = state or (Window(HOUR), Window(24 * HOUR))
    return state, state[0].add(*event) + state[1].add(*event)


class Writer:
    """Keeps the latest values of users, and writes them in pipelines."""
    def __init__(self):
        import redis
        self.redis, self.waiting, self.wrote = redis.Redis(port=PORT), {}, False

    def put(self, user, values):
        self.waiting[user] = values
        if len(self.waiting) >= FLUSH:
            self.flush()

    def flush(self):
        if not self.wrote and self.waiting:
            # A file, because frameworks run this in processes of their own.
            self.wrote = True
            with open(FIRST, "w") as file:
                file.write(str(time.time()))
        pipe = self.redis.pipeline(transaction=False)
        for user, values in self.waiting.items():
            pipe.execute_command("HSET", f"txn:{user}", *[x for pair in zip(NAMES, values) for x in pair])
        pipe.execute()
        self.waiting.clear()


def floor(_):
    import orjson
    states, writer = {}, Writer()
    with open(EVENTS, "rb") as lines:
        for line in lines:
            event = orjson.loads(line)
            user = event["user_id"]
            states[user], values = step(states.get(user), (event["event_time"], event["amount"]))
            writer.put(user, values)
    writer.flush()
    return "Python " + sys.version.split()[0]


def bytewax(form):
    import bytewax.operators as op
    import orjson
    from bytewax.connectors.files import FileSource
    from bytewax.dataflow import Dataflow
    from bytewax.outputs import DynamicSink, StatelessSinkPartition
    from bytewax.testing import cluster_main
    from importlib.metadata import version

    class Partition(StatelessSinkPartition):
        def __init__(self):
            self.writer = Writer()

        def write_batch(self, items):
            for user, values in items:
                self.writer.put(user, values)

        def close(self):
            self.writer.flush()

    class Sink(DynamicSink):
        def build(self, step_id, worker_index, worker_count):
            return Partition()

    def parse(lines):
        for line in lines:
            event = orjson.loads(line)
            yield str(event["user_id"]), (event["event_time"], event["amount"])

    flow = Dataflow("w4")
    stream = op.input("in", flow, FileSource(EVENTS, batch_size=1000))
    stream = op.stateful_map("windows", op.flat_map_batch("parse", stream, parse), step)
    op.output("out", stream, Sink())
    cluster_main(flow, [], 0, worker_count_per_proc=int(form[1:]))
    return "Bytewax " + version("bytewax")


def pyflink(form):
    from importlib.metadata import version
    from pyflink.common import Configuration
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.datastream.functions import MapFunction
    from pyflink.table import StreamTableEnvironment

    class ToRedis(MapFunction):
        def open(self, context):
            self.writer = Writer()

        def map(self, row):
            self.writer.put(row[0], tuple(row)[1:])
            return 0

        def close(self):
            self.writer.flush()

    config = Configuration()
    for key, value in {
        "parallelism.default": form[1:],
        "taskmanager.memory.managed.size": "256m",
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.fn-execution.bundle.size": "10000",
        "table.exec.source.idle-timeout": "1 s",
    }.items():
        config.set_string(key, value)
    env = StreamExecutionEnvironment.get_execution_environment(config)
    tables = StreamTableEnvironment.create(env)
    tables.execute_sql(f"""
        CREATE TABLE tx (user_id BIGINT, amount DOUBLE, event_time BIGINT, ts AS TO_TIMESTAMP_LTZ(event_time, 3), WATERMARK FOR ts AS ts)
        WITH ('connector' = 'filesystem', 'path' = 'file://{EVENTS}', 'format' = 'json')""")

    def values(w):
        return f"COUNT(amount) OVER w AS cnt_{w}, SUM(amount) OVER w AS sum_{w}, AVG(amount) OVER w AS avg_{w}, MAX(amount) OVER w AS max_{w}"

    def window(hours):
        return f"WINDOW w AS (PARTITION BY user_id ORDER BY ts RANGE BETWEEN INTERVAL '{hours}' HOUR PRECEDING AND CURRENT ROW)"

    # Flink takes one window a query.
    query = f"""SELECT user_id, cnt_1h, sum_1h, avg_1h, max_1h, {values('24h')}
        FROM (SELECT user_id, ts, amount, {values('1h')} FROM tx {window(1)}) {window(24)}"""
    tables.to_data_stream(tables.sql_query(query)).map(ToRedis()).filter(lambda n: n != 0).print()
    env.execute("w4")
    return "Flink " + version("apache-flink")


if __name__ == "__main__":
    name, form = PEER.split(".")
    clock, started = time.perf_counter(), time.time()
    version = {"floor": floor, "bytewax": bytewax, "pyflink": pyflink}[name](form)
    seconds = time.perf_counter() - clock
    with open(FIRST) as file:
        first = float(file.read()) - started
    print(json.dumps({"seconds": seconds, "first": first, "version": version}), flush=True)
