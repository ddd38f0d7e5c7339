"""Deterministic data: python gen.py S   ->  $PEERS_DIR/data/S/*.parquet  (T = tiny, S, M)

transactions: Zipf(0.8) users and merchants, uniform in 30 days, (user_id, event_time) unique, ordered by time.
labels: half sit exactly on one of the user's transactions (right-edge test), half at a random time; for the
        first 1% of labels three transactions are planted at exactly t-1h, t-24h, t-7d (left-edge test).
features: one row per transaction with five feature columns (W2, W5).
"""
import os, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from common import SIZES, data

DAY = 86_400_000_000
T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SPAN = 30 * DAY
W = [3_600_000_000, DAY, 7 * DAY]


def zipf(rng, n, k, s=0.8):
    cdf = np.cumsum(np.arange(1, k + 1, dtype=np.float64) ** -s)
    ranks = np.searchsorted(cdf / cdf[-1], rng.random(n))
    # fixed permutation so that hot keys are not the small ids; same for every caller with the same k
    return np.random.default_rng(k).permutation(k)[ranks].astype(np.int64)


def ts(a):
    return pa.array(a, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def pick(rng, words, n, p=None):
    return pa.DictionaryArray.from_arrays(pa.array(rng.choice(len(words), n, p=p).astype(np.int32)), pa.array(words)).cast(pa.string())


def main(size):
    n, users, nl = SIZES[size]
    rng = np.random.default_rng(20260101)
    user, t = zipf(rng, n, users), T0 + rng.integers(0, SPAN, n)
    # labels
    lu, lt = zipf(rng, nl, users), T0 + rng.integers(0, SPAN, nl)
    pl = nl // 100                       # planted left-edge labels
    half = np.arange(nl // 2, nl)        # labels on a transaction
    src = rng.integers(3 * pl, n, half.size)
    for i, w in enumerate(W):
        user[i * pl:(i + 1) * pl], t[i * pl:(i + 1) * pl] = lu[:pl], lt[:pl] - w
    for _ in range(20):                  # make (user, time) unique
        o = np.lexsort((t, user))
        dup = o[1:][(user[o][1:] == user[o][:-1]) & (t[o][1:] == t[o][:-1])]
        if dup.size == 0:
            break
        t[dup] = T0 + rng.integers(0, SPAN, dup.size)
    lu[half], lt[half] = user[src], t[src]
    perm = rng.permutation(nl)
    lu, lt = lu[perm], lt[perm]
    o = np.argsort(t, kind="stable")
    user, t = user[o], t[o]
    amount = np.round(rng.lognormal(3.5, 1.2, n) + 0.01, 2)
    cc = ["US", "GB", "DE", "FR", "BR", "IN", "NG", "SE", "JP", "AU"]
    os.makedirs(os.path.dirname(data(size, "x")), exist_ok=True)

    def write(name, cols):
        pq.write_table(pa.table(cols), data(size, name), compression="zstd", row_group_size=1 << 18)

    write("transactions", dict(
        txn_id=np.arange(n, dtype=np.int64), user_id=user, card_id=user * 4 + rng.integers(0, 3, n),
        merchant_id=zipf(rng, n, 20_000), amount=amount, currency=pick(rng, ["USD", "EUR", "GBP", "BRL", "INR"], n),
        country=pick(rng, cc, n, np.array([30, 15, 12, 10, 9, 8, 6, 4, 3, 3]) / 100), event_time=ts(t),
        status=pick(rng, ["ok", "declined", "refunded"], n, [.9, .07, .03])))
    write("labels", dict(label_id=np.arange(nl, dtype=np.int64), user_id=lu, label_time=ts(lt),
                         is_fraud=rng.random(nl) < 0.02))
    # Drawn, though no workload here reads them, so that what follows is what the project's peer comparison has.
    zipf(rng, n, users), pick(rng, [f"/p/{i}" for i in range(50)], n), rng.integers(0, n // 8, n), rng.integers(0, SPAN, n)
    write("features", dict(user_id=user, event_time=ts(t), f_amount=amount, f_log=np.log1p(amount),
                           f_hour=(t // 3_600_000_000 % 24).astype(np.int64), f_score=rng.random(n),
                           f_risk=rng.integers(0, 1000, n)))


if __name__ == "__main__":
    for s in sys.argv[1:] or ["S"]:
        main(s)
