"""W5: the latest feature row of each user into Redis. python w5.py PEER SIZE
peers: feast.duckdb (FeatureStore.materialize, local engine), floor.duckdb (arg_max per user + HSET pipelines of 5000).
Redis is there already, empty, at $PEERS_REDIS_PORT."""
import datetime as dt, sys
from common import REDIS_PORT, THREADS, data, emit, timed
from w2 import F


def feast_run(form, size):
    import feast
    from feast_store import store
    s = store(size, form)
    with timed() as t:
        s.materialize(dt.datetime(2025, 12, 1), dt.datetime(2026, 2, 1), feature_views=["txn"])
    return feast.__version__, t.s


def floor_run(form, size):
    import duckdb, redis
    con, r = duckdb.connect(config={"threads": THREADS}), redis.Redis(port=REDIS_PORT)
    with timed() as t:
        tab = con.execute(f"""SELECT user_id, x.* FROM (SELECT user_id, arg_max(struct_pack({', '.join(f'{c} := {c}' for c in F)}), event_time) AS x
                              FROM '{data(size, 'features')}' GROUP BY 1)""").fetchall()
        for i in range(0, len(tab), 5000):
            p = r.pipeline(transaction=False)
            for row in tab[i:i + 5000]:
                p.execute_command("HSET", f"txn:{row[0]}", *[y for kv in zip(F, row[1:]) for y in kv])
            p.execute()
    return duckdb.__version__, t.s


if __name__ == "__main__":
    peer, size = sys.argv[1:3]
    name, form = peer.split(".")
    v, s = globals()[name + "_run"](form, size)
    emit(workload="W5", peer=peer, size=size, s=round(s, 3), version=v)
