/* out = sum_k c_k v_k in one trip through memory: see kernel.py.

   A tile of a few cache lines is summed over all terms before it is written, so `out` may be one of the v_k.
   The sums are torch's, bit for bit: the first term is a product, every other one a fused multiply-add
   (-DFUSED=1) or, where torch has none, a product and a sum (-DFUSED=0). Compile with -ffp-contract=off: the
   compiler must not choose for itself.

   With this many streams the processor's own prefetcher loses track, hence AHEAD. From `stream` bytes on,
   what is written to memory that is not also read goes around the caches: that saves reading each line before
   it is overwritten. It costs more than it saves where lines are cached: in place, or in short vectors. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LINE 64
#define TILE 256   /* bytes summed at a time */
#define AHEAD 1024 /* bytes by which the prefetch is ahead */

#ifdef __SSE2__
#include <emmintrin.h>
static inline void put_around(void *to, const void *tile)
{
    for (int i = 0; i < TILE / 16; i++)
        _mm_stream_si128((__m128i *)to + i, _mm_load_si128((const __m128i *)tile + i));
}
#define SETTLE() _mm_sfence() /* before stores that follow, such as a flag that all is written */
#else
#define put_around(to, tile) memcpy(to, tile, TILE)
#define SETTLE() (void)0
#endif

/* Whether `to` is to be written around the caches; every tile is aligned if the first one is. */
static int streamed(const void *to, const void *const *v, size_t terms, size_t bytes, size_t stream)
{
    if (bytes < stream || (uintptr_t)to % LINE)
        return 0;
    for (size_t k = 0; k < terms; k++)
        if (v[k] == to)
            return 0;
    return 1;
}

/* Prefetching past the end of a vector is harmless; forming such a pointer is not C, hence the integer. */
static inline void fetch(const void *tile)
{
    for (int i = 0; i < TILE; i += LINE)
        __builtin_prefetch((const void *)((uintptr_t)tile + AHEAD + i));
}

#if FUSED
#define PLUS(fma, c, x, sum) fma(c, x, sum)
#else
#define PLUS(fma, c, x, sum) ((sum) + (c) * (x))
#endif

#define LINEAR(name, T, fma)                                                                                 \
    void name(T *out, size_t n, const T *const *v, const T *c, size_t terms, size_t stream)                  \
    {                                                                                                        \
        enum { WIDE = TILE / sizeof(T) };                                                                    \
        const int around = streamed(out, (const void *const *)v, terms, n * sizeof(T), stream);              \
        _Alignas(LINE) T sum[WIDE];                                                                          \
        size_t at = 0;                                                                                       \
        for (; n - at >= WIDE; at += WIDE) {                                                                 \
            const T *x = v[0] + at;                                                                          \
            fetch(x);                                                                                        \
            for (size_t i = 0; i < WIDE; i++)                                                                \
                sum[i] = c[0] * x[i];                                                                        \
            for (size_t k = 1; k < terms; k++) {                                                             \
                x = v[k] + at;                                                                               \
                fetch(x);                                                                                    \
                for (size_t i = 0; i < WIDE; i++)                                                            \
                    sum[i] = PLUS(fma, c[k], x[i], sum[i]);                                                  \
            }                                                                                                \
            if (around)                                                                                      \
                put_around(out + at, sum);                                                                   \
            else                                                                                             \
                memcpy(out + at, sum, TILE);                                                                 \
        }                                                                                                    \
        for (; at < n; at++) {                                                                               \
            T one = c[0] * v[0][at];                                                                         \
            for (size_t k = 1; k < terms; k++)                                                               \
                one = PLUS(fma, c[k], v[k][at], one);                                                        \
            out[at] = one;                                                                                   \
        }                                                                                                    \
        if (around)                                                                                          \
            SETTLE();                                                                                        \
    }

LINEAR(linear_float, float, fmaf)
LINEAR(linear_double, double, fma)

/* Row out[r] of a pool [., n] becomes the form over its rows slot[first[r]], ..., slot[first[r + 1] - 1], one
   form after the other; none reads what it writes. With `low` and `high` only these numbers of each are made.
   `v` and `narrow` have room for the terms of the longest form. */
#define ROWS(name, linear, T)                                                                                \
    void name(T *pool, size_t n, const int64_t *out, const int64_t *first, const int64_t *slot,              \
              const double *c, const int64_t *low, const int64_t *high, size_t m, const T **v, T *narrow)    \
    {                                                                                                        \
        for (size_t r = 0; r < m; r++) {                                                                     \
            size_t terms = 0, at = low ? (size_t)low[r] : 0, end = low ? (size_t)high[r] : n;                \
            for (int64_t k = first[r]; k < first[r + 1]; k++, terms++) {                                     \
                v[terms] = pool + (size_t)slot[k] * n + at;                                                  \
                narrow[terms] = (T)c[k];                                                                     \
            }                                                                                                \
            linear(pool + (size_t)out[r] * n + at, end - at, v, narrow, terms, SIZE_MAX);                    \
        }                                                                                                    \
    }

ROWS(rows_float, linear_float, float)
ROWS(rows_double, linear_double, double)

/* Writes gradients at rows of a pool into other rows of it; 0 if it could. */
typedef int gradients(const void *task, const float *pool, size_t rows, const int64_t *from, float *out,
                      size_t out_rows, const int64_t *to, size_t m, const int64_t *index, size_t batch,
                      float reg);

/* Chunk after chunk, from `bounds[k]` to `bounds[k + 1]`: the gradients, into the rows `scratch` (or, if they
   are `apart`, each into a row of its own there), and then the forms from `made[k]` to `made[k + 1]`. A chunk's gradients are still in the caches when they are mixed. */
int steps_float(gradients *evaluate, const void *task, float reg, float *pool, size_t rows, size_t n,
                const int64_t *from, const int64_t *scratch, int apart, const int64_t *index, size_t batch,
                const int64_t *bounds, const int64_t *made, size_t chunks, const int64_t *out, const int64_t *first,
                const int64_t *slot, const double *c, const int64_t *low, const int64_t *high, const float **v,
                float *narrow)
{
    for (size_t k = 0; k < chunks; k++) {
        const size_t at = (size_t)bounds[k], m = (size_t)bounds[k + 1] - at;
        const int64_t *samples = index + at * batch;
        const int code = evaluate(task, pool, rows, from + at, pool, rows, scratch + (apart ? at : 0), m, samples, batch, reg);
        if (code)
            return code;
        const size_t at_form = (size_t)made[k], count = (size_t)made[k + 1] - at_form;
        const int64_t *from_low = low ? low + at_form : low, *to_high = high ? high + at_form : high;
        rows_float(pool, n, out + at_form, first + at_form, slot, c, from_low, to_high, count, v, narrow);
    }
    return 0;
}
