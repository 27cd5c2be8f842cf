"""Sweeps: every run of a grid of settings, on all cores or a Ray cluster, into one Parquet file.

    grid      a TOML file -> the points of the grid, each checked, each with its key
    record    a run -> a row of the table, and the Parquet file
    store     the folder of finished rows: what makes a sweep go on where it stopped
    work      what a worker does with a batch of points
    pools     workers that are tasks of a Ray cluster; others: `offbeat.experiments.workers`
    running   all of it together, with a `Scheduler`: `sweep`

From Python:

    from offbeat.experiments.sweep.grid import read_grid
    from offbeat.experiments.sweep.running import sweep

    if __name__ == "__main__":
        failures = sweep(read_grid(Path("grid.toml")), Path("grid.parquet"))
"""
