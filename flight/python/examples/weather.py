"""Weather of three cities: write it, ask, look at the past, follow what changes, draw.

A script for an editor that knows `# %%` cells, or for the command line: `python weather.py [ADDRESSES [PICTURE]]`, with a
server running. Needs `pip install "tandemdb[examples]"`.
"""

# %% Connect. Several addresses, by commas, are one database: whoever answers is asked.
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

import tandemdb  # noqa: E402

addresses = sys.argv[1] if len(sys.argv) > 1 else "grpc://127.0.0.1:8815"
picture = sys.argv[2] if len(sys.argv) > 2 else "weather.png"
db = tandemdb.connect(addresses)
db.execute("DROP TABLE IF EXISTS city_weather")

# %% Make a year of hourly readings.
hours = pd.date_range("2024-01-01", "2024-12-31 23:00", freq="h")
chance = np.random.default_rng(2024)
mean, swing = {"Bergen": 8.0, "Cairo": 23.0, "Quito": 14.0}, {"Bergen": 7.0, "Cairo": 8.0, "Quito": 1.0}


def readings(city):
    year = -np.cos(2 * np.pi * (hours.dayofyear - 20) / 366)
    day = -np.cos(2 * np.pi * (hours.hour - 3) / 24)
    temp = mean[city] + swing[city] * year + 3 * day + chance.normal(0, 1.5, len(hours))
    return pd.DataFrame({"time": hours, "city": city, "temp": temp.round(1)})


frame = pd.concat([readings(city) for city in mean]).sort_values("time")
frame.head()

# %% Write them, once, whatever happens on the way. The first write makes the table.
done = db.write("city_weather", frame, schema="create", timestamp="time", options={"partition_by": "month"}, progress=True)
print(f"{done.rows} rows are in commit {done.seq}")

# %% Ask. The answer is a frame of pandas, of polars, or an Arrow table.
monthly = db.sql(
    """
    SELECT city, date_bin(INTERVAL '1 month', time) AS month, avg(temp) AS temp, min(temp) AS low, max(temp) AS high
    FROM city_weather GROUP BY 1, 2 ORDER BY 1, 2
    """
).pandas()
print(monthly.head())
print(db.sql("SELECT count(*) FROM city_weather WHERE city = $1 AND temp > $2", ["Cairo", 35]).scalar(), "hot hours in Cairo")

# %% A thermometer in Bergen was wrong in July: mend it. What was there before is still there.
before = db.seq()
mended = db.execute("UPDATE city_weather SET temp = temp - 4 WHERE city = 'Bergen' AND time >= '2024-07-01' AND time < '2024-08-01'")
july = "SELECT avg(temp) FROM city_weather WHERE city = 'Bergen' AND time >= '2024-07-01' AND time < '2024-08-01'"
print(f"{mended.rows} readings changed: {db.sql(july, at=before).scalar():.1f} °C became {db.sql(july).scalar():.1f} °C")

# %% What did that commit do? The change stream tells it row by row, and goes on for ever unless it is told where to end.
changes = pd.concat([change.pandas() for change in db.changes("city_weather", before + 1, follow=False, images="both")])
print(changes.groupby("_op")["temp"].agg(["size", "mean"]).round(1))

# %% Follow it live: what is written after this line comes out of `live`, however many nodes are lost meanwhile.
with db.changes("city_weather") as live:
    db.write("city_weather", [{"time": pd.Timestamp("2025-01-01"), "city": "Quito", "temp": 14.2}])
    print(next(live).rows())

# %% Draw.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=[2, 1])
for city, part in monthly.groupby("city"):
    left.plot(part["month"], part["temp"], label=city)
    left.fill_between(part["month"], part["low"], part["high"], alpha=0.15)
left.set(title="Monthly mean, lowest and highest", ylabel="°C")
left.legend()
for at, name in ((before, "as it was"), (None, "as it is")):
    days = db.sql(
        "SELECT date_bin(INTERVAL '1 day', time) AS day, avg(temp) AS temp FROM city_weather "
        "WHERE city = 'Bergen' AND time >= '2024-06-20' AND time < '2024-08-12' GROUP BY 1 ORDER BY 1",
        at=at,
    ).pandas()
    right.plot(days["day"], days["temp"], label=name)
right.set(title="Bergen, before and after the mending")
right.legend()
figure.autofmt_xdate()
figure.tight_layout()
figure.savefig(picture)
print(f"drawn into {picture}")

# %% Done.
db.close()
