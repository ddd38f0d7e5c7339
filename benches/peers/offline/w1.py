"""W1: point-in-time windowed join. python w1.py PEER.FORMULATION SIZE  -> out/SIZE/w1_PEER.FORMULATION.parquet

Per label (user_id, t): count/sum/avg/max(amount) over [t-w, t], w = 1h/24h/7d; distinct merchants 24h;
sample stddev 7d; last country in 7d. Timed: read Parquet -> compute -> write Parquet, inside one process.
"""
import sys
from common import THREADS, data, emit, out, timed

W = {"1h": "1 HOUR", "24h": "24 HOUR", "7d": "7 DAY"}
US = {"1h": 3_600_000_000, "24h": 86_400_000_000, "7d": 7 * 86_400_000_000}


def union_sql(L, T, last, interval=lambda w: f"INTERVAL '{W[w]}'", order="t", extra="", distinct="count(DISTINCT merchant_id)", rng=None):
    """Union spine + OVER windows; the label rows have NULL in every transaction column."""
    aggs = ", ".join(f"count(amount) OVER w{w} AS cnt_{w}, sum(amount) OVER w{w} AS sum_{w}, "
                     f"avg(amount) OVER w{w} AS avg_{w}, max(amount) OVER w{w} AS max_{w}" for w in W)
    wins = ", ".join(f"w{w} AS (PARTITION BY user_id ORDER BY {order} RANGE BETWEEN {interval(w)} PRECEDING AND CURRENT ROW)" for w in W)
    return f"""SELECT * FROM (
      SELECT label_id, {aggs}, {distinct} OVER w24h AS merchants_24h, stddev_samp(amount) OVER w7d AS std_7d,
             {last} OVER w7d AS last_country
      FROM (SELECT user_id, label_time AS t, label_id, CAST(NULL AS DOUBLE) AS amount, CAST(NULL AS BIGINT) AS merchant_id,
                   CAST(NULL AS VARCHAR) AS country FROM {L}
            UNION ALL
            SELECT user_id, event_time, NULL, amount, merchant_id, country FROM {T}) u
      WINDOW {wins}) q WHERE label_id IS NOT NULL"""


def join_aggs(age, argmax, distinct="count(DISTINCT merchant_id)"):
    """Aggregates over joined (label, transaction) pairs; `age` is the label-transaction distance test per window."""
    a = ", ".join(f"count(amount) FILTER (WHERE {age(w)}) AS cnt_{w}, sum(amount) FILTER (WHERE {age(w)}) AS sum_{w}, "
                  f"avg(amount) FILTER (WHERE {age(w)}) AS avg_{w}, max(amount) FILTER (WHERE {age(w)}) AS max_{w}" for w in W)
    return f"{a}, {distinct} FILTER (WHERE {age('24h')}) AS merchants_24h, stddev_samp(amount) AS std_7d, {argmax} AS last_country"


def duckdb_run(form, size, dst):
    import duckdb
    con = duckdb.connect(config={"threads": THREADS})
    con.execute("SET TimeZone='UTC'; SET preserve_insertion_order=false")
    L, T = f"'{data(size, 'labels')}'", f"'{data(size, 'transactions')}'"
    age = lambda w: f"event_time >= label_time - INTERVAL '{W[w]}'"
    aggs = join_aggs(age, "arg_max(country, event_time)")
    if form == "union":
        q = union_sql(L, T, "last_value(country IGNORE NULLS)")
    elif form == "join":   # equality hash join with range residual
        q = f"""SELECT label_id, {aggs} FROM {L} l LEFT JOIN {T} x ON x.user_id = l.user_id AND x.event_time <= l.label_time
                AND x.event_time >= l.label_time - INTERVAL '7 DAY' GROUP BY label_id"""
    elif form == "bucket":  # label exploded to the 8 days its window touches; equality on (user, day)
        q = f"""WITH p AS (SELECT l.label_id, l.label_time, x.event_time, x.amount, x.merchant_id, x.country
                  FROM (SELECT *, epoch_us(label_time) // 86400000000 - unnest(range(8)) AS d FROM {L}) l
                  JOIN (SELECT *, epoch_us(event_time) // 86400000000 AS d FROM {T}) x
                  ON x.user_id = l.user_id AND x.d = l.d AND x.event_time <= l.label_time AND x.event_time >= l.label_time - INTERVAL '7 DAY')
                SELECT l.label_id, g.* EXCLUDE (label_id) FROM {L} l LEFT JOIN (SELECT label_id, {aggs} FROM p GROUP BY label_id) g USING (label_id)"""
    con.execute(f"COPY ({q}) TO '{dst}' (FORMAT parquet)")
    return duckdb.__version__


