SETS = ("etth1", "m4_hourly", "cmapss")
