"""Sweeps: every run of a grid of settings, on all cores or a Ray cluster, into one Parquet file.

`grid` makes checked points of a TOML file, each with its key; `store` has the columns, keeps finished rows,
so that a sweep goes on where it stopped, and writes the Parquet file; `running` is all of it together.

    from offbeat.experiments.sweep.grid import read_grid
    from offbeat.experiments.sweep.running import sweep

    if __name__ == "__main__":
        failures = sweep(read_grid(Path("grid.toml")), Path("grid.parquet"))
"""