def datafusion_run(form, size, dst):
    import datafusion as df
    ctx = df.SessionContext(df.SessionConfig().with_target_partitions(THREADS))
    ctx.register_parquet("l", data(size, "labels"))
    ctx.register_parquet("x", data(size, "transactions"))
    if form == "union":
        q = union_sql("l", "x", "last_value(country) IGNORE NULLS")
    else:
        age = lambda w: f"event_time >= label_time - INTERVAL '{W[w]}'"
        q = f"""SELECT label_id, {join_aggs(age, "last_value(country ORDER BY event_time)")} FROM l LEFT JOIN x ON x.user_id = l.user_id
                AND x.event_time <= l.label_time AND x.event_time >= l.label_time - INTERVAL '7 DAY' GROUP BY label_id"""
    ctx.sql(q).write_parquet(dst)
    return df.__version__


def polars_run(form, size, dst):
    import polars as pl
    l = pl.scan_parquet(data(size, "labels")).select("label_id", "user_id", t="label_time")
    x = pl.scan_parquet(data(size, "transactions")).select("user_id", "amount", "merchant_id", "country", t="event_time")
    per = {"1h": "1h", "24h": "24h", "7d": "7d"}
    a = pl.col("amount")
    basic = lambda w, a: [a.count().alias(f"cnt_{w}"), a.sum().alias(f"sum_{w}"), a.mean().alias(f"avg_{w}"), a.max().alias(f"max_{w}")]
    if form == "rolling":  # union + DataFrame.rolling per window (group_by rolling), one pass each
        u = pl.concat([l, x], how="diagonal").sort("user_id", "t", "label_id", nulls_last=False).collect()
        parts = []
        for w in W:
            ex = basic(w, a) + [pl.col("label_id").last().alias("_")]
            if w == "24h":
                ex.append(pl.col("merchant_id").drop_nulls().n_unique().alias("merchants_24h"))
            if w == "7d":
                ex += [a.std().alias("std_7d"), pl.col("country").drop_nulls().last().alias("last_country")]
            parts.append(u.rolling("t", period=per[w], closed="both", group_by="user_id").agg(ex).drop("user_id", "t", "_"))
        r = pl.concat([u.select("label_id"), *parts], how="horizontal").filter(pl.col("label_id").is_not_null())
    elif form == "rollby":  # union + rolling_*_by expressions over user; distinct through rolling()
        u = pl.concat([l, x], how="diagonal").sort("user_id", "t").with_columns(one=a.is_not_null().cast(pl.Int64))
        ex = []
        for w in W:
            k = dict(by="t", window_size=per[w], closed="both", min_samples=1)
            ex += [pl.col("one").rolling_sum_by(**k).over("user_id").alias(f"cnt_{w}"), a.rolling_sum_by(**k).over("user_id").alias(f"sum_{w}"),
                   a.rolling_mean_by(**k).over("user_id").alias(f"avg_{w}"), a.rolling_max_by(**k).over("user_id").alias(f"max_{w}")]
        ex.append(a.rolling_std_by("t", "7d", closed="both", min_samples=2).over("user_id").alias("std_7d"))
        u = u.with_columns(ex).collect()
        n = u.rolling("t", period="24h", closed="both", group_by="user_id").agg(merchants_24h=pl.col("merchant_id").drop_nulls().n_unique())
        r = u.with_columns(n["merchants_24h"]).filter(pl.col("label_id").is_not_null()).drop("one", "amount", "merchant_id", "country")
        last = x.select("user_id", "t", last_country="country").collect().sort("t")
        r = r.sort("t").join_asof(last, on="t", by="user_id", tolerance="7d", strategy="backward", check_sortedness=False).drop("user_id", "t")
    else:  # join on (user, day bucket) + filter + group_by, streaming engine
        day = lambda c: (pl.col(c).dt.epoch("us") // US["24h"])
        lb = l.with_columns(d=pl.concat_list([day("t") - i for i in range(8)])).explode("d")
        p = lb.join(x.with_columns(d=day("t")).rename({"t": "e"}), on=["user_id", "d"]).filter((pl.col("e") <= pl.col("t")) & (pl.col("e") >= pl.col("t") - pl.duration(days=7)))
        ex = []
        for w in W:
            f = pl.col("e") >= pl.col("t") - pl.duration(microseconds=US[w])
            ex += basic(w, a.filter(f))
            if w == "24h":
                ex.append(pl.col("merchant_id").filter(f).n_unique().alias("merchants_24h"))
        ex += [a.std().alias("std_7d"), pl.col("country").sort_by("e").last().alias("last_country")]
        r = l.select("label_id").join(p.group_by("label_id").agg(ex), on="label_id", how="left").collect(engine="streaming")
    r.write_parquet(dst)
    return pl.__version__


if __name__ == "__main__":
    peer, size = sys.argv[1:3]
    name, form = peer.split(".")
    __import__(name)
    dst = out(size, "w1_" + peer)
    with timed() as t:
        v = globals()[name + "_run"](form, size, dst)
    v, s = v if isinstance(v, tuple) else (v, t.s)
    emit(workload="W1", peer=peer, size=size, s=round(s, 3), version=v, out=dst)
