/* Which rows of a pool values have. */

/* Of values that are born in a step and not needed any more after another one; steps are in order, and so are
   `values`, of which those before born[s] are born by step s, and `gone`, likewise. A value takes the row that
   was given back last, or a new one behind `rows`; how many there are then. `free` has room for all. */
Int mail_rows(const Int *born, const Int *values, const Int *died, const Int *gone, Int steps, Int *row, Int *free,
              Int *many_free, Int rows)
{
    Int a = 0, b = 0, n = *many_free;
    for (Int s = 0; s < steps; s++) {
        for (; a < born[s]; a++)
            row[values[a]] = n ? free[--n] : rows++;
        for (; b < died[s]; b++)
            free[n++] = row[gone[b]];
    }
    *many_free = n;
    return rows;
}
