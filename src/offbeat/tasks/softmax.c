/* Softmax regression on a pool of models: see softmax.py.

   A model [P] is W [classes, features] row by row and then c [classes]. A row of pixels is padded with zeros to a
   multiple of LANES, so that no loop over it has a remainder; pixels are bytes, worth `scale` each, or floats.

   Every sum has one order, whatever the processor's vectors hold: a logit is summed in LANES partial sums, which are
   then added in pairs; a gradient over the samples, one after the other. Compile with -ffp-contract=fast: products
   are added with one rounding where the processor can. Nothing here depends on another row of the pool.

   The tiles (NB samples x NC classes forward, ND vectors of pixels x NC classes backward) keep all sums in registers:
   4 x 5 forward was 10 % slower, ND = 2 as well; NC = 10 was 5 % faster but needs twice the code. Bytes are turned into
   floats twice rather than kept, which is free beside the products. Without the prefetch a gradient on data that are
   in no cache takes 1.5 times as long. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

enum { LANES = 16, AHEAD = 8, LINE = 64 }; /* AHEAD: samples by which the prefetch is ahead */
#if defined(__AVX512F__)
enum { WIDE = 16, NB = 2, NC = 5, ND = 4 };
#elif defined(__AVX__)
enum { WIDE = 8, NB = 1, NC = 5, ND = 2 };
#else
enum { WIDE = 4, NB = 1, NC = 5, ND = 2 };
#endif
enum { PARTS = LANES / WIDE };
enum { FINE = 0, MEMORY = 1, SAMPLE = 2, ROW = 3 }; /* what the functions return */

typedef float vec __attribute__((vector_size(4 * WIDE)));
typedef int32_t ivec __attribute__((vector_size(4 * WIDE)));
typedef uint8_t bvec __attribute__((vector_size(WIDE)));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16") /* what is indexed by a constant stays in registers */

struct samples {
    const void *pixels;
    const int64_t *labels;
    size_t count, stride, features, classes; /* stride: bytes from row to row */
    int32_t bytes;                           /* whether pixels are bytes */
    float scale;
};

INLINE vec load(const float *at)
{
    vec v;
    memcpy(&v, at, sizeof v);
    return v;
}

INLINE void store(float *at, vec v)
{
    memcpy(at, &v, sizeof v);
}

INLINE vec pixels(const char *row, size_t d, const int bytes)
{
    if (!bytes)
        return load((const float *)row + d);
#if defined(__AVX512F__)
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(row + d))));
#elif defined(__AVX2__)
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(row + d))));
#else
    bvec b;
    memcpy(&b, row + d, sizeof b);
    return __builtin_convertvector(__builtin_convertvector(b, ivec), vec);
#endif
}

/* The sum of LANES numbers: lane i and i + 8, then i and i + 4, i + 2, i + 1. */
INLINE float total(const vec *part)
{
#if defined(__AVX512F__)
    __m512 v = (__m512)part[0];
    v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4E));
    v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xB1));
    v = _mm512_add_ps(v, _mm512_shuffle_ps(v, v, 0x4E));
    v = _mm512_add_ps(v, _mm512_shuffle_ps(v, v, 0xB1));
    return _mm512_cvtss_f32(v);
#else
    float x[LANES];
    UNROLL for (int i = 0; i < LANES; i++)
        x[i] = part[i / WIDE][i % WIDE];
    UNROLL for (int i = 0; i < 8; i++)
        x[i] += x[i + 8];
    UNROLL for (int i = 0; i < 4; i++)
        x[i] += x[i + 4];
    return (x[0] + x[2]) + (x[1] + x[3]);
#endif
}

INLINE vec where(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

/* e^x for x <= 0 to 2 units in the last place, but not below e^-87; what is not a number stays so.
   x = n ln 2 + r with |r| <= ln 2 / 2, and the Taylor series of e^r, whose next term is below 2^-27. */
INLINE vec exponential(vec x)
{
    const float whole = 12582912.0f; /* 1.5 * 2^23: a sum with it has no fraction */
    x = where(x < -87.0f, (vec){0} - 87.0f, x);
    const vec t = x * 1.44269504f + whole, n = t - whole;
    vec r = x - n * 0.69314575f; /* the first 16 bits of ln 2, and the rest */
    r = r - n * 1.42860677e-6f;
    vec y = r * (1.0f / 5040) + 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    return y * (vec)(((ivec)t - 0x4B400000 + 127) << 23); /* a product, so that NaN remains NaN */
}

/* Logits of nb samples and nc classes: z[c * padded + b]. */
INLINE void forward(const int nb, const int nc, const int bytes, const float *w, size_t wide, const char *const *rows,
                    float scale, const float *bias, float *z, size_t padded)
{
    vec sum[NB][NC][PARTS];
    UNROLL for (int b = 0; b < nb; b++)
        UNROLL for (int c = 0; c < nc; c++)
            UNROLL for (int p = 0; p < PARTS; p++)
                sum[b][c][p] = (vec){0};
    for (size_t d = 0; d < wide; d += LANES)
        UNROLL for (int p = 0; p < PARTS; p++) {
            vec a[NB];
            UNROLL for (int b = 0; b < nb; b++)
                a[b] = pixels(rows[b], d + p * WIDE, bytes);
            UNROLL for (int c = 0; c < nc; c++) {
                const vec x = load(w + c * wide + d + p * WIDE);
                UNROLL for (int b = 0; b < nb; b++)
                    sum[b][c][p] += a[b] * x;
            }
        }
    UNROLL for (int b = 0; b < nb; b++)
        UNROLL for (int c = 0; c < nc; c++)
            z[c * padded + b] = total(sum[b][c]) * scale + bias[c];
}

/* The gradient by the weights of nd vectors of pixels and nc classes, from p[c * padded + b], with the regulariser's:
   twice * x / (1 + x^2)^2. */
INLINE void backward(const int nd, const int nc, const int bytes, const float *w, size_t wide, size_t d,
                     const char *const *rows, const float *p, size_t padded, size_t batch, float twice, float *out,
                     size_t features)
{
    vec sum[NC][ND];
    UNROLL for (int c = 0; c < nc; c++)
        UNROLL for (int j = 0; j < nd; j++) {
            const vec x = load(w + c * wide + d + j * WIDE), y = x * x + 1.0f;
            sum[c][j] = twice * x / (y * y);
        }
    for (size_t b = 0; b < batch; b++) {
        vec a[ND];
        UNROLL for (int j = 0; j < nd; j++)
            a[j] = pixels(rows[b], d + j * WIDE, bytes);
        UNROLL for (int c = 0; c < nc; c++)
            UNROLL for (int j = 0; j < nd; j++)
                sum[c][j] += a[j] * p[c * padded + b];
    }
    UNROLL for (int c = 0; c < nc; c++)
        UNROLL for (int j = 0; j < nd; j++) {
            const size_t at = d + j * WIDE;
            const vec v = sum[c][j];
            if (at + WIDE <= features)
                store(out + c * features + at, v);
            else if (at < features) {
                float last[WIDE];
                store(last, v);
                memcpy(out + c * features + at, last, sizeof(float) * (features - at));
            }
        }
}

/* Both with the number of classes as a constant: NC, or what is left of them. */
#define BY_CLASSES(n, call)                                                                                            \
    switch (n) {                                                                                                       \
    case 1: { enum { nc = 1 }; call; break; }                                                                          \
    case 2: { enum { nc = 2 }; call; break; }                                                                          \
    case 3: { enum { nc = 3 }; call; break; }                                                                          \
    case 4: { enum { nc = 4 }; call; break; }                                                                          \
    default: { enum { nc = NC }; call; }                                                                               \
    }

/* All logits of a batch, and a prefetch of what comes next. rows: its pixels, and AHEAD + NB more. */
INLINE void logits(const int bytes, const struct samples *s, const float *w, size_t wide, const float *bias,
                   const char *const *rows, size_t batch, float *z, size_t padded)
{
    size_t b = 0;
    for (; b + NB <= batch; b += NB) {
        for (size_t k = b + AHEAD; k < b + AHEAD + NB; k++)
            for (size_t line = 0; line < s->stride; line += LINE)
                __builtin_prefetch(rows[k] + line);
        for (size_t c = 0; c < s->classes; c += NC)
            BY_CLASSES(s->classes - c, forward(NB, nc, bytes, w + c * wide, wide, rows + b, s->scale, bias + c,
                                               z + c * padded + b, padded))
    }
    for (; b < batch; b++)
        for (size_t c = 0; c < s->classes; c += NC)
            BY_CLASSES(s->classes - c, forward(1, nc, bytes, w + c * wide, wide, rows + b, s->scale, bias + c,
                                               z + c * padded + b, padded))
}

/* z[c * padded + b] <- e^(z - max over c); the vectors of max and sum over c go to `most` and `sum`. */
INLINE void exponentials(float *z, size_t padded, size_t classes, vec *most, vec *sum)
{
    *most = load(z), *sum = (vec){0};
    for (size_t c = 1; c < classes; c++) {
        const vec v = load(z + c * padded);
        *most = where(v > *most, v, *most);
    }
    for (size_t c = 0; c < classes; c++) {
        const vec e = exponential(load(z + c * padded) - *most);
        *sum += e;
        store(z + c * padded, e);
    }
}

static size_t padding(size_t n)
{
    return (n + LANES - 1) / LANES * LANES;
}

/* Logits to (softmax - target) / batch, times the value of a pixel; and the gradient by c. */
static void residuals(const struct samples *s, const int64_t *index, size_t batch, float *z, const float *bias,
                      float twice, float *out)
{
    const size_t padded = padding(batch);
    const float share = 1.0f / (float)batch;
    for (size_t g = 0; g < padded; g += WIDE) {
        vec most, sum;
        exponentials(z + g, padded, s->classes, &most, &sum);
        const vec over = share / sum;
        for (size_t c = 0; c < s->classes; c++)
            store(z + c * padded + g, load(z + c * padded + g) * over);
    }
    for (size_t b = 0; b < batch; b++)
        z[(size_t)s->labels[index[b]] * padded + b] -= share;
    for (size_t c = 0; c < s->classes; c++) {
        vec sum[PARTS];
        UNROLL for (int p = 0; p < PARTS; p++)
            sum[p] = (vec){0};
        memset(z + c * padded + batch, 0, sizeof(float) * (padded - batch));
        for (size_t g = 0; g < padded; g += LANES)
            UNROLL for (int p = 0; p < PARTS; p++) {
                float *at = z + c * padded + g + p * WIDE;
                const vec v = load(at);
                sum[p] += v;
                store(at, v * s->scale);
            }
        const float y = bias[c] * bias[c] + 1.0f;
        out[c] = total(sum) + twice * bias[c] / (y * y);
    }
}

struct work {
    float *w, *z;      /* the weights with padded rows; logits [classes, batch], padded as well */
    const char **rows; /* of the pixels of this batch, and AHEAD of the next */
};

static int opened(struct work *work, const struct samples *s, size_t batch)
{
    const size_t wide = padding(s->features), padded = padding(batch);
    const size_t size = sizeof(float) * s->classes * (wide + padded);
    work->w = aligned_alloc(LINE, size);
    work->rows = malloc(sizeof(char *) * (batch + AHEAD + NB));
    if (!work->w || !work->rows)
        return 0;
    work->z = work->w + s->classes * wide;
    memset(work->w, 0, size);
    return 1;
}

static void closed(struct work *work)
{
    free(work->w);
    free(work->rows);
}

static void unpacked(float *w, const float *x, const struct samples *s)
{
    for (size_t c = 0; c < s->classes; c++)
        memcpy(w + c * padding(s->features), x + c * s->features, sizeof(float) * s->features);
}

INLINE void gradient(const int bytes, const struct samples *s, const struct work *work, const float *x,
                     const int64_t *index, size_t batch, float twice, float *out)
{
    const size_t wide = padding(s->features), padded = padding(batch), weights = s->classes * s->features;
    const char *const *rows = (const char *const *)work->rows;
    unpacked(work->w, x, s);
    logits(bytes, s, work->w, wide, x + weights, rows, batch, work->z, padded);
    residuals(s, index, batch, work->z, x + weights, twice, out + weights);
    size_t d = 0;
    for (; d + ND * WIDE <= wide; d += ND * WIDE)
        for (size_t c = 0; c < s->classes; c += NC)
            BY_CLASSES(s->classes - c, backward(ND, nc, bytes, work->w + c * wide, wide, d, rows, work->z + c * padded,
                                                padded, batch, twice, out + c * s->features, s->features))
    for (; d < wide; d += WIDE)
        for (size_t c = 0; c < s->classes; c += NC)
            BY_CLASSES(s->classes - c, backward(1, nc, bytes, work->w + c * wide, wide, d, rows, work->z + c * padded,
                                                padded, batch, twice, out + c * s->features, s->features))
}

/* out[to[r]] <- the gradient at pool[from[r]] on the samples index[r * batch ...], for m models. No row of `pool` that
   is yet to be read may be written: `out` may be `pool`, with other rows. twice: 2 * reg. */
int softmax_gradients(const struct samples *s, const float *pool, size_t pool_rows, const int64_t *from, float *out,
                      size_t out_rows, const int64_t *to, size_t m, const int64_t *index, size_t batch, float twice)
{
    const size_t size = s->classes * (s->features + 1);
    for (size_t r = 0; r < m; r++)
        if ((uint64_t)from[r] >= pool_rows || (uint64_t)to[r] >= out_rows)
            return ROW;
    for (size_t k = 0; k < m * batch; k++)
        if ((uint64_t)index[k] >= s->count)
            return SAMPLE;
    struct work work;
    const int enough = opened(&work, s, batch);
    for (size_t r = 0; enough && r < m; r++) {
        const int64_t *mine = index + r * batch;
        const size_t left = (m - r) * batch;
        for (size_t k = 0; k < batch + AHEAD + NB; k++)
            work.rows[k] = (const char *)s->pixels + (size_t)mine[k < left ? k : left - 1] * s->stride;
        const float *x = pool + (size_t)from[r] * size;
        float *there = out + (size_t)to[r] * size;
        if (s->bytes)
            gradient(1, s, &work, x, mine, batch, twice, there);
        else
            gradient(0, s, &work, x, mine, batch, twice, there);
    }
    closed(&work);
    return enough ? FINE : MEMORY;
}

/* The mean cross entropy of a model on all samples, and for how many the largest logit is that of their label. */
int softmax_scores(const struct samples *s, const float *x, double *entropy, int64_t *right)
{
    const size_t wide = padding(s->features), weights = s->classes * s->features;
    struct work work;
    const int enough = opened(&work, s, LANES);
    if (enough)
        unpacked(work.w, x, s);
    double sum = 0;
    int64_t hits = 0;
    for (size_t at = 0; enough && at < s->count; at += LANES) {
        const size_t batch = s->count - at < LANES ? s->count - at : LANES;
        for (size_t k = 0; k < LANES + AHEAD + NB; k++)
            work.rows[k] = (const char *)s->pixels + (at + k < s->count ? at + k : s->count - 1) * s->stride;
        const char *const *rows = (const char *const *)work.rows;
        if (s->bytes)
            logits(1, s, work.w, wide, x + weights, rows, batch, work.z, LANES);
        else
            logits(0, s, work.w, wide, x + weights, rows, batch, work.z, LANES);
        float own[LANES], most[LANES], all[LANES];
        for (size_t b = 0; b < batch; b++) {
            size_t best = 0;
            for (size_t c = 1; c < s->classes; c++)
                if (work.z[c * LANES + b] > work.z[best * LANES + b])
                    best = c;
            hits += best == (size_t)s->labels[at + b];
            own[b] = work.z[(size_t)s->labels[at + b] * LANES + b];
        }
        for (size_t g = 0; g < LANES; g += WIDE) {
            vec largest, whole;
            exponentials(work.z + g, LANES, s->classes, &largest, &whole);
            store(most + g, largest);
            store(all + g, whole);
        }
        for (size_t b = 0; b < batch; b++)
            sum += log((double)all[b]) + ((double)most[b] - (double)own[b]);
    }
    *entropy = sum / (double)s->count;
    *right = hits;
    closed(&work);
    return enough ? FINE : MEMORY;
}
